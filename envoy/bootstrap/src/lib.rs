//! Envoy's configuration for one run: `envoy/envoy.yaml`, or with the native module
//! `envoy/native.yaml`, with this run's addresses, paths and providers in it.
//!
//! `cargo xtask run` and the tests start Envoy with the documented example, so the example is always
//! tested. This crate sets only what differs between runs.

mod provider;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use provider::Provider;

/// The example with the filter, as it stands in the repository.
pub const EXAMPLE: &str = include_str!("../../envoy.yaml");

/// The example with the native module.
pub const NATIVE_EXAMPLE: &str = include_str!("../../native.yaml");

/// The cluster of the daemon in the example.
pub const DAEMON_CLUSTER: &str = "reflex_edge";

/// What differs between runs.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Where clients connect; with port 0, Envoy's admin tells the real one.
    pub listen: SocketAddr,
    /// Where Envoy's admin interface is.
    pub admin: SocketAddr,
    /// The providers, and the paths of each. There must be one at least.
    pub providers: Vec<Provider>,
    /// The filter, or none for a plain proxy.
    pub filter: Option<Filter>,
    /// The socket of the daemon, or none for the filter's hot map alone.
    pub daemon: Option<PathBuf>,
    /// The certificates to trust, where a provider speaks TLS, in place of the example's.
    pub trusted_ca: Option<PathBuf>,
}

/// The filter of a run.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The core module, or the native one, whose name ends in `.so`.
    pub module: PathBuf,
    /// Fields of its configuration, in place of the example's.
    pub plugin: Map<String, Value>,
}

impl Bootstrap {
    /// The whole configuration. It may be changed further before [`text`] makes a file of it.
    ///
    /// # Errors
    ///
    /// A provider's URL is none, or the example has lost something that is set here.
    pub fn config(&self) -> Result<Value, String> {
        let (name, example) = match self.is_native() {
            true => ("native.yaml", NATIVE_EXAMPLE),
            false => ("envoy.yaml", EXAMPLE),
        };
        let mut config: Value =
            serde_yaml_ng::from_str(example).map_err(|error| format!("envoy/{name}: {error}"))?;
        *at(&mut config, "/admin/address")? = address(self.admin);
        *at(&mut config, "/static_resources/listeners/0/address")? = address(self.listen);
        self.set_filter(&mut config)?;

        let clusters = at(&mut config, "/static_resources/clusters")?;
        let example = take(clusters, "provider")?;
        let daemon = take(clusters, DAEMON_CLUSTER);
        let mut wanted = Vec::new();
        for provider in &self.providers {
            wanted.push(provider.cluster(&example, self.trusted_ca.as_deref())?);
        }
        if let Some(socket) = &self.daemon {
            let mut daemon = daemon?;
            *at(&mut daemon, &format!("{ENDPOINT}/pipe/path"))? = path(socket)?;
            wanted.push(daemon);
        }
        *clusters = wanted.into();

        let routes = at(&mut config, &format!("{MANAGER}{ROUTES}"))?;
        let example = routes.get_mut(0).map(Value::take).unwrap_or_default();
        // Envoy takes the first that matches, so the longest path comes first.
        let mut providers: Vec<_> = self.providers.iter().collect();
        providers.sort_by_key(|provider| std::cmp::Reverse(provider.path.len()));
        let wanted: Result<Vec<_>, _> = providers.iter().map(|it| it.route(&example)).collect();
        *routes = wanted?.into();
        Ok(config)
    }

    /// Whether the cache is inside Envoy.
    fn is_native(&self) -> bool {
        let modules = self.filter.iter().map(|filter| &filter.module);
        let mut extensions = modules.filter_map(|module| module.extension());
        extensions.any(|extension| extension == "so")
    }

