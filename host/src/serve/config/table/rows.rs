//! The rows of the table. A new setting is one row here, one line where [`Config`] is made of the
//! values, and its row in `docs/settings.md`, which a test asks for.
//!
//! [`Config`]: crate::serve::config::Config

use super::{Applies, Setting};
use crate::cache::{CacheOptions, L1_BYTES_MAX};
use crate::exchange::policy::INFLIGHT_BYTES_MAX;
use crate::grant::GuestLimits;
use crate::serve::config::engine_url::EngineUrl;
use crate::serve::config::limits::LimitTable;
use crate::serve::config::net::NetLimits;
use crate::serve::config::prices::PriceTable;
use crate::serve::config::provider_table::Upstreams;
use crate::serve::config::read::{Fault, Mode, Read, Size, Span, Tables, Whole, Word};
use crate::serve::config::renew::RenewTable;
use crate::serve::config::words::{
    DurabilityMode, Hits, LogFormat, Mode as Serving, OnComponentFailure, OverRate, ReplayMode,
    TenantFrom, UnnamedTenants,
};
use reflex_settings::{
    AnonymousMode, ClientControlMode, GroupTable, PathTable, ProviderControlMode,
    REQUEST_BYTES_MAX, SAMPLES_LIMIT, TTL_SECONDS, TTL_SECONDS_MAX, TtlTable,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// A year: a longer wait is a mistake, and one without end cannot be added to a time.
const YEAR_MS: u64 = 365 * DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// The cache counts lives in milliseconds; longer lives than a million days are refused.
const LIFE_MS: u64 = 1_000_000 * DAY_MS;
/// The pool maps this much address space per guest memory; no 32-bit guest has more.
const GUEST_MEMORY_BYTES_MAX: u64 = 1 << 32;
/// The pool is laid out for all instances at start, 4 GiB of address space each.
const INSTANCES_MAX: u64 = 10_000;

type Wait = Span<1, YEAR_MS, 1>;
type Life = Span<1000, LIFE_MS, 1000>;
type Stale = Span<0, { 30 * DAY_MS }, 1000>;
type Bytes = Size<1, { u64::MAX }>;
type Count = Whole<1, { u64::MAX }>;
type Connections = Whole<1, { tokio::sync::Semaphore::MAX_PERMITS as u64 }>;

fn seconds<const L: u64, const M: u64, const S: u64>(seconds: u64) -> Span<L, M, S> {
    Span(Duration::from_secs(seconds))
}

settings! {
    upstream: Option<Upstreams> = None, Reload,
        "The provider's URL; a path in it goes before each request's. In the file, [several providers](serve.md#several-providers) are `[[upstream]]`, each with `url` and, if needed, `name`, `path_prefix`, `strip_prefix`, `model`, `host`, `connect_max`, `response_max`, `ca`, `cert`, `key`, `breaker_failures` and `interchangeable_with`. A flag or a variable names one, which is then the only one. Optional with `edge_socket`; a daemon that starts without one needs a restart to get one.",
        "only the operator knows the provider" (eg "\"https://api.openai.com\"");
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), Restart,
        "Where clients connect.",
        "loopback: nothing is exposed unless the operator says so";
    admin: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8081)), Restart,
        "Where `/health`, `/metrics` and the admin API are; for operators only.",
        "loopback, and an address that clients do not use";
    tls_cert: Option<PathBuf> = None, Restart,
        "The file of the certificate for `listen` in PEM, followed by those between it and its CA. With it, clients connect with TLS, HTTP/2 or HTTP/1.1. The file is read again when it changes, without a reload.",
        "needs a certificate, which only the operator has" (eg "\"/etc/reflex-edge/tls.crt\"");
    tls_key: Option<PathBuf> = None, Restart,
        "The file of its private key in PEM, not encrypted.",
        "belongs to `tls_cert`" (eg "\"/etc/reflex-edge/tls.key\"");
    tls_client_ca: Option<PathBuf> = None, Restart,
        "The file of the CAs of clients' certificates in PEM. With it, only clients with a valid certificate of one of these CAs can connect.",
        "clients show a credential of the provider" (eg "\"/etc/reflex-edge/clients.crt\"");
    admin_tls_cert: Option<PathBuf> = None, Restart,
        "The file of the certificate for `admin`, as `tls_cert`.",
        "on loopback, no other machine is on the way" (eg "\"/etc/reflex-edge/admin.crt\"");
    admin_tls_key: Option<PathBuf> = None, Restart,
        "The file of its private key, as `tls_key`.",
        "belongs to `admin_tls_cert`" (eg "\"/etc/reflex-edge/admin.key\"");
    upstream_ca: Option<PathBuf> = None, Reload,
        "A file of CAs in PEM that are trusted for the provider beside those of the system.",
        "public providers have a certificate of a CA that systems know" (eg "\"/etc/reflex-edge/provider-ca.crt\"");
    upstream_cert: Option<PathBuf> = None, Reload,
        "The file of the daemon's own certificate in PEM, for a provider that asks for one. A change of the files applies without a reload.",
        "public providers ask for none" (eg "\"/etc/reflex-edge/provider.crt\"");
    upstream_key: Option<PathBuf> = None, Reload,
        "The file of its private key in PEM, not encrypted.",
        "belongs to `upstream_cert`" (eg "\"/etc/reflex-edge/provider.key\"");
    admin_token_file: Option<PathBuf> = None, Restart,
        "The file with the token that changes by operators need; it is made at first start, readable by its owner only. Default: `admin-token` in `data_dir`.",
        "needs no set-up, and lies where only the daemon's user reads" (eg "\"/run/reflex-edge/admin-token\"");
    edge_socket: Option<PathBuf> = None, Restart,
        "A Unix socket where the Envoy filter, and any program that speaks the edge API, reaches the cache.",
        "without edges, no socket is needed" (eg "\"/run/reflex-edge/edge.sock\"");
    edge_socket_mode: Mode = Mode(0o600), Restart,
        "Which users may connect to `edge_socket`, as `chmod` writes it.",
        "an edge can read the answers of all tenants";
    data_dir: PathBuf = "reflex-data".into(), Restart,
        "The folder of the cache; one process uses it at a time.",
        "needs no rights beyond the working directory";
    encryption_key_file: Option<PathBuf> = None, Restart,
        "A file of keys, one a line: a name, and 64 hexadecimal digits, as `openssl rand -hex 32` makes them. With it, stored answers are encrypted with the first key; the others only decrypt. A reload reads the file again. Users beside its owner and its group must not be able to read it.",
        "only the operator can keep a key apart from the disk" (eg "\"/run/secrets/reflex-edge-keys\"");
    take_over: bool = false, Restart,
        "Whether a start takes over from the daemon that has `data_dir`, in place of an error: its listening sockets, then the folder. That one must run with it, too.",
        "two daemons on one folder are a mistake, unless the operator means a restart";
    component: Option<PathBuf> = None, Restart,
        "A WebAssembly component in place of the built-in middleware.",
        "the built-in one is complete" (eg "\"middleware.wasm\"");
    mode: Word<Serving> = Word::first(Serving::Serve), Reload,
        "`\"shadow\"`: every client gets the provider's answer, and the metrics count what would have been a hit. Not with `edge_socket`, `component` or `hits = \"component\"`, which would answer from the cache.",
        "a cache that was started is meant to answer";
    verify_fraction: f64 = 0.0, Reload,
        "The share of hits, from 0 to 1, for which the provider is asked again in the background, to compare its answer with the kept one.",
        "each such hit costs what a miss costs";
    log_format: Word<LogFormat> = Word::first(LogFormat::Text), Restart,
        "How the log is written: lines for people, or `\"json\"`.",
        "a terminal is read by people";
    access_log: bool = false, Reload,
        "Whether each request has a line in the log.",
        "a line for each request costs more than a hit";
    otlp_endpoint: String = String::new(), Restart,
        "The URL of a receiver of OpenTelemetry's traces, such as `\"http://127.0.0.1:4318\"`: each request has a span, sent to `/v1/traces` below it by OTLP over HTTP; empty: none. Only in builds with the feature `otlp`.",
        "only the operator knows a receiver";
    hits: Option<Word<Hits>> = None, Reload,
        "Where hits are answered: by the host before it takes an instance of a component, or by the component. Default: `\"native\"`; with `component`, `\"component\"`.",
        "the built-in component has no rules of its own; another one may have" (eg "\"native\"");
    on_component_failure: Option<Word<OnComponentFailure>> = None, Reload,
        "What happens when no instance comes free or the component fails before it has asked the provider: `\"native\"`, the host answers as if there were no component, from the cache or by one recorded call; `\"pass\"`, the request goes to the provider, past the cache; `\"refuse\"`, the client gets 503, for components that guard. Default: `\"native\"`; with `component`, `\"pass\"`.",
        "the client gets an answer in any case" (eg "\"native\"");
    namespace: String = "default".into(), Reload,
        "Part of every key: two namespaces share nothing.",
        "one cache needs no other name";
    ttl_default (was "ttl_seconds"): Life = seconds(TTL_SECONDS), Reload,
        "Life of an answer that no `[[ttl]]` rule is about. Answers that are stored already keep the life that they were stored with.",
        "long enough for retries, evaluations and agents; a model's update shows the same day";
    ttl: Tables<TtlTable> = Tables::default(), Reload,
        "Rules for the lives of answers by path and model.",
        "one life fits most" (eg "[[ttl]]\nmodel = \"live-*\"\nlife = \"10m\"");
    ttl_max (was "ttl_seconds_max"): Life = seconds(TTL_SECONDS_MAX), Reload,
        "The longest life that a client may ask for with `x-reflex-ttl`.",
        "a week: models change";
    client_control: Word<ClientControlMode> = Word::first(ClientControlMode::Obey), Reload,
        "Which parts of a request's `Cache-Control` and `x-reflex-ttl` are obeyed: all; `\"no-refresh\"`, all but those that make the provider answer again (`no-cache`, `max-age`, `min-fresh`); `\"ignore\"`, none, not even `no-store`.",
        "a client that asks for a fresh answer gets one";
    provider_control: Word<ProviderControlMode> = Word::first(ProviderControlMode::Ignore), Reload,
        "Whether the provider's headers for caches are obeyed. `\"obey\"`: `Cache-Control: no-store`, `no-cache` and `private`, and `Vary: *`, keep an answer out, and `s-maxage`, `max-age` or else `Expires` bound its life. `Age` counts in any case.",
        "the frameworks of most providers send `no-store` or `no-cache` with everything";
    temperature_max: Option<f64> = None, Reload,
        "Requests that ask for a higher `temperature` are not cached.",
        "an equal request may get an equal answer at any temperature" (eg "0.5");
    path: Tables<PathTable> = Tables::default(), Reload,
        "Which API answers at paths that do not show it, and which paths are left alone.",
        "the known APIs are recognised by their paths" (eg "[[path]]\npath = \"/internal/*\"\napi = \"none\"");
    ignored_headers: Vec<String> = Vec::new(), Reload,
        "Headers, in lower case, that cannot change an answer. `*` stands for any text, here and in the next lists.",
        "in doubt, a header counts" (eg "[\"x-my-request-id\"]");
    ignored_cookies: Vec<String> = Vec::new(), Reload,
        "Cookies that cannot change an answer.",
        "in doubt, a cookie counts" (eg "[\"lb_*\"]");
    ignored_query: Vec<String> = Vec::new(), Reload,
        "Parameters of a query, as clients spell them, that cannot change an answer.",
        "in doubt, a parameter counts" (eg "[\"request_id\"]");
    ignored_fields: Vec<String> = Vec::new(), Reload,
        "Top-level fields of a request's body that cannot change an answer, such as `user` at a gateway that ignores it.",
        "in doubt, a field counts" (eg "[\"request_tag\"]");
    keyed_fields: Vec<String> = Vec::new(), Reload,
        "Top-level fields that are in the key and no reason to pass by: fields that the provider is known to ignore, or whose name only looks like a search or like state.",
        "the known fields of each API are built in" (eg "[\"metadata\"]");
    bypass_fields: Vec<String> = Vec::new(), Reload,
        "Top-level fields that make a request pass by, unless they are null or false.",
        "the known fields of each API are built in" (eg "[\"deep_*\"]");
    bypass_models: Vec<String> = Vec::new(), Reload,
        "Models whose requests pass by. Letters match in either case.",
        "any model may be cached" (eg "[\"*-live\"]");
    group: Tables<GroupTable> = Tables::default(), Reload,
        "Tenants that share their answers.",
        "each credential has answers of its own" (eg "[[group]]\nname = \"research\"\ntenants = []");
    limit: Tables<LimitTable> = Tables::default(), Reload,
        "What a tenant may ask and store; without `tenant` (a group's name or a tenant's 64 digits), what each may that has no `[[limit]]` of its own. `requests_per_second` and `burst` (default: what a second brings) are about misses, hits are free; `fills_max` is misses that are fetched and recorded at once; `disk_max` and `entries_max` are what it stores, past which its oldest answers go. What a table leaves out is as in the one without `tenant`, or unbounded. [More](limits.md#limits-of-each-tenant).",
        "only the operator knows the tenants; those with little are sheltered from the others in any case" (eg "[[limit]]\nrequests_per_second = 20.0\ndisk_max = \"1GiB\"");
    over_rate: Word<OverRate> = Word::first(OverRate::Pass), Reload,
        "What becomes of a tenant's misses over its `requests_per_second`: the provider gets them past the cache, or, with `\"refuse\"`, the client gets 429 with `retry-after`.",
        "the cache is never the client's trouble";
    unnamed_tenants: Word<UnnamedTenants> = Word::first(UnnamedTenants::Apart), Reload,
        "Whether each tenant that neither `[[group]]` nor `[[limit]]` names has limits and a share of the store of its own, or, with `\"together\"`, all of them count as one tenant for these. Their answers stay apart. For providers that take any credential: there a client can be another tenant with each request.",
        "a provider's credentials cost money, and nothing has to be named";
    price: Tables<PriceTable> = Tables::default(), Reload,
        "Prices of tokens, for the metrics of savings.",
        "only the operator knows the prices" (eg "[[price]]\nmodel = \"gpt-5*\"\ninput_per_million = 1.25\noutput_per_million = 10.0");
    replay: Word<ReplayMode> = Word::first(ReplayMode::Instant), Reload,
        "How streams are replayed: at once, or `\"paced\"` as they came. Those recorded while it was `\"instant\"` have no pace.",
        "a hit is fast";
    samples: Whole<1, SAMPLES_LIMIT> = Whole(1), Reload,
        "How many different answers to one request are kept and served in turn; that many first requests are misses.",
        "one answer gives the most hits";
    fill_wait_max (was "fill_wait_seconds_max"): Wait = seconds(60), Reload,
        "How long a follower waits for the leader's answer to begin; then it asks the provider itself.",
        "an answer that is not streamed begins when it is whole, and a long one takes a minute";
    stale_if_error_max (was "stale_if_error_seconds_max"): Stale = seconds(0), Reload,
        "For how long after its expiry an answer is served when the provider fails (no answer, 5xx or 429); 0: not at all. Never past the end that the answer states itself (an `expires_at`, a signed link). Never against an obeyed provider's `must-revalidate`, `proxy-revalidate` or `s-maxage`. Not to a request that says `no-cache`, `max-age` or `min-fresh`, and not by the filter.",
        "an expired answer is the operator's decision; a provider that fails for 30 days is gone";
    stale_while_revalidate: Stale = seconds(0), Reload,
        "For how long after its expiry an answer is served at once while the next one is fetched in the background; 0: not at all. Never where `stale_if_error_max` would not serve it either. [More](semantics.md#renewal-in-the-background).",
        "an expired answer is the operator's decision";
    refresh_ahead: f64 = 0.0, Reload,
        "The last part of an answer's life, from 0 to 0.9, in which a hit has the next one fetched in the background: with 0.1, an answer that lives for an hour is renewed by its first hit of the last six minutes.",
        "each renewal costs what a miss costs";
    renew: Tables<RenewTable> = Tables::default(), Reload,
        "The same for a path and a model only, each a pattern in which `*` stands for any text; the first that applies counts. What a table leaves out is as in the two settings above.",
        "one rule for all is enough for most" (eg "[[renew]]\nmodel = \"gpt-5*\"\nstale_while_revalidate = \"10m\"\nrefresh_ahead = 0.1");
    fleet: EngineUrl = EngineUrl::default(), Restart,
        "The Redis or Valkey on which several daemons share their answers: `redis://HOST:PORT`, with TLS `rediss://`; `redis+sentinel://HOST,HOST/MASTER`; `redis+cluster://HOST,HOST`; `unix:///PATH`; empty: none. [More](fleet.md). Only in builds with the feature `fleet`.",
        "only the operator knows one";
    fleet_secret_file: Option<PathBuf> = None, Restart,
        "A file with a secret that all daemons of the fleet have, such as `openssl rand -hex 32` makes. Names in the engine are made with it, and values that were not written with it are refused. Default: the password of the engine.",
        "without it, everything that may write to the engine can write answers" (eg "\"/run/secrets/reflex-fleet\"");
    fleet_password_file: Option<PathBuf> = None, Restart,
        "A file with the engine's password, or with a token in its place. It is read for each connection.",
        "a password in the URL is in the configuration" (eg "\"/run/secrets/redis-password\"");
    fleet_ca: Option<PathBuf> = None, Restart,
        "A file of CAs in PEM that are trusted for the engine in place of those of the system.",
        "hosted engines have a certificate of a CA that systems know" (eg "\"/etc/reflex-edge/redis-ca.crt\"");
    fleet_cert: Option<PathBuf> = None, Restart,
        "The file of the daemon's own certificate in PEM, for an engine that asks for one.",
        "most engines ask for a password" (eg "\"/etc/reflex-edge/redis.crt\"");
    fleet_key: Option<PathBuf> = None, Restart,
        "The file of its private key in PEM, not encrypted.",
        "belongs to `fleet_cert`" (eg "\"/etc/reflex-edge/redis.key\"");
    fleet_prefix: String = "reflex".into(), Restart,
        "What all names in the engine begin with, for its access rules and its operators. Daemons with another prefix are another fleet.",
        "tells whose they are";
    fleet_wait_max: Wait = Span(Duration::from_millis(20)), Restart,
        "How long a lookup in the fleet may take; then the provider is asked. An answer that comes later is kept for the next request.",
        "an engine in the same region answers in a millisecond, a provider in a second";
    fleet_unheard_max: Wait = seconds(60), Restart,
        "For how long the cache is believed without news of the other daemons' purges. After that, answers from before are misses, and only those of this last time are hits.",
        "a minute of trouble costs no hits, and no purge takes longer than this";
    disk_max (was "disk_bytes_max"): Bytes = Size(CacheOptions::default().disk_bytes_max), Restart,
        "The most that the store occupies; the oldest answers without hits make room.",
        "a million answers of 4 KiB, and small enough for the system disk of an edge node";
    entries_max: Option<Count> = None, Restart,
        "The most answers that are kept, of any size; each takes some 100 bytes of memory. Default: one for each 2 KiB of `disk_max`, at least 1048576.",
        "answers are longer than 2 KiB as a rule; memory stays below a twentieth of the disk" (eg "2000000");
    durability: Word<DurabilityMode> = Word::first(DurabilityMode::Interval), Restart,
        "When an answer survives a loss of power: after a second or 8 MiB; `\"every-insert\"`, before the insert returns; `\"os\"`, when the system writes it. It always survives the end of the program, except for the last moments before a kill.",
        "a provider can be asked again for a second's answers";
    entry_size_max (was "entry_bytes_max"): Bytes = Size(CacheOptions::default().entry_bytes_max), Restart,
        "The longest answer that is kept, and the longest event of a stream; in a batch of embeddings, the longest answer to one text (the whole may have 64 MiB).",
        "longer than any text that a model writes; generated images fit";
    request_size_max (was "request_bytes_max"): Size<1, { 64 << 20 }> = Size(REQUEST_BYTES_MAX), Reload,
        "The longest request that is looked at; longer ones stream through.",
        "longer requests are rarely repeated, and every byte is read and hashed";
    inflight_max (was "inflight_bytes_max"): Bytes = Size(INFLIGHT_BYTES_MAX), Restart,
        "The most that all requests together hold in memory: request bodies, held so that they can be sent again; answers that are recorded, read by a component, put together of a batch, or have several readers; the incomplete event of a recorded stream; bodies of `PUT`s of the edge API. Past it, requests pass through without the cache (`memory`). The memory of components comes on top: at most `instances_max` times `guest_memory_max`, and in practice some MiB for each request that waits for the provider's first byte.",
        "sixteen of the longest answers that are kept, or a few hundred of the longest requests";
    l1_max (was "l1_bytes_max"): Size<0, { u64::MAX }> = Size(L1_BYTES_MAX), Reload,
        "Memory for requests that were hits, as they were sent, credentials excepted: a repeated one is recognised by its bytes instead of being read anew. One over a sixteenth of it is not kept. In memory only (a core dump of the process has them), and a purge drops them as well; 0: none.",
        "some 30,000 requests of a kilobyte or two";
    anonymous: Word<AnonymousMode> = Word::first(AnonymousMode::Bypass), Reload,
        "Requests without a credential pass by, or share one set of answers.",
        "without a credential, nothing tells one client from another";
    tenant_header: Option<String> = None, Reload,
        "A header, in lower case, that names the tenant. Set it only behind a gateway that clients cannot go around. Headers that HTTP removes or rewrites on the way, such as `host`, `connection` or `te`, are refused.",
        "clients can send any header" (eg "\"x-team\"");
    tenant_from: Word<TenantFrom> = Word::first(TenantFrom::Credential), Restart,
        "What names the tenant: the credential (or `tenant_header`), or `\"client-certificate\"`, the name in the client's certificate. That is its first URI, written `uri:spiffe://cluster/team`, else its first DNS name, `dns:team.internal`, else its common name, `cn:team`. A client whose certificate has none of them cannot connect. Needs `tls_client_ca`.",
        "each client of a provider has a credential" (eg "\"client-certificate\"");
    allow_length: bool = false, Reload,
        "Keep answers that ran into the client's token limit.",
        "a truncated answer is rarely the one that is wanted again";
    instances_max: Whole<1, INSTANCES_MAX> = Whole(u64::from(GuestLimits::default().instances_max)), Reload,
        "Instances of the component at once.",
        "as many requests wait for the provider's first byte on a busy node";
    guest_memory_max (was "guest_memory_bytes_max"): Size<1, GUEST_MEMORY_BYTES_MAX> = Size(GuestLimits::default().memory_bytes_max as u64), Reload,
        "Memory of one instance. The built-in component begins with one MiB and takes the length of a request on top, and less than another MiB for reading it.",
        "room for the longest request, many times over";
    guest_time_max (was "guest_milliseconds_max"): Wait = Span(GuestLimits::default().guest_time_max), Reload,
        "CPU time of the component for one request, waits not counted; past it, the request goes to the provider without the component.",
        "a thousand times what the built-in component takes";
    connections_max: Connections = Whole(NetLimits::default().connections_max as u64), Restart,
        "Connections of clients at once. When all are taken, the connection without a request for longest closes for the next client; if all have requests, further clients wait.",
        "more than most systems let a process open without a change of limits";
    tls_handshake_max: Wait = Span(NetLimits::default().tls_handshake_max), Restart,
        "How long a client may take to agree on TLS, counted from connecting.",
        "two round trips of slow networks, a lost packet included";
    header_read_max (was "header_read_seconds_max"): Wait = Span(NetLimits::default().header_read_max), Restart,
        "How long a client may take for a request's head: for the first request counted from connecting, then from the first byte of each. An HTTP/2 client has as long to answer a ping.",
        "slow networks need seconds, attackers want hours";
    keep_alive_max (was "keep_alive_seconds_max"): Wait = Span(NetLimits::default().keep_alive_max), Restart,
        "How long a connection is kept without a request. Load balancers in front should close theirs earlier.",
        "longer than those of AWS (60 s, 350 s), Azure (240 s) and Google (600 s), which would otherwise send requests to a connection that closes";
    idle_max (was "idle_seconds_max"): Wait = Span(NetLimits::default().idle_max), Restart,
        "The longest pause within a body in either direction, also when a client does not read, and the longest silence of a tunnel.",
        "the SDKs' own default: the client gives up first";
    request_time_max (was "request_seconds_max"): Wait = Span(NetLimits::default().request_max), Reload,
        "How long a client may take to send a whole request, from when its head is there: a client that sends a byte now and then is cut.",
        "512 MB, the largest upload that providers take in one request, at 150 KB/s";
    connect_max (was "connect_seconds_max"): Wait = Span(NetLimits::default().connect_max), Reload,
        "How long connecting to the provider may take: its name, TCP, a proxy, TLS and the greeting of HTTP/2.",
        "three lost packets and a retry";
    response_max (was "response_seconds_max"): Wait = Span(NetLimits::default().response_max), Reload,
        "How long the provider may take to begin its answer.",
        "the SDKs' own default: the client gives up first";
    drain_max (was "drain_seconds_max"): Wait = Span(NetLimits::default().drain_max), Restart,
        "How long running requests and tunnels may go on after SIGTERM; connections without one have 5 s of it.",
        "what Kubernetes waits before it kills";
}
