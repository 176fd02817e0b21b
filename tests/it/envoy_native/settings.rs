//! What is refused at load, and that looking at a configuration leaves no trace.

use reflex_tests::envoy::EnvoyPlan;
use serde_json::{Value, json};
use std::fs;

const UPSTREAM: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn a_bad_setting_is_refused_at_load_and_named() {
    let check = async |field: &str, value: Value, named: &str| {
        let plan = EnvoyPlan::native(UPSTREAM).plugin(field, value);
        let output = plan.validate().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{field}: {said}");
        assert!(said.contains("reflex: configuration: "), "{field}: {said}");
        assert!(said.contains(named), "{field}: {said}");
    };
    check("ttl_secons", json!(1), "unknown field `ttl_secons`").await;
    check("hot_bytes_max", json!(1), "hot_bytes_max").await;
    check("data_dir", json!("reflex-data"), "data_dir").await;
    check("upstreams", json!({}), "upstreams").await;
}

#[tokio::test]
async fn a_configuration_that_is_only_validated_opens_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let plan = EnvoyPlan::native(UPSTREAM).plugin("data_dir", data.to_str());
    let output = plan.validate().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!data.exists());
    let left = fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0);
}
