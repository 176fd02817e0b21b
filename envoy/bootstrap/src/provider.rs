//! A provider as Envoy sees it: a cluster, and the route that leads to it.

use std::net::IpAddr;
use std::path::Path;

use http::Uri;
use http::uri::Scheme;
use serde_json::{Value, json};

use crate::{ENDPOINT, at, path};

/// A provider, and the paths that lead to it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name of the cluster.
    pub name: String,
    /// As `reflex-edge serve --upstream` takes it; a path in it goes before each request's.
    pub url: String,
    /// Requests whose path begins so go there.
    pub path: String,
}

/// What a provider's URL says.
struct Parts {
    tls: bool,
    authority: String,
    /// A name, or an address without brackets.
    host: String,
    port: u16,
    /// Empty, or a path that starts with a slash and does not end with one.
    prefix: String,
}

impl Provider {
    /// The example's only one, of all paths, at this URL.
    pub fn new(url: &str) -> Self {
        Self {
            name: "provider".into(),
            url: url.into(),
            path: "/".into(),
        }
    }

    /// Its cluster, made from the example's, which speaks TLS to a name.
    pub(crate) fn cluster(
        &self,
        example: &Value,
        trusted_ca: Option<&Path>,
    ) -> Result<Value, String> {
        let parts = self.parts()?;
        let mut cluster = example.clone();
        *at(&mut cluster, "/name")? = self.name.clone().into();
        *at(&mut cluster, "/load_assignment/cluster_name")? = self.name.clone().into();
        *at(&mut cluster, &format!("{ENDPOINT}/socket_address"))? =
            json!({"address": parts.host, "port_value": parts.port});
        if parts.host.parse::<IpAddr>().is_ok() {
            // An address needs no resolving.
            *at(&mut cluster, "/type")? = "STATIC".into();
            remove(&mut cluster, "", "dns_lookup_family")?;
        }
        if parts.tls {
            if let Some(file) = trusted_ca {
                *at(&mut cluster, TRUSTED_CA)? = path(file)?;
            }
        } else {
            remove(&mut cluster, "", "transport_socket")?;
            remove(&mut cluster, HTTP_OPTIONS, "auto_config")?;
            remove(&mut cluster, HTTP_OPTIONS, "upstream_http_protocol_options")?;
            at(&mut cluster, HTTP_OPTIONS)?["explicit_http_config"] =
                json!({"http_protocol_options": {}});
        }
        Ok(cluster)
    }

    /// The route to it, made from the example's.
    pub(crate) fn route(&self, example: &Value) -> Result<Value, String> {
        let parts = self.parts()?;
        let mut route = example.clone();
        *at(&mut route, "/name")? = self.name.clone().into();
        *at(&mut route, "/match/prefix")? = self.path.clone().into();
        *at(&mut route, "/route/cluster")? = self.name.clone().into();
        *at(&mut route, "/route/host_rewrite_literal")? = parts.authority.into();
        if !parts.prefix.is_empty() {
            at(&mut route, "/route")?["prefix_rewrite"] =
                format!("{}{}", parts.prefix, self.path).into();
        }
        Ok(route)
    }

