//! `reflex-edge envoy check`: what it reports about a configuration before Envoy gets it. The
//! findings are tested beside the checks; this tests the program.

use std::fs;
use std::path::{Path, PathBuf};

use reflex_tests::client::Ask;
use reflex_tests::edge::run;
use reflex_tests::envoy::EnvoyPlan;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../envoy")
        .join(name)
}

/// The exit code, and what was said.
async fn check(config: &Path) -> (Option<i32>, String) {
    let config = config.to_str().expect("text");
    let output = run(&["envoy", "check", config]).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

/// The same of a text.
async fn check_text(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config");
    fs::write(&file, text).expect("a file");
    check(&file).await
}

#[tokio::test]
async fn the_example_and_the_samples_are_clean() {
    for name in [
        "envoy.yaml",
        "deploy/envoy-gateway.yaml",
        "deploy/istio-envoyfilter.yaml",
    ] {
        let clean = "1 filters, 0 findings\n".to_owned();
        assert_eq!(check(&file(name)).await, (Some(0), clean), "{name}");
    }
    let (code, said) = check(&file("deploy/istio-wasmplugin.yaml")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("warning: WasmPlugin reflex: "), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[tokio::test]
async fn what_must_be_changed_is_named_and_fails() {
    let example = fs::read_to_string(file("envoy.yaml")).expect("the example");
    let router = "          - name: envoy.filters.http.router\n";
    let rbac = "          - name: envoy.filters.http.rbac\n            typed_config:\n              \
                \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC\n";
    let changes = [
        (
            router,
            format!("{rbac}{router}"),
            "`envoy.filters.http.rbac`",
        ),
        (
            "allow_on_headers_stop_iteration: true",
            "name: reflex".into(),
            "hang",
        ),
        (
            "\"samples\": 1",
            "\"sample\": 1".into(),
            "unknown field `sample`",
        ),
        (
            "request_body_buffer_limit: 2228224",
            "include_request_attempt_count: false".into(),
            "413",
        ),
    ];
    for (from, to, part) in changes {
        assert!(example.contains(from), "no {from}");
        let (code, said) = check_text(&example.replacen(from, &to, 1)).await;
        assert_eq!(code, Some(1), "{from}: {said}");
        assert!(
            said.starts_with("error: llm: ") && said.contains(part),
            "{said}"
        );
        assert!(said.ends_with("1 filters, 1 findings\n"), "{said}");
    }
}

#[tokio::test]
async fn what_is_no_configuration_is_refused() {
    let (code, said) = check(Path::new("/nowhere/envoy.yaml")).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.starts_with("reflex-edge: /nowhere/envoy.yaml: "),
        "{said}"
    );
    let (code, said) = check_text("a: [").await;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = check_text("static_resources: {}\n").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no filter of reflex-edge"), "{said}");
}

/// The view that users of a control plane have, from a real Envoy.
#[tokio::test]
async fn the_dump_of_a_running_envoy_is_checked() {
    let plan = EnvoyPlan::new("http://127.0.0.1:1").daemon(Path::new("/nowhere/edge.sock"));
    let envoy = plan.start().await;
    let dump = envoy.admin.fetch(Ask::get("/config_dump")).await;
    let dump = String::from_utf8(dump.body.to_vec()).expect("JSON");
    let (code, said) = check_text(&dump).await;
    assert_eq!(
        (code, said.lines().last()),
        (Some(0), Some("1 filters, 0 findings")),
        "{said}"
    );
    let broken = dump.replace(
        "\"allow_on_headers_stop_iteration\": true",
        "\"allow_on_headers_stop_iteration\": false",
    );
    assert_ne!(broken, dump);
    let (code, said) = check_text(&broken).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("requests hang"), "{said}");
}
