//! What operators see of the cache: counts, top lists, one entry.

use super::*;

#[tokio::test]
async fn the_description_is_served_and_counts_are_told() {
    let upstream = Upstream::start().await;
    let edge = filled(&upstream, &["one?", "two?"]).await;
    assert!(is_hit(&edge, "one?", "one").await);
    let described = get(&edge, "/v1/openapi.json").await.json();
    assert_eq!(described["openapi"], "3.1.0");
    for path in described["paths"].as_object().expect("paths").keys() {
        let answer = get(&edge, path).await;
        assert_ne!(answer.status, 404, "{path}: {:?}", answer.body);
    }
    let stats = get(&edge, "/v1/stats").await.json();
    assert_eq!(stats["entries"], 4);
    assert_eq!(stats["requests"]["MISS"], 4);
    assert_eq!(stats["requests"][HIT], 1);
    assert_eq!(stats["healthy"], true);
    check_refused(&get(&edge, "/v1/nothing").await, 404, "path");
    let wrong = Ask::new(Method::POST, "/v1/stats", "").key(Some(&edge.token()));
    check_refused(&admin(&edge).fetch(wrong).await, 405, "method");
}

#[tokio::test]
async fn top_lists_models_routes_and_tenants_without_their_hashes() {
    let upstream = Upstream::start().await;
    let config = format!(
        "[[group]]\nname = \"red team\"\ntenants = [\"{}\"]",
        "ab".repeat(32)
    );
    let plan = Plan::new(&upstream.url()).edge_socket(true).config(&config);
    let edge = plan.start().await;
    let unix = Unix::http1(&edge.socket());
    for digest in 0..6 {
        put(&unix, 1, digest, "gpt-4o").await;
    }
    put(&unix, 2, 7, "other").await;
    let embedding = Ask::to(
        "/v1/embeddings",
        &json!({"model": "small", "input": "one text"}),
    );
    assert_eq!(edge.client.fetch(embedding).await.status, 200);
    edge.recorded(1, 0).await;

    let top = get(&edge, "/v1/top").await.json();
    assert_eq!(top["entries"], 8);
    assert_eq!(top["models"][0]["name"], "gpt-4o");
    assert_eq!(top["models"][0]["entries"], 6);
    assert_eq!(top["routes"][0]["name"], "chat-completions");
    assert_eq!(top["routes"][0]["entries"], 7);
    assert_eq!(top["routes"][1]["name"], "embeddings");
    assert_eq!(top["tenants"][0]["name"], "010101010101");
    assert!(!top.to_string().contains(&"01".repeat(32)));
    let one = get(&edge, "/v1/top?limit=1&sort=bytes").await.json();
    let models = one["models"].as_array().expect("a list");
    assert_eq!(models.len(), 2);
    assert_eq!(models[1]["name"], "other");
    let entries = models.iter().filter_map(|model| model["entries"].as_u64());
    assert_eq!(entries.sum::<u64>(), 8);
    for query in ["limit=0", "limit=x", "limit=1001", "sort=age", "by=model"] {
        check_refused(&get(&edge, &format!("/v1/top?{query}")).await, 400, "query");
    }
}

#[tokio::test]
async fn an_entry_is_told_about_and_its_contents_only_when_asked_for() {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    put(&unix, 1, 42, "gpt-4o").await;
    let (tenant, digest) = ("01".repeat(32), format!("{:064x}", 42));
    let path = format!("/v1/entries/{tenant}/{digest}");
    let entry = admin(&edge).fetch(Ask::get(&path)).await.json();
    assert_eq!(entry["tenant"], tenant);
    assert_eq!(entry["digest"], digest);
    assert_eq!(entry["model"], "gpt-4o");
    assert_eq!(entry["route"], "chat-completions");
    assert_eq!(entry["content_type"], "application/json");
    assert_eq!(entry["expired"], false);
    assert!(entry.get("payload_base64").is_none());
    let by_key = format!("/v1/entries/{}", entry["key"].as_str().expect("a key"));
    let mut again = admin(&edge).fetch(Ask::get(&by_key)).await.json();
    again["age_seconds"] = entry["age_seconds"].clone();
    assert_eq!(again, entry);
    let with = get(&edge, &format!("{by_key}?payload=true")).await.json();
    assert!(
        with["payload_base64"]
            .as_str()
            .is_some_and(|it| it.len() > 100)
    );
    let none = format!("/v1/entries/{}", "0".repeat(64));
    check_refused(&get(&edge, &none).await, 404, "miss");
    for wrong in ["x", "0", &"A".repeat(64)] {
        let path = format!("/v1/entries/{wrong}");
        check_refused(&get(&edge, &path).await, 400, "key");
    }
}
