//! The module's configuration: the settings of the filter, but for those about its daemon and its own
//! memory, and those of a cache.

use reflex_envoy_core::config::Config;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What the operator says.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What the filter has as well.
    pub(crate) filter: Config,
    /// Where answers are kept; none is memory only.
    pub(crate) data_dir: Option<PathBuf>,
    /// Upper bound of the files there.
    pub(crate) disk_bytes_max: u64,
    /// Upper bound of answers in memory, where the disk does not take them.
    pub(crate) memory_bytes_max: u64,
    /// Upper bound of requests that are known by their bytes; 0 is none.
    pub(crate) l1_bytes_max: u64,
    /// Whether an Envoy that was not tested is used.
    pub(crate) allow_untested_envoy: bool,
}

/// Settings of the filter that mean nothing here. A setting without an effect is an error: it would
/// not do what its author meant.
const FILTERS: [&str; 7] = [
    "daemon_cluster",
    "lookup_timeout_ms",
    "insert_timeout_ms",
    "epoch_poll_ms",
    "hot_bytes_max",
    "hot_entry_bytes_max",
    "hot_ttl_seconds",
];

/// As of the daemon.
const DISK_BYTES_MAX: u64 = 4 << 30;
/// As of the daemon.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// As of the daemon.
const L1_BYTES_MAX: u64 = 64 << 20;
/// More than any machine has.
const BYTES_LIMIT: u64 = 1 << 50;

impl Settings {
    /// Reads the text of the configuration: a JSON object, which Envoy makes of a `Struct` too.
    ///
    /// # Errors
    ///
    /// One line that names the field and what is wrong with it.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if let Some(name) = FILTERS.iter().find(|name| fields.contains_key(**name)) {
            return Err(format!(
                "{name}: a setting of the proxy-wasm filter; the module has its cache inside Envoy \
                 (docs/envoy.md)"
            ));
        }
        let data_dir = match fields.remove("data_dir") {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) if path.starts_with('/') => Some(PathBuf::from(path)),
            Some(other) => {
                return Err(format!(
                    "data_dir: {other} is not the absolute path of a folder"
                ));
            }
        };
        let disk_bytes_max = bytes(&mut fields, "disk_bytes_max", 1, DISK_BYTES_MAX)?;
        let memory_bytes_max = bytes(&mut fields, "memory_bytes_max", 1, MEMORY_BYTES_MAX)?;
        let l1_bytes_max = bytes(&mut fields, "l1_bytes_max", 0, L1_BYTES_MAX)?;
        let allow_untested_envoy = match fields.remove("allow_untested_envoy") {
            None => false,
            Some(Value::Bool(allow)) => allow,
            Some(other) => {
                return Err(format!(
                    "allow_untested_envoy: {other} is not true or false"
                ));
            }
        };
        fields.insert("daemon_cluster".into(), "".into());
        let filter = Config::parse(Value::Object(fields).to_string().as_bytes())?;
        Ok(Self {
            filter,
            data_dir,
            disk_bytes_max,
            memory_bytes_max,
            l1_bytes_max,
            allow_untested_envoy,
        })
    }
}

/// A number of bytes, or its default.
fn bytes(
    fields: &mut Map<String, Value>,
    name: &str,
    least: u64,
    default: u64,
) -> Result<u64, String> {
    let Some(value) = fields.remove(name) else {
        return Ok(default);
    };
    let bytes = value
        .as_u64()
        .filter(|bytes| (least..=BYTES_LIMIT).contains(bytes));
    bytes.ok_or_else(|| format!("{name}: {value} is not a number from {least} to {BYTES_LIMIT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> Result<Settings, String> {
        let text = format!(r#"{{"upstreams": {{"openai": "https://api.openai.com"}}{more}}}"#);
        Settings::parse(text.as_bytes())
    }

    #[test]
    fn one_upstream_is_enough() {
        let settings = parse("").expect("valid");
        assert_eq!(settings.data_dir, None);
        assert_eq!(settings.disk_bytes_max, DISK_BYTES_MAX);
        assert_eq!(settings.filter.daemon_cluster, None);
        assert!(!settings.allow_untested_envoy);
    }

    #[test]
    fn what_is_set_counts() {
        let settings = parse(
            r#", "data_dir": "/var/lib/reflex", "disk_bytes_max": 1048576, "memory_bytes_max": 7,
            "l1_bytes_max": 0, "allow_untested_envoy": true, "samples": 3"#,
        )
        .expect("valid");
        assert_eq!(settings.data_dir, Some("/var/lib/reflex".into()));
        assert_eq!(settings.disk_bytes_max, 1 << 20);
        assert_eq!(settings.memory_bytes_max, 7);
        assert_eq!(settings.l1_bytes_max, 0);
        assert!(settings.allow_untested_envoy);
        assert_eq!(settings.filter.samples, 3);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |more: &str, part: &str| {
            let why = parse(more).expect_err(more);
            assert!(why.contains(part) && !why.contains('\n'), "{more}: {why}");
        };
        check(r#", "data_dir": "reflex""#, "data_dir");
        check(r#", "data_dir": 7"#, "data_dir");
        check(r#", "disk_bytes_max": 0"#, "disk_bytes_max: 0");
        check(r#", "memory_bytes_max": -1"#, "memory_bytes_max");
        check(r#", "l1_bytes_max": "1""#, "l1_bytes_max");
        check(r#", "allow_untested_envoy": 1"#, "allow_untested_envoy");
        check(r#", "ttl_secons": 1"#, "ttl_secons");
        for name in FILTERS {
            check(&format!(r#", "{name}": 1"#), name);
        }
        let why = Settings::parse(b"no JSON").expect_err("no JSON");
        assert!(why.contains("expected"), "{why}");
    }
}
