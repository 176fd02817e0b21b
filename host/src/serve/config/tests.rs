//! Files, variables and flags: which are valid, what they mean, and what is said of the others.

mod fuzzed;

use super::*;
use crate::cache::L1_BYTES_MAX;
use std::ffi::OsString;

fn draft(text: &str) -> Draft {
    let mut draft = Draft::default();
    draft.read("edge.toml", text.into());
    draft
}

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let mut draft = draft(text);
    let own = |(name, text): &(&str, &str)| (OsString::from(name), OsString::from(text));
    draft.read_environment(environment.iter().map(own));
    let flags = Flags {
        upstream: Some("http://127.0.0.1:1".into()),
        ..Flags::default()
    };
    draft.read_flags(&flags);
    Config::of(draft, Source::default()).map_err(|errors| lines(&errors))
}

fn load(text: &str) -> Result<Config, String> {
    load_with(text, &[])
}

#[test]
fn an_empty_file_is_valid() {
    let config = load("").expect("defaults are valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.to_string(), "127.0.0.1:8081");
    assert_eq!(config.namespace, "default");
    assert_eq!(config.l1_bytes_max, L1_BYTES_MAX);
    assert_eq!(config.net, NetLimits::default());
    assert!(!config.share_anonymous && config.warnings.is_empty());
    let without = load("l1_max = 0").expect("it may be off");
    assert_eq!(without.l1_bytes_max, 0);
}

#[test]
fn mistakes_are_named() {
    let check = |text: &str, part: &str| {
        let error = load(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains('\n'), "{text}: {error}");
        assert!(
            error.starts_with("--config edge.toml: line "),
            "{text}: {error}"
        );
    };
    check(
        "ttl_secons = 1",
        "`ttl_secons`: did you mean `ttl_default`?",
    );
    check("listen = \"nowhere\"", "line 1: listen: `nowhere`");
    check("listen = 8080", "found integer, expected an address");
    check("listen = \"\"", "listen");
    check("\n\nttl_seconds = 0", "line 3: ttl_seconds: 0");
    check("ttl_default = \"500ms\"", "ttl_default");
    check("ttl_default = \"0s\"", "ttl_default");
    check("idle_max = 60", "has no unit: a duration, 1ms to ");
    check("idle_max = \"-1s\"", "is not a duration");
    check("idle_max = \"\"", "is not a duration");
    check("idle_max = \"60w\"", "idle_max");
    check("idle_max = [\"1s\"]", "found array");
    check(
        "idle_max = \"1s\"\nidle_max = \"2s\"",
        "line 2: duplicate key",
    );
    check(
        "idle_max = \"1s\"\nidle_seconds_max = 2",
        "line 2: idle_seconds_max: `idle_seconds_max`",
    );
    check(
        "idle_seconds_max = 1\nidle_max = \"2s\"",
        "line 1 has `idle_seconds_max`",
    );
    check("idle_seconds_max = \"1s\"", "expected a whole number");
    check("idle_seconds_max = -1", "idle_seconds_max");
    check(
        "idle_seconds_max = 18446744073709551615",
        "idle_seconds_max",
    );
    check(
        "idle_seconds_max = 99999999999999999999",
        "idle_seconds_max",
    );
    check("disk_max = \"99999999TiB\"", "`99999999TiB` is too much");
    check("disk_max = \"4G\"", "is not a size");
    check("disk_max = -1", "disk_max");
    check("disk_max = 0", "over 0");
    check("entries_max = 1.5", "found float");
    check(
        "allow_length = \"yes\"",
        "found string, expected true or false",
    );
    check("hits = \"nowhere\"", "\"native\" or \"component\"");
    check("tenant_header = \"X-Tenant\"", "tenant_header");
    for name in ["host", "connection", "te", "expect", "content-length"] {
        check(&format!("tenant_header = \"{name}\""), "names no tenant");
    }
    check("ignored_headers = [\"x-api-*\"]", "`x-api-key`");
    let hidden = "tenant_header = \"x-team\"\nignored_headers = [\"x-t*\"]";
    check(
        hidden,
        "line 2: ignored_headers: `x-t*` would ignore `x-team`",
    );
    check("ignored_headers = \"x-id\"", "ignored_headers");
    check(
        "ignored_headers = [\"x-id\",\n1]",
        "line 2: ignored_headers",
    );
    check("ignored_cookies = [\"*\"]", "ignored_cookies");
    check("ignored_query = [\"api*\"]", "`api-key`");
    check("ignored_fields = [\"model\"]", "ignored_fields");
    check(
        "ignored_fields = [\"a\"]\nkeyed_fields = [\"a\"]",
        "line 1: ignored_fields",
    );
    check("bypass_models = [\"\"]", "bypass_models");
    check("instances_max = 1000000", "instances_max");
    check("anonymous = \"yes\"", "anonymous");
    check("edge_socket_mode = \"0999\"", "edge_socket_mode");
    check("edge_socket_mode = \"+777\"", "edge_socket_mode");
    check("edge_socket_mode = \"7777\"", "edge_socket_mode");
    check("ttl = \"1h\"", "ttl: expected a list of tables");
    check("[[ttl]]\nmodel = \"a\"\nseconds = \"ever\"", "seconds");
    check("[[ttl]]\nmodel = \"a\"", "line 1: ttl: life is missing");
    check(
        "[[ttl]]\nlife = \"1h\"\n\n[[ttl]]\nlife = \"1y\"",
        "line 4: ttl: life: `1y`",
    );
    check("[[ttl]]\nmodle = \"a\"\nlife = \"1h\"", "line 2");
    check("[[path]]\npath = \"v1\"\napi = \"none\"", "path: `v1`");
    check("[[path]]\npath = \"/v1\"\napi = \"chat\"", "path: `/v1`");
    check("[[path]]\npath = \"/v1\"", "`api`");
    check("[[ttl]]\nroute = \"a\"\nseconds = 1", "route");
    check("[[ttl]]\nseconds = 9999999999", "ttl: seconds");
    check("[[ttl]]\npath = \"/a//b\"\nseconds = 1", "write `/a/b`");
    check("samples = 0", "samples");
    check("samples = 100000", "samples");
    check("request_seconds_max = 0", "request_seconds_max");
    check("stale_if_error_seconds_max = 9999999", "stale_if_error");
    check("stale_while_revalidate = \"31d\"", "stale_while_revalidate");
    check(
        "refresh_ahead = 1.0",
        "refresh_ahead: 1 is not from 0 to 0.9",
    );
    check(
        "[[renew]]\nrefresh_ahead = -0.1",
        "line 1: renew: refresh_ahead",
    );
    check("[[renew]]\npath = \"/a//b\"", "write `/a/b`");
    check(
        "[[renew]]\nstale_while_revalidate = \"31d\"",
        "over 30 days",
    );
    check("[[renew]]\nseconds = 1", "seconds");
    check(
        "hits = \"component\"\nrefresh_ahead = 0.1",
        "renews nothing",
    );
    check("client_control = \"yes\"", "client_control");
    check("provider_control = \"yes\"", "provider_control");
    check("temperature_max = -1.0", "temperature_max");
    check("temperature_max = inf", "temperature_max");
    check("tls_cert = \"a\"", "tls_cert needs tls_key");
    check("tls_key = \"a\"", "tls_key needs tls_cert");
    check("admin_tls_key = \"a\"", "admin_tls_key needs");
    check("upstream_cert = \"a\"", "upstream_cert needs");
    check("tls_client_ca = \"a\"", "tls_client_ca needs tls_cert");
    let from = "tenant_from = \"client-certificate\"\n";
    check(from, "needs tls_client_ca");
    let has_ca = format!("{from}tls_cert = \"a\"\ntls_key = \"b\"\ntls_client_ca = \"c\"\n");
    check(
        &format!("{has_ca}tenant_header = \"x-a\""),
        "line 5: tenant_header",
    );
    let ignored = format!("{has_ca}ignored_headers = [\"x-reflex-*\"]");
    check(&ignored, "would ignore `x-reflex-client-certificate`");
    check("[[group]]\nname = \"\"", "group");
    check(
        "[[price]]\nmodel = \"a\"\ninput_per_million = 1",
        "output_per_million",
    );
    let negative = "[[price]]\nmodel = \"a\"\ninput_per_million = -1\noutput_per_million = 1";
    check(negative, "price");
    check(
        "[[group]]\nname = \"a\"\ntrusted = [\"b\"]",
        "tenant_header",
    );
    let twice = "tenant_header = \"x-team\"\n[[group]]\nname = \"a\"\ntrusted = [\"b\", \"b\"]";
    check(twice, "named twice");
    let secret = load("[[group]]\nname = \"a\"\ntenants = [\"sk-secret\"]");
    let error = secret.expect_err("a credential is no tenant");
    assert!(error.contains("`reflex-edge tenant`"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let text = "samples = 0\nlisten = [\nidle_maxx = \"1s\"\n[[ttl]]\nlife = \"ever\"\n[[path]]\npath = \"v1\"\napi = \"none\"";
    let error = load_with(text, &[("REFLEX_EDGE_REPLAY", "slow")]).expect_err("mistakes");
    let numbers: Vec<_> = error
        .lines()
        .filter_map(|line| line.split_once("line "))
        .collect();
    let numbers: Vec<_> = numbers
        .iter()
        .filter_map(|(_, rest)| rest.split(':').next())
        .collect();
    assert!(numbers.len() >= 3 && numbers.is_sorted(), "{error}");
    for part in ["samples", "REFLEX_EDGE_REPLAY: `slow`", "line 1"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let text = "samples = 0\nreplay = \"slow\"\nidle_maxx = \"1s\"\n[[ttl]]\nlife = \"ever\"";
    let error = load(text).expect_err("mistakes");
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn mistakes_with_certificates_are_told_together() {
    let text = "tls_cert = \"a\"\nadmin_tls_cert = \"a\"\nupstream_key = \"a\"\n\
                tenant_from = \"client-certificate\"\nsamples = 0";
    let error = load(text).expect_err("mistakes");
    assert_eq!(error.lines().count(), 5, "{error}");
    let valid = "tls_cert = \"a\"\ntls_key = \"b\"\ntls_client_ca = \"c\"\n\
                 tenant_from = \"client-certificate\"\n\
                 [[group]]\nname = \"all\"\ntrusted = [\"cn:a\", \"uri:spiffe://a/b\"]";
    let config = load(valid).expect("valid");
    assert_eq!(config.tenant_header.as_deref(), Some(CLIENT_CERTIFICATE));
    assert!(config.tls.is_some_and(|tls| tls.names_tenants) && config.groups.len() == 2);
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    let mut draft = Draft::default();
    draft.read("edge.toml", b"samples = 1\nnamespace = \"\xff\"".into());
    let error = draft.errors.first().expect("a mistake").to_string();
    assert_eq!(error, "--config edge.toml: line 2: this is not UTF-8");
}

#[test]
fn old_keys_mean_what_they_meant_and_say_their_new_names() {
    let text = "ttl_seconds = 60\ndisk_bytes_max = 1_000_000_000\nguest_milliseconds_max = 1500\n\
                l1_bytes_max = 0\n[[ttl]]\nseconds = \"never\"";
    let config = load(text).expect("valid");
    assert_eq!(config.ttl, Duration::from_secs(60));
    assert_eq!(config.cache.disk_bytes_max, 1_000_000_000);
    assert_eq!(config.guest.guest_time_max, Duration::from_millis(1500));
    assert_eq!(config.l1_bytes_max, 0);
    let warnings = lines(&config.warnings);
    assert_eq!(config.warnings.len(), 5, "{warnings}");
    assert!(
        warnings.contains("line 1: ttl_seconds is now ttl_default = \"60s\""),
        "{warnings}"
    );
}

#[test]
fn every_setting_but_lists_has_a_variable_that_goes_before_the_file() {
    let config = load_with(
        "samples = 2\nidle_max = \"1s\"",
        &[
            ("REFLEX_EDGE_SAMPLES", "3"),
            ("REFLEX_EDGE_IDLE_MAX", "2m"),
            ("REFLEX_EDGE_ALLOW_LENGTH", "true"),
            ("REFLEX_EDGE_TEMPERATURE_MAX", "0.5"),
            ("REFLEX_EDGE_L1_MAX", ""),
            ("REFLEX_EDGE_UPSTREAM", "http://other.test"),
            // Kubernetes, for a service of this name.
            ("REFLEX_EDGE_SERVICE_HOST", "10.0.0.1"),
            ("REFLEX_EDGE_PORT", "tcp://10.0.0.1:8080"),
        ],
    );
    let config = config.expect("valid");
    assert_eq!(config.samples.get(), 3);
    assert_eq!(config.net.idle_max, Duration::from_secs(120));
    assert!(config.allow_length);
    assert_eq!(config.temperature_max, Some(0.5));
    assert_eq!(config.l1_bytes_max, L1_BYTES_MAX);
    assert_eq!(config.providers.len(), 1, "the flag's");
    assert_eq!(config.providers[0].url.to_string(), "http://127.0.0.1:1");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);

    let check = |name: &str, text: &str, part: &str| {
        let error = load_with("", &[(name, text)]).expect_err(name);
        assert!(error.starts_with(name) && error.contains(part), "{error}");
    };
    check("REFLEX_EDGE_SAMPLES", "none", "none");
    check("REFLEX_EDGE_IDLE_MAX", "60", "is not a duration");
    check("REFLEX_EDGE_IGNORED_HEADERS", "x-id", "only the file");
    check("REFLEX_EDGE_TENANT_HEADER", "host", "names no tenant");
    let near = load_with("", &[("REFLEX_EDGE_SAMPLE", "2")]).expect("valid");
    let warning = lines(&near.warnings);
    assert!(
        warning.contains("did you mean REFLEX_EDGE_SAMPLES?"),
        "{warning}"
    );
}

#[test]
fn the_default_file_has_every_setting_and_means_the_defaults() {
    let file = default_file();
    for setting in SETTINGS {
        let beginning = match setting.is_tables() {
            true => format!("\n#[[{}]]\n", setting.key),
            false => format!("\n#{} = ", setting.key),
        };
        assert!(file.contains(&beginning), "{}", setting.key);
        let has_default = setting.example.is_empty();
        assert!(has_default || setting.reason.len() > 5, "{}", setting.key);
    }
    let commented = load(&file).expect("comments are valid");
    assert!(load("").expect("valid").changes(&commented).is_empty());
    // With every key set, those with a default have that value.
    let is_key = |line: &&str| !line.starts_with("# ") && !line.starts_with("#component");
    let set: Vec<&str> = file
        .lines()
        .filter(is_key)
        .map(|line| line.trim_start_matches('#'))
        .collect();
    let set = load(&set.join("\n")).unwrap_or_else(|errors| panic!("{errors}"));
    for change in load("").expect("valid").changes(&set) {
        let setting = SETTINGS.iter().find(|setting| setting.key == change.key);
        let has_default = setting.is_some_and(|setting| setting.example.is_empty());
        assert!(!has_default, "{change}");
    }
}

#[test]
fn keys_are_written_once_and_old_ones_have_units() {
    let mut keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    keys.extend(
        SETTINGS
            .iter()
            .map(|setting| setting.old)
            .filter(|old| !old.is_empty()),
    );
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    for setting in SETTINGS.iter().filter(|setting| !setting.old.is_empty()) {
        let units = ["_seconds", "_bytes", "_milliseconds"];
        assert!(
            units.iter().any(|unit| setting.old.contains(unit)),
            "{}",
            setting.old
        );
    }
}

#[test]
fn the_page_of_settings_has_the_table_as_it_is() {
    let page = include_str!("../../../../docs/settings.md");
    let table = markdown();
    assert!(
        page.contains(&table),
        "put the output of `reflex-edge config default --markdown` into docs/settings.md:\n{table}"
    );
}

#[test]
fn a_change_says_whether_a_reload_is_enough() {
    let check = |from: &str, to: &str, expected: &[&str]| {
        let (from, to) = (load(from).expect("valid"), load(to).expect("valid"));
        let told: Vec<String> = from.changes(&to).iter().map(ToString::to_string).collect();
        assert_eq!(told, expected);
    };
    check("", "ttl_seconds = 3600\nidle_max = \"600s\"", &[]);
    check("ttl_max = \"7d\"", "ttl_max = \"168h\"", &[]);
    check("", "samples = 2", &["samples: 1 -> 2 (with a reload)"]);
    check(
        "tenant_header = \"x-a\"",
        "",
        &["tenant_header: \"x-a\" -> none (with a reload)"],
    );
    check(
        "",
        "disk_max = \"1GiB\"",
        &["disk_max: \"4GiB\" -> \"1GiB\" (needs a restart)"],
    );
    check(
        "",
        "ignored_query = [\"a\"]",
        &["ignored_query: another list (with a reload)"],
    );
    let rule = |life: &str| format!("[[ttl]]\nmodel = \"a\"\nlife = \"{life}\"");
    check(
        &rule("1h"),
        &rule("2h"),
        &["ttl: another list (with a reload)"],
    );
    check(&rule("1h"), &rule("1h"), &[]);
}

#[test]
fn what_needs_a_restart_stays_as_it_runs() {
    let running = load("disk_max = \"1GiB\"\nsamples = 1").expect("valid");
    let wanted = load("disk_max = \"2GiB\"\nsamples = 5").expect("valid");
    let next = wanted.within(&running).expect("valid");
    assert_eq!(next.cache.disk_bytes_max, 1 << 30);
    assert_eq!(next.samples.get(), 5);
    // It is told again until the restart.
    assert_eq!(next.changes(&wanted).len(), 1);
}

#[test]
fn lists_are_read_as_they_are_written() {
    let text = "ignored_headers = [\"x-id\"]\nignored_cookies = [\"lb_*\"]\n\
                ignored_query = [\"*_id\"]\n\
                ignored_fields = [\"user\"]\nkeyed_fields = [\"metadata\"]\n\
                bypass_fields = [\"deep_*\"]\nbypass_models = [\"*-live\"]";
    let rules = load(text).expect("valid").rules;
    assert_eq!(rules.ignored_headers, ["x-id"]);
    assert_eq!(rules.ignored_cookies, ["lb_*"]);
    assert_eq!(rules.ignored_query, ["*_id"]);
    assert_eq!(rules.ignored_fields, ["user"]);
    assert_eq!(rules.keyed_fields, ["metadata"]);
    assert_eq!(rules.bypass_fields, ["deep_*"]);
    assert_eq!(rules.bypass_models, ["*-live"]);
    assert!(load("").expect("valid").rules.is_empty());
}

#[test]
fn flags_go_before_the_file() {
    for file in [
        "upstream = \"https://b.test\"",
        "[[upstream]]\nurl = \"https://b.test\"",
    ] {
        let config = load(file).expect("valid");
        assert_eq!(config.providers.len(), 1);
        assert_eq!(config.providers[0].url.to_string(), "http://127.0.0.1:1");
    }
}

#[test]
fn without_a_provider_there_must_be_edges() {
    let none = Config::of(draft(""), Source::default()).map(drop);
    assert!(lines(&none.expect_err("nothing to do")).contains("--upstream"));
    let text = "edge_socket = \"/run/edge\"\nedge_socket_mode = \"0660\"";
    let config = Config::of(draft(text), Source::default()).expect("valid");
    assert!(config.providers.is_empty());
    assert_eq!(config.edge.expect("given").mode, 0o660);
}

#[test]
fn limits_are_of_all_tenants_or_of_one_and_mistakes_are_named() {
    let config = load(
        "over_rate = \"refuse\"\n[[group]]\nname = \"red\"\ntenants = []\n\
         [[limit]]\nrequests_per_second = 2.5\ndisk_max = \"1MiB\"\n\
         [[limit]]\ntenant = \"red\"\nburst = 7\nrequests_per_second = 1\nfills_max = 3\n\
         entries_max = 9",
    )
    .expect("limits");
    let Limits { asked, stored } = &config.limits;
    let red = Tenant::of_group("red").0;
    let rate = |most: &crate::exchange::limits::Most| {
        let rate = most.rate.expect("a rate");
        (rate.per_second.to_string(), rate.burst, most.fills)
    };
    assert_eq!(rate(&asked.each), ("2.5".into(), 3, None));
    assert_eq!(rate(&asked.of[&red]), ("1".into(), 7, Some(3)));
    assert_eq!(
        (stored.each.bytes, stored.each.entries),
        (1 << 20, u64::MAX)
    );
    // What its table leaves out.
    assert_eq!(
        (stored.of[&red].bytes, stored.of[&red].entries),
        (1 << 20, 9)
    );
    assert_eq!((asked.of.len(), stored.of.len()), (1, 1));
    assert!(asked.apart.is_none() && stored.apart.is_none());
    assert_eq!(config.cache.tenant_bounds, *stored);
    let together = "unnamed_tenants = \"together\"\n[[group]]\nname = \"red\"\ntenants = []";
    let together = load(together).expect("limits").limits;
    assert_eq!(together.asked.apart, Some([red].into()));

    let check = |table: &str, part: &str| {
        let error = load(&format!("\n[[limit]]\n{table}")).expect_err(table);
        assert!(error.contains(part), "{table}: {error}");
        assert!(error.starts_with("--config edge.toml: line "), "{error}");
        assert!(!error.contains("sk-secret"), "{error}");
    };
    check("requests_per_second = 0", "requests_per_second: 0 is not");
    check("requests_per_second = -1.0", "requests_per_second");
    check("requests_per_second = nan", "requests_per_second");
    check("requests_per_second = 1e9", "requests_per_second");
    check("burst = 3", "burst: it needs requests_per_second");
    check("requests_per_second = 1\nburst = 0", "burst: 0 is less");
    check("fills_max = 0", "fills_max: 0 is less than one");
    check("entries_max = 0", "entries_max: 0 is less than one");
    check("disk_max = \"0\"", "disk_max");
    check("disk_max = \"lots\"", "disk_max");
    check("disk_max = 7", "line 3");
    check("tenant = \"sk-secret\"", "neither a group's name nor");
    check("fills_max = 1\n[[limit]]\nfills_max = 2", "two tables");
    let twice = format!("tenant = \"{}\"", "ab".repeat(32));
    check(&format!("{twice}\n[[limit]]\n{twice}"), "the same tenant");
    check("rate = 1", "unknown field");
}