    fn set_filter(&self, config: &mut Value) -> Result<(), String> {
        let filters = at(config, &format!("{MANAGER}/http_filters"))?;
        let mut reflex = take(filters, "reflex")?;
        let Some(filter) = &self.filter else {
            return Ok(());
        };
        let is_native = self.is_native();
        let (module, plugin) = match is_native {
            true => (NATIVE_MODULE, NATIVE_PLUGIN),
            false => (MODULE, PLUGIN),
        };
        *at(&mut reflex, module)? = path(&filter.module)?;

        let plugin = at(&mut reflex, plugin)?;
        let mut fields: Map<String, Value> = plugin
            .as_str()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or("envoy/envoy.yaml: the filter's configuration is not JSON")?;
        let upstreams = self
            .providers
            .iter()
            .map(|provider| (provider.name.clone(), provider.url.clone().into()));
        fields.insert("upstreams".into(), Value::Object(upstreams.collect()));
        match is_native {
            // A run says where its answers are to lie, if anywhere.
            true => drop(fields.remove("data_dir")),
            false if self.daemon.is_none() => {
                drop(fields.insert("daemon_cluster".into(), "".into()))
            }
            false => {}
        }
        fields.extend(filter.plugin.clone());
        let tenant_header = fields.get("tenant_header").filter(|name| name.is_string());
        let tenant_header = tenant_header.cloned();
        *plugin = Value::Object(fields).to_string().into();

        if let Some(filters) = filters.as_array_mut() {
            filters.insert(0, reflex);
        }
        // The provider learns nothing of tenants.
        let removed = at(config, &format!("{MANAGER}{REMOVED}"))?;
        if let Some(removed) = removed.as_array_mut() {
            removed.extend(tenant_header);
        }
        Ok(())
    }
}

/// The configuration as the file that Envoy reads; its name must end in `.yaml`.
///
/// # Errors
///
/// Not of anything that [`Bootstrap::config`] makes.
pub fn text(config: &Value) -> Result<String, String> {
    serde_yaml_ng::to_string(config).map_err(|error| error.to_string())
}

/// Where the filter has its code.
const MODULE: &str = "/typed_config/config/vm_config/code/local/filename";

/// Where the filter has its configuration.
const PLUGIN: &str = "/typed_config/config/configuration/value";

/// The same of the native module.
const NATIVE_MODULE: &str = "/typed_config/dynamic_module_config/module/local/filename";

/// The same of the native module.
const NATIVE_PLUGIN: &str = "/typed_config/filter_config/value";

/// Where the example has the settings of HTTP.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// Below that, the routes.
const ROUTES: &str = "/route_config/virtual_hosts/0/routes";

/// Below that, the headers that the provider does not get.
const REMOVED: &str = "/route_config/virtual_hosts/0/request_headers_to_remove";

/// Where a cluster has the address of its one endpoint.
const ENDPOINT: &str = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";

/// What the example has at this JSON pointer.
fn at<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value, String> {
    value
        .pointer_mut(pointer)
        .ok_or_else(|| format!("envoy/envoy.yaml has nothing at {pointer}"))
}

