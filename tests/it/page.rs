//! The live page of the admin address in a real Chromium.

use std::path::Path;

use base64::Engine as _;
use reflex_tests::chromium::{Browser, program};
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use serde_json::json;

/// The widths of a desk and of a small phone.
const DESK: (u32, u32) = (1240, 1460);
const PHONE: (u32, u32) = (360, 800);

/// What a picture shows of the page: figures and charts.
const PICTURE: (u32, u32) = (1000, 800);

/// A model's name as a hostile client writes it.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'`${1}";

fn text(id: &str) -> String {
    format!("document.getElementById({id:?}).textContent")
}

fn shows(id: &str, shown: &str) -> String {
    format!("{} === {shown:?}", text(id))
}

/// A daemon with an edge socket, prices and a group.
async fn daemon(upstream: &Upstream) -> Edge {
    let config = r#"
        tenant_header = "x-team"
        [[group]]
        name = "research"
        trusted = ["blue"]
        [[price]]
        model = "*"
        input_per_million = 2.5
        output_per_million = 10
    "#;
    let plan = Plan::new(&upstream.url()).edge_socket(true);
    plan.config(config).start().await
}

fn ask(team: &str, model: &str, prompt: &str) -> Ask {
    let body = json!({"model": model, "messages": [{"role": "user", "content": prompt}]});
    Ask::to("/v1/chat/completions", &body).header("x-team", team)
}

/// A purge by an operator.
async fn purge(edge: &Edge) {
    let request = Ask::new(http::Method::DELETE, "/v1/entries", "").key(Some(&edge.token()));
    let answer = Unix::http1(&edge.socket()).fetch(request).await;
    assert!(answer.status.is_success());
}

