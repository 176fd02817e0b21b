//! Others may write to the same engine. What they alter, swap or forge is refused, and another fleet sees
//! nothing of this one.

use super::engine::write_secret;
use super::{Fleet, HIT, config_of, looked};
use reflex_tests::edge::Plan;

/// Shares so many answers through the first edge, and returns the names of their values.
async fn shared(fleet: &Fleet, count: usize) -> Vec<String> {
    for number in 0..count {
        fleet.share(0, &format!("prompt {number}")).await;
    }
    let names = fleet.engine().names();
    // Values of entries are longer than beats; the roster is short with few edges, and has no "mock" in it.
    let is_entry = |name: &String| {
        let bytes = fleet.engine().get(name);
        bytes.windows(4).any(|part| part == b"mock")
    };
    let names: Vec<_> = names.into_iter().filter(is_entry).collect();
    assert_eq!(names.len(), count);
    names
}

/// No client of the second edge gets anything but what the provider says.
async fn none_is_served(fleet: &Fleet, count: usize) {
    for number in 0..count {
        let prompt = format!("prompt {number}");
        let honest = fleet.ask(0, &prompt).await;
        let answer = fleet.ask(1, &prompt).await;
        assert_eq!(answer.reflex(), "MISS", "{prompt}");
        assert_eq!(answer.json()["choices"], honest.json()["choices"]);
    }
    let refused = looked(&fleet.edges[1].metrics().await, "refused");
    assert!(refused >= count as f64, "{refused} of {count}");
}

#[tokio::test]
async fn flipped_bytes_are_refused() {
    const COUNT: usize = 24;
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    for (number, name) in shared(&fleet, COUNT).await.iter().enumerate() {
        let mut bytes = fleet.engine().get(name);
        // From the first byte to the last.
        let at = number * (bytes.len() - 1) / (COUNT - 1);
        bytes[at] ^= 0x20;
        fleet.engine().set(name, &bytes);
    }
    none_is_served(&fleet, COUNT).await;
}

#[tokio::test]
async fn swapped_and_cut_values_are_refused() {
    const COUNT: usize = 12;
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    let names = shared(&fleet, COUNT).await;
    let values: Vec<_> = names.iter().map(|name| fleet.engine().get(name)).collect();
    for (number, name) in names.iter().enumerate() {
        let other = &values[(number + 1) % COUNT];
        match number % 3 {
            0 => fleet.engine().set(name, &other[..other.len() / 2]),
            1 => fleet.engine().set(name, b""),
            _ => fleet.engine().set(name, other),
        }
    }
    none_is_served(&fleet, COUNT).await;
}

#[tokio::test]
async fn names_tell_nothing_and_a_second_fleet_finds_nothing() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    fleet.share(0, "a secret prompt").await;
    for name in fleet.engine().names() {
        let digits = name.strip_prefix("reflex:v1:").expect("the prefix");
        assert!(digits.len() == 64 && digits.bytes().all(|it| it.is_ascii_hexdigit()));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("other");
    write_secret(&secret, "the secret of another fleet");
    let config = config_of(&fleet.url, &secret);
    let prefixed = format!(
        "{}fleet_prefix = \"other\"\n",
        config_of(&fleet.url, &fleet.folder.path().join("secret"))
    );
    for config in [config, prefixed] {
        let config = format!("hits = \"native\"\n{config}");
        let stranger = Plan::new(&fleet.upstream.url())
            .config(&config)
            .start()
            .await;
        stranger
            .until("news of its fleet", |metrics| {
                metrics.sum("reflex_fleet_edges", &[]) > 0.5
            })
            .await;
        let ask = reflex_tests::client::Ask::chat("a secret prompt");
        assert_eq!(stranger.client.fetch(ask).await.reflex(), "MISS");
        let metrics = stranger.metrics().await;
        assert!((looked(&metrics, "miss") - 1.0).abs() < 0.5);
        assert!((metrics.sum("reflex_fleet_edges", &[]) - 1.0).abs() < 0.5);
    }
    assert_eq!(fleet.ask(1, "a secret prompt").await.reflex(), HIT);
}
