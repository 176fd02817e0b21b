//! Several listeners, and listeners that are changed while Envoy runs.

use super::*;
use std::fs;
use std::path::PathBuf;

/// Requests that come by another listener may be changed there.
#[tokio::test]
async fn listeners_that_do_other_things_to_requests_share_no_answers() {
    let two = Two::start().await;
    let envoy = two
        .plan()
        .edit(|config| {
            let listeners = config.pointer_mut("/static_resources/listeners");
            let listeners = listeners.and_then(Value::as_array_mut).expect("listeners");
            let mut second = listeners[0].clone();
            second["name"] = "second".into();
            let host = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";
            second.pointer_mut(host).expect("a virtual host")["request_headers_to_add"] =
                add_header("x-variant", "b");
            listeners.push(second);
        })
        .start()
        .await;
    let listeners = envoy
        .admin
        .fetch(Ask::get("/listeners?format=json"))
        .await
        .json();
    let statuses = listeners["listener_statuses"]
        .as_array()
        .expect("listeners");
    let client = |name: &str| {
        let status = statuses
            .iter()
            .find(|status| status["name"] == name)
            .expect("one");
        let address = &status["local_address"]["socket_address"];
        Client::new(&format!("http://127.0.0.1:{}", address["port_value"]))
    };
    let (plain, changing) = (client("llm"), client("second"));
    let first = plain.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    check_hit(&plain.fetch(Ask::chat("hello")).await, &first);
    for _ in 0..2 {
        let answer = changing.fetch(Ask::chat("hello")).await;
        assert_eq!(answer.status, 200);
        let call = two.provider.calls().pop().expect("a call");
        assert_eq!(call.header("x-variant"), "b", "{}", answer.reflex());
    }
    assert_eq!(two.provider.call_count(), 3);
    check_hit(&plain.fetch(Ask::chat("hello")).await, &first);
}

/// Listeners come from a file, which may be replaced.
struct Listeners {
    file: PathBuf,
    listener: Value,
    _folder: tempfile::TempDir,
}

impl Listeners {
    async fn start(two: &Two) -> (Self, Envoy) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("listeners.json");
        let (sender, listener) = std::sync::mpsc::channel();
        let path = file.clone();
        let envoy = two
            .plan()
            .edit(move |config| {
                let listeners = config["static_resources"]["listeners"].take();
                let mut listener = listeners[0].clone();
                // Draining takes ten minutes otherwise.
                listener["name"] = "llm".into();
                write(&path, &listener, "1");
                sender.send(listener).expect("a test");
                let resources = config["static_resources"].as_object_mut();
                resources.expect("resources").remove("listeners");
                config["node"] = json!({"id": "test", "cluster": "test"});
                config["dynamic_resources"] = json!({"lds_config": {
                    "resource_api_version": "V3",
                    "path_config_source": {"path": path},
                }});
            })
            .start()
            .await;
        let listeners = Self {
            file,
            listener: listener.recv().expect("a listener"),
            _folder: folder,
        };
        (listeners, envoy)
    }

    /// Replaces the listener, and waits until Envoy has the new one at work.
    async fn change(&mut self, envoy: &Envoy, change: impl FnOnce(&mut Value)) {
        change(&mut self.listener);
        let before = modified(&envoy.metrics().await);
        let next = self.file.with_extension("next");
        write(&next, &self.listener, "2");
        fs::rename(&next, &self.file).expect("a file that can be replaced");
        envoy
            .until("a listener that was changed", |metrics| {
                modified(metrics) > before
                    && metrics.sum("envoy_listener_manager_total_listeners_warming", &[]) == 0.0
            })
            .await;
    }
}

fn modified(metrics: &reflex_tests::metrics::Metrics) -> f64 {
    let modified = metrics.sum("envoy_listener_manager_listener_modified", &[]);
    modified + metrics.sum("envoy_listener_manager_listener_in_place_updated", &[])
}

fn write(file: &std::path::Path, listener: &Value, version: &str) {
    let mut listener = listener.clone();
    merge(
        &mut listener,
        json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"}),
    );
    let response = json!({"version_info": version, "resources": [listener]});
    fs::write(file, response.to_string()).expect("a file");
}

const HOST: &str = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";

/// Envoy does not inform a filter of a change of routes. The operator does, by a new `revision`.
fn revise(listener: &mut Value) {
    let settings = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config\
                    /configuration/value";
    let settings = listener.pointer_mut(settings).expect("settings");
    let mut fields: Value = serde_json::from_str(settings.as_str().expect("text")).expect("JSON");
    fields["revision"] = "2".into();
    *settings = fields.to_string().into();
}

/// Without a new `revision`, the first answer after the change shows it.
#[tokio::test]
async fn after_a_change_of_the_route_nothing_is_served_once_an_answer_has_shown_it() {
    let two = Two::start().await;
    let (mut listeners, envoy) = Listeners::start(&two).await;
    let first = envoy.client.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    let change = |listener: &mut Value| {
        let host = listener.pointer_mut(HOST).expect("a virtual host");
        host["request_headers_to_add"] = add_header("x-variant", "b");
    };
    listeners.change(&envoy, change).await;
    let client = Client::new(&envoy.url);
    check_miss(&client.fetch(Ask::chat("another")).await);
    for prompt in ["another", "hello"] {
        check_bypass(&client.fetch(Ask::chat(prompt)).await, "route");
    }
}

#[tokio::test]
async fn after_a_change_of_the_route_nothing_of_before_is_served() {
    let two = Two::start().await;
    let (mut listeners, envoy) = Listeners::start(&two).await;
    let first = envoy.client.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(Ask::chat("hello")).await, &first);
    super::super::stored(&two.daemon, 1).await;

    let change = |listener: &mut Value| {
        let host = listener.pointer_mut(HOST).expect("a virtual host");
        host["request_headers_to_add"] = add_header("x-variant", "b");
        revise(listener);
    };
    listeners.change(&envoy, change).await;
    for _ in 0..2 {
        // A new connection comes to the new listener.
        let answer = Client::new(&envoy.url).fetch(Ask::chat("hello")).await;
        assert_eq!(answer.status, 200);
        let call = two.provider.calls().pop().expect("a call");
        assert_eq!(call.header("x-variant"), "b", "{}", answer.reflex());
    }
    assert_eq!(two.provider.call_count(), 3);
}

/// A change of anything else costs each route one call of the provider.
#[tokio::test]
async fn after_another_change_the_answers_of_before_are_served_once_the_route_is_proven() {
    let two = Two::start().await;
    let (mut listeners, envoy) = Listeners::start(&two).await;
    let first = envoy.client.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    super::super::stored(&two.daemon, 1).await;
    let change = |listener: &mut Value| {
        let manager = listener.pointer_mut("/filter_chains/0/filters/0/typed_config");
        manager.expect("a manager")["stat_prefix"] = "changed".into();
        revise(listener);
    };
    listeners.change(&envoy, change).await;
    let client = Client::new(&envoy.url);
    check_miss(&client.fetch(Ask::chat("the proof")).await);
    check_hit(&client.fetch(Ask::chat("hello")).await, &first);
    assert_eq!(two.provider.call_count(), 2);
}