#[tokio::test]
async fn the_page_shows_what_happens_and_talks_to_nobody_else() {
    let Some(program) = program("the live page in a browser") else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = daemon(&upstream).await;
    let mut browser = Browser::start(&program).await;
    browser.look(DESK.0, DESK.1, "light").await;
    browser.open(&edge.admin_url).await;
    browser.until("health", &shows("health", "healthy")).await;
    assert_eq!(browser.value(&text("requests")).await, "0");
    assert_eq!(browser.value(&text("purge")).await, "none");

    let secret = "the prompt that no page may show";
    for _ in 0..10 {
        edge.client.fetch(ask("blue", "gpt-mini", secret)).await;
    }
    edge.client.fetch(ask("red", HOSTILE, "hi")).await;
    let stored = json!({"model": "gpt-mini", "input": "hi", "store": true});
    let stored = Ask::to("/v1/responses", &stored).header("x-team", "red");
    edge.client.fetch(stored).await;
    for call in 0..2 {
        let split = ask("red", "gpt-mini", "split").header("x-acme-call", &call.to_string());
        edge.client.fetch(split).await;
    }
    browser.until("requests", &shows("requests", "14")).await;
    browser
        .until("the ratio of hits", &shows("hit-ratio", "69.2 %"))
        .await;
    let page = browser.value("document.body.innerText").await;
    let page = page.as_str().expect("text");
    for shown in [
        "gpt-mini",
        HOSTILE,
        "research",
        "/v1/chat/completions",
        "store",
        "x-acme-call",
        "ignored_headers = [\"x-acme-call\"]",
        "\"store\": false",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert!(!page.contains(secret) && !page.contains("Bearer"), "{page}");
    assert_eq!(browser.value("document.images.length").await, 0);

    purge(&edge).await;
    let told = "document.getElementById('purge').textContent !== 'none'";
    browser.until("the purge", told).await;

    // Every chart says in words what it draws.
    let silent = "[...document.querySelectorAll('svg')].filter((it) => !it.ariaLabel \
                  && !it.getAttribute('aria-label')).length";
    assert_eq!(browser.value(silent).await, 0);
    assert_eq!(browser.complaints(), Vec::<&serde_json::Value>::new());
    let own = |url: &&str| url.starts_with(&edge.admin_url) || url.starts_with("data:");
    let requests = browser.requests();
    assert!(
        requests.len() > 2 && requests.iter().all(own),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_small_phone_scrolls_in_one_direction_and_text_can_be_read_in_both_themes() {
    let Some(program) = program("the live page on a phone") else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = daemon(&upstream).await;
    let long = "a-model-whose-name-is-long-and-has-no-place-to-break".repeat(2);
    edge.client.fetch(ask("blue", &long, "hi")).await;
    let mut browser = Browser::start(&program).await;
    for scheme in ["light", "dark"] {
        browser.look(PHONE.0, PHONE.1, scheme).await;
        browser.open(&edge.admin_url).await;
        browser.until("health", &shows("health", "healthy")).await;
        let width = "document.documentElement.scrollWidth";
        assert_eq!(browser.value(width).await, PHONE.0, "{scheme}");
        let faint = browser.value(FAINT).await;
        assert_eq!(faint, json!([]), "{scheme}: contrast below 4.5");
    }
}

/// Texts whose contrast to the ground under them is below WCAG's 4.5.
const FAINT: &str = r#"(() => {
  const rgb = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((it) => it / 255)
      .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const color = getComputedStyle(it).backgroundColor;
      if (rgb(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const own = (element) => [...element.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter((it) => own(it) && it.checkVisibility() && !["SCRIPT", "STYLE"].includes(it.tagName))
    .filter((it) => {
      const style = getComputedStyle(it);
      const text = it instanceof SVGElement ? style.fill : style.color;
      const [high, low] = [light(text), light(ground(it))].sort((one, other) => other - one);
      return (high + 0.05) / (low + 0.05) < 4.5;
    })
    .map((it) => `${it.tagName} ${it.className} ${it.textContent}`);
})()"#;

/// `docs/pictures/`: `cargo test --test it -- --ignored pictures`. It takes a minute, in which the
/// charts get their rows.
#[tokio::test]
#[ignore = "writes to docs/pictures"]
async fn pictures_of_both_themes() {
    let Some(program) = program("pictures of the live page") else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = daemon(&upstream).await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(95);
    let models = [
        "gpt-5-mini",
        "claude-sonnet-4-5",
        "gemini-3-flash",
        "llama-4-70b",
    ];
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(33));
    for turn in 0u32.. {
        if std::time::Instant::now() > until {
            break;
        }
        let model = models[(turn % 11 / 4) as usize];
        // More and more prompts have been asked before.
        let prompt = format!("{}", (turn * turn + turn / 7) % (40 + turn / 6));
        let team = ["blue", "red", "green"][(turn % 5 / 2) as usize];
        let mut wanted = ask(team, model, &prompt);
        if turn % 37 == 0 {
            wanted = wanted.header("x-acme-call", &turn.to_string());
        }
        if turn % 23 == 0 {
            let stored = json!({"model": model, "input": prompt, "store": true});
            wanted = Ask::to("/v1/responses", &stored).header("x-team", team);
        }
        if turn % 61 == 0 {
            wanted = wanted.mock("status=429");
        }
        edge.client.fetch(wanted).await;
        if turn == 700 {
            purge(&edge).await;
        }
        pace.tick().await;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    std::fs::create_dir_all(&folder).expect("docs/pictures");
    let mut browser = Browser::start(&program).await;
    for (name, (width, height), scheme) in [
        ("page-light", PICTURE, "light"),
        ("page-dark", PICTURE, "dark"),
        ("page-phone", PHONE, "dark"),
    ] {
        browser.look(width, height, scheme).await;
        browser.open(&edge.admin_url).await;
        browser.until("health", &shows("health", "healthy")).await;
        let picture = base64::engine::general_purpose::STANDARD
            .decode(browser.picture().await)
            .expect("base64");
        assert!(
            picture.len() <= 150 << 10,
            "{name}: {} bytes",
            picture.len()
        );
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("a picture");
    }
}