    fn parts(&self) -> Result<Parts, String> {
        let url = &self.url;
        let uri: Uri = url
            .parse()
            .map_err(|error| format!("`{url}` is not a URL: {error}"))?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri
            .authority()
            .filter(|it| (tls || uri.scheme() == Some(&Scheme::HTTP)) && !it.as_str().contains('@'))
            .ok_or_else(|| {
                format!("`{url}` is not an http:// or https:// URL without credentials")
            })?;
        let host = authority.host();
        let brackets: [char; 2] = ['[', ']'];
        Ok(Parts {
            tls,
            authority: authority.as_str().into(),
            host: host.trim_matches(brackets).into(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').into(),
        })
    }
}

/// Where a cluster has its settings of HTTP.
const HTTP_OPTIONS: &str = "/typed_extension_protocol_options/\
                            envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Where a cluster that speaks TLS says whose certificates it takes.
const TRUSTED_CA: &str =
    "/transport_socket/typed_config/common_tls_context/validation_context/trusted_ca/filename";

fn remove(value: &mut Value, pointer: &str, key: &str) -> Result<(), String> {
    let object = at(value, pointer)?.as_object_mut();
    object
        .and_then(|object| object.remove(key))
        .map(drop)
        .ok_or_else(|| format!("envoy/envoy.yaml has no `{key}` at {pointer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(pointer: &str) -> Value {
        let mut config: Value = serde_yaml_ng::from_str(crate::EXAMPLE).expect("YAML");
        at(&mut config, pointer).expect("it is there").take()
    }

    fn cluster(url: &str) -> Value {
        let example = example("/static_resources/clusters/0");
        let file = Path::new("/a/ca.pem");
        let cluster = Provider::new(url).cluster(&example, Some(file));
        cluster.expect("a cluster")
    }

    #[test]
    fn a_cluster_goes_where_the_url_says() {
        let check = |url: &str, kind: &str, host: &str, port: u16, tls: bool| {
            let cluster = cluster(url);
            let address = cluster.pointer(&format!("{ENDPOINT}/socket_address"));
            let wanted = json!({"address": host, "port_value": port});
            assert_eq!(address, Some(&wanted), "{url}");
            assert_eq!(cluster["type"], kind, "{url}");
            assert_eq!(cluster.get("transport_socket").is_some(), tls, "{url}");
            let trusted = cluster.pointer(TRUSTED_CA).and_then(Value::as_str);
            assert_eq!(trusted, tls.then_some("/a/ca.pem"), "{url}");
            let options = cluster.pointer(HTTP_OPTIONS).expect("options");
            assert_eq!(options.get("auto_config").is_some(), tls, "{url}");
            assert_eq!(options.get("explicit_http_config").is_some(), !tls, "{url}");
        };
        check(
            "https://api.example.com",
            "LOGICAL_DNS",
            "api.example.com",
            443,
            true,
        );
        check(
            "https://api.example.com:8443/v1/",
            "LOGICAL_DNS",
            "api.example.com",
            8443,
            true,
        );
        check("http://127.0.0.1:8000", "STATIC", "127.0.0.1", 8000, false);
        check("http://[::1]:8000", "STATIC", "::1", 8000, false);
        check("http://localhost", "LOGICAL_DNS", "localhost", 80, false);
    }

    #[test]
    fn a_route_says_the_name_and_the_prefix_of_the_url() {
        let check = |url: &str, path: &str, host: &str, rewrite: Value| {
            let example = example(
                "/static_resources/listeners/0/filter_chains/0/filters/0\
                                   /typed_config/route_config/virtual_hosts/0/routes/0",
            );
            let mut provider = Provider::new(url);
            provider.path = path.into();
            let route = provider.route(&example).expect("a route");
            assert_eq!(route["match"]["prefix"], path, "{url}");
            assert_eq!(route["name"], "provider", "{url}");
            assert_eq!(route["route"]["host_rewrite_literal"], host, "{url}");
            let found = route["route"].get("prefix_rewrite");
            assert_eq!(found.unwrap_or(&Value::Null), &rewrite, "{url}");
        };
        check("http://a.example:81", "/", "a.example:81", Value::Null);
        check("https://a.example/x/", "/", "a.example", json!("/x/"));
        check("https://a.example/x", "/v1/", "a.example", json!("/x/v1/"));
    }

    #[test]
    fn what_is_no_url_of_a_provider_is_refused() {
        for url in [
            "",
            "a.example",
            "ftp://a.example",
            "/v1",
            "http://k@a.example",
        ] {
            assert!(Provider::new(url).parts().is_err(), "{url}");
        }
    }
}
