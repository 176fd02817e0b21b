//! What is purged is gone, counted, and written down; nothing else is.

use super::*;
use tokio::task::JoinSet;

#[tokio::test]
async fn purges_cover_what_they_name_and_tell_how_much_that_was() {
    let upstream = Upstream::start().await;
    let config = "ttl_seconds = 1000";
    let plan = Plan::new(&upstream.url()).edge_socket(true).config(config);
    let edge = plan.start().await;
    let unix = Unix::http1(&edge.socket());
    let digests = [
        (1, "gpt-4o"),
        (2, "gpt-4o-mini"),
        (3, "claude"),
        (4, "claude"),
    ];
    let fill = async || {
        for (digest, model) in digests {
            put(&unix, 1, digest, model).await;
            put(&unix, 2, digest, model).await;
        }
    };
    let tenant = "01".repeat(32);
    for (what, entries) in [
        (json!({"tenant": tenant}), 4),
        (json!({"tenant": "03".repeat(32)}), 0),
        (json!({"model": "claude"}), 4),
        (json!({"model": "gpt-*"}), 4),
        (json!({"model": "none of these"}), 0),
        (json!({"route": "chat-completions"}), 8),
        (json!({"route": "embeddings"}), 0),
        (json!({"route": "unknown"}), 0),
        (json!({"key": format!("{tenant}/{:064x}", 1)}), 1),
        (json!({"key": "0".repeat(64)}), 0),
        (json!({"all": true}), 8),
    ] {
        fill().await;
        edge.written().await;
        let mut dry = what.clone();
        dry["dry_run"] = json!(true);
        let would = purge(&edge, dry).await;
        assert_eq!(would["entries"], entries, "{what}");
        assert_eq!(edge.health().await["entries"], 8, "{what}");
        let done = purge(&edge, what.clone()).await;
        assert_eq!(done["entries"], entries, "{what}");
        assert_eq!(done["bytes"], would["bytes"], "{what}");
        assert_eq!(done["bytes"] != 0, entries != 0, "{what}");
        let again = purge(&edge, what.clone()).await;
        assert_eq!(again["entries"], 0, "{what}");
        let left = purge(&edge, json!({"all": true, "dry_run": true})).await;
        assert_eq!(left["entries"], 8 - entries, "{what}");
        purge(&edge, json!({"all": true})).await;
    }
    // A line for each purge that was made, and none for one that was only counted.
    let lines = audit(&edge);
    assert_eq!(lines.len(), 33, "{lines:#?}");
    assert!(
        lines[0].contains("peer=127.0.0.1 by=\"token\" action=\"purge\""),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains("tenant 010101010101"), "{}", lines[0]);
    assert!(!edge.log().contains(&tenant));
}

#[tokio::test]
async fn a_purge_that_names_nothing_or_two_things_is_refused() {
    let edge = Plan::daemon().start().await;
    put(&Unix::http1(&edge.socket()), 1, 1, "m").await;
    for (body, reason) in [
        ("", "body"),
        ("{}", "body"),
        ("[]", "body"),
        ("{\"all\":false}", "body"),
        ("{\"dry_run\":true}", "body"),
        ("{\"all\":true,\"model\":\"m\"}", "body"),
        ("{\"al\":true}", "body"),
        ("{\"model\":\"\"}", "body"),
        ("{\"tenant\":\"nobody\"}", "tenant"),
        ("{\"key\":\"1\"}", "key"),
        ("{\"route\":\"chat\"}", "route"),
    ] {
        let answer = admin(&edge).fetch(post(&edge, "/v1/purge", body)).await;
        check_refused(&answer, 400, reason);
    }
    let long = " ".repeat(70 << 10);
    let answer = admin(&edge).fetch(post(&edge, "/v1/purge", long)).await;
    check_refused(&answer, 413, "too-large");
    assert_eq!(edge.health().await["entries"], 1);
}

#[tokio::test]
async fn what_is_purged_by_model_is_gone_for_good_and_for_edges_too() {
    let mut edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    for digest in 0..100 {
        put(&unix, 1, digest, if digest < 50 { "old" } else { "new" }).await;
    }
    let known = unix.fetch(Ask::get("/v1/epoch")).await;
    let known = known.header("x-reflex-epoch").to_owned();
    assert_eq!(purge(&edge, json!({"model": "old"})).await["entries"], 50);
    // It is not known which copies those are, so edges drop all.
    let ask = Ask::get("/v1/epoch").header("x-reflex-epoch", &known);
    let told = unix.fetch(ask).await;
    assert_ne!(told.header("x-reflex-epoch"), known);
    assert_eq!(told.header("x-reflex-purged-since"), "");
    // What was asked for before it, too.
    let path = format!("/v1/entries/{}/{:064x}", "01".repeat(32), 1);
    let late = Ask::new(Method::PUT, &path, "{}").header("x-reflex-epoch", &known);
    assert_eq!(unix.fetch(late).await.status, 409);
    edge.kill().await;
    let edge = edge.start_again().await;
    edge.ready().await;
    for digest in 0..100 {
        let path = format!("/v1/entries/{}/{digest:064x}", "01".repeat(32));
        let found = unix.fetch(Ask::get(&path)).await.status == 200;
        assert_eq!(found, digest >= 50, "{digest}");
    }
    drop(edge);
}

/// Nothing that was stored before a purge is there after it, however much comes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn purges_during_inserts_leave_nothing_older() {
    let edge = Plan::daemon().start().await;
    let unix = Unix::http1(&edge.socket());
    for round in 0..4 {
        for digest in 0..40 {
            put(&unix, 1, digest, "model").await;
        }
        let mut inserts = JoinSet::new();
        for digest in 1000..1040 {
            let unix = unix.clone();
            inserts.spawn(async move { try_put(&unix, 2, digest, "model").await });
        }
        let what = match round % 2 {
            0 => json!({"model": "model"}),
            _ => json!({"tenant": "01".repeat(32)}),
        };
        let done = purge(&edge, what).await;
        assert!(done["entries"].as_u64() >= Some(40), "{done}");
        while let Some(insert) = inserts.join_next().await {
            // One that began before the purge is refused.
            let status = insert.expect("an answer").status.as_u16();
            assert!([201, 409].contains(&status), "{status}");
        }
        for digest in 0..40 {
            let path = format!("/v1/entries/{}/{digest:064x}", "01".repeat(32));
            assert_eq!(unix.fetch(Ask::get(&path)).await.status, 404);
        }
    }
}

#[tokio::test]
async fn a_reload_without_a_file_changes_nothing() {
    let edge = Plan::daemon().start().await;
    let answer = admin(&edge).fetch(post(&edge, "/v1/reload", "")).await;
    let nothing = json!({"changed": [], "needs_restart": [], "warnings": []});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, nothing));
    let without_token = Ask::new(Method::POST, "/v1/reload", "");
    let answer = admin(&edge).fetch(without_token).await;
    assert_eq!(answer.status, 401);
}