/// Takes the element of that name out of a list.
fn take(list: &mut Value, name: &str) -> Result<Value, String> {
    let list = list.as_array_mut();
    list.and_then(|list| {
        let at = list.iter().position(|element| element["name"] == name)?;
        Some(list.remove(at))
    })
    .ok_or_else(|| format!("envoy/envoy.yaml has no `{name}`"))
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn path(path: &Path) -> Result<Value, String> {
    path.to_str()
        .map(Value::from)
        .ok_or_else(|| format!("{}: Envoy wants paths in UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 1)),
            providers: vec![Provider::new("http://127.0.0.1:8000")],
            filter: Some(Filter {
                module: "/a/filter.wasm".into(),
                plugin: Map::new(),
            }),
            daemon: Some("/a/socket".into()),
            trusted_ca: None,
        }
    }

    /// Checks what a configuration has at a pointer below the HTTP settings, or at the root.
    fn check(config: &Value, pointer: &str, value: Value) {
        let found = config.pointer(&format!("{MANAGER}{pointer}"));
        let found = found.or_else(|| config.pointer(pointer));
        assert_eq!(found.unwrap_or(&Value::Null), &value, "{pointer}");
    }

    fn plugin(config: &Value) -> Value {
        let pointer = format!("{MANAGER}/http_filters/0/typed_config/config/configuration/value");
        let text = config.pointer(&pointer).and_then(Value::as_str);
        serde_json::from_str(text.expect("a configuration")).expect("JSON")
    }

    #[test]
    fn addresses_paths_and_clusters_are_those_of_the_run() {
        let config = bootstrap().config().expect("a configuration");
        let port =
            |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        check(&config, "/admin/address", port(1));
        check(&config, "/static_resources/listeners/0/address", port(0));
        let module = "/http_filters/0/typed_config/config/vm_config/code/local/filename";
        check(&config, module, json!("/a/filter.wasm"));
        let clusters = "/static_resources/clusters";
        check(&config, &format!("{clusters}/0{ENDPOINT}"), port(8000));
        check(
            &config,
            &format!("{clusters}/1{ENDPOINT}"),
            json!({"pipe": {"path": "/a/socket"}}),
        );
        let plugin = plugin(&config);
        assert_eq!(
            plugin["upstreams"],
            json!({"provider": "http://127.0.0.1:8000"})
        );
        assert_eq!(plugin["daemon_cluster"], DAEMON_CLUSTER);
    }

    #[test]
    fn without_a_daemon_the_filter_knows_of_none() {
        let mut bootstrap = bootstrap();
        bootstrap.daemon = None;
        let config = bootstrap.config().expect("a configuration");
        assert_eq!(plugin(&config)["daemon_cluster"], "");
        check(&config, "/static_resources/clusters/1", Value::Null);
    }

    #[test]
    fn without_the_filter_there_is_a_plain_proxy() {
        let mut bootstrap = bootstrap();
        bootstrap.filter = None;
        let config = bootstrap.config().expect("a configuration");
        check(
            &config,
            "/http_filters/0/name",
            json!("envoy.filters.http.router"),
        );
        check(&config, "/http_filters/1", Value::Null);
    }

    #[test]
    fn a_module_whose_name_ends_in_so_is_the_native_one() {
        let mut bootstrap = bootstrap();
        bootstrap.daemon = None;
        if let Some(filter) = &mut bootstrap.filter {
            filter.module = "/a/libreflex_envoy.so".into();
            filter.plugin.insert("samples".into(), 2.into());
        }
        let config = bootstrap.config().expect("a configuration");
        let at = |pointer: &str| format!("/http_filters/0{pointer}");
        check(&config, &at(NATIVE_MODULE), json!("/a/libreflex_envoy.so"));
        let plugin = config.pointer(&format!("{MANAGER}{}", at(NATIVE_PLUGIN)));
        let plugin = plugin.and_then(Value::as_str).expect("a configuration");
        let plugin: Value = serde_json::from_str(plugin).expect("JSON");
        assert_eq!(
            plugin["upstreams"],
            json!({"provider": "http://127.0.0.1:8000"})
        );
        assert_eq!(plugin["samples"], 2);
        assert_eq!(plugin.get("data_dir"), None);
        bootstrap.daemon = Some("/a/socket".into());
        assert!(bootstrap.config().is_err(), "the module has no daemon");
    }

    #[test]
    fn what_the_run_says_of_the_plugin_goes_before_the_example() {
        let mut bootstrap = bootstrap();
        if let Some(filter) = &mut bootstrap.filter {
            filter.plugin.insert("ttl_seconds".into(), 1.into());
        }
        let plugin = plugin(&bootstrap.config().expect("a configuration"));
        assert_eq!(plugin["ttl_seconds"], 1);
        assert_eq!(plugin["lookup_timeout_ms"], 100);
    }

    #[test]
    fn the_header_of_the_tenant_ends_at_the_route() {
        let mut bootstrap = bootstrap();
        let removed = |bootstrap: &Bootstrap, wanted: Value| {
            let config = bootstrap.config().expect("a configuration");
            check(&config, REMOVED, wanted);
        };
        removed(&bootstrap, json!(["x-reflex-ttl"]));
        for (value, wanted) in [
            (json!("x-team"), json!(["x-reflex-ttl", "x-team"])),
            (json!(1), json!(["x-reflex-ttl"])),
        ] {
            if let Some(filter) = &mut bootstrap.filter {
                filter.plugin.insert("tenant_header".into(), value);
            }
            removed(&bootstrap, wanted);
        }
    }

    #[test]
    fn the_text_says_the_same() {
        let config = bootstrap().config().expect("a configuration");
        let text = text(&config).expect("a text");
        assert_eq!(
            serde_yaml_ng::from_str::<Value>(&text).expect("YAML"),
            config
        );
    }
}
