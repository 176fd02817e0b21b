//! Embedding: the examples of `reflex-host` work with real guests, and so do the
//! interfaces without an example.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reflex_host::clock::Clock;
use reflex_host::component::{
    Decision, GuestLimits, PolicyGuest, Question, ReflexCtxView, add_keyvalue_to_linker,
};
use reflex_host::exchange::Lifetimes;
use reflex_host::grant::{Grant, ReflexCtx, Refusal};
use reflex_host::{Cache, Key, Tenant};
use reflex_tests::edge::binary;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use tokio::process::Command;
use wasmtime::component::{Component, Linker, ResourceTable, bindgen};
use wasmtime::{Engine, Store};

/// What an example prints, line by line. Cargo leaves examples beside the binary.
async fn example(name: &str, arguments: &[&str]) -> Vec<String> {
    let folder = binary().parent().expect("a folder").join("examples");
    let program: PathBuf = folder.join(name);
    let mut command = Command::new(&program);
    let running = command.args(arguments).kill_on_drop(true).output();
    let output = within("the end of an example", running).await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{name}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_smallest_embedding_keeps_its_answers_across_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = env!("REFLEX_TEST_APP_WASM");
    let dir = folder.path().to_str().expect("text");
    let check = async |prompt, expected: &str| {
        assert_eq!(example("minimal", &[app, dir, prompt]).await, [expected]);
    };
    check("abc", "cba (new)").await;
    check("abc", "cba (cached)").await;
    check("abd", "dba (new)").await;
}

#[test]
fn the_smallest_embedding_is_small() {
    let text = include_str!("../../host/examples/minimal.rs");
    assert!(text.lines().count() < 60);
}

#[tokio::test]
async fn a_policy_guest_decides_about_prompts() {
    let policy = env!("REFLEX_POLICY_WASM");
    let lines = example("policy", &[policy, "abc", "abc", "abd"]).await;
    let expected = [
        "abc: asked, kept cba",
        "abc: served cba",
        "abd: asked, kept dba",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_guest_that_knows_nothing_of_a_cache_is_answered_from_it() {
    let upstream = Upstream::start().await;
    let url = upstream.url();
    let authority = url
        .strip_prefix("http://")
        .expect("http")
        .trim_end_matches('/');
    let caller = env!("REFLEX_TEST_CALLER_WASM");
    let lines = example("transparent", &[caller, authority, "hi", "hi", "ho"]).await;
    let sent: Vec<_> = lines.iter().map(|line| line.rsplit(", ").next()).collect();
    assert_eq!(
        sent,
        [Some("1 sent"), Some("1 sent"), Some("2 sent")],
        "{lines:?}"
    );
    assert_eq!(
        lines[0].replace("1 sent", ""),
        lines[1].replace("1 sent", "")
    );
    assert!(lines[0].starts_with("hi: 200, "), "{lines:?}");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn a_middleware_of_ones_own_stands_around_ours() {
    let own = env!("REFLEX_TEST_OWN_WASM");
    let path = "/v1/chat/completions";
    let lines = example("middleware", &[own, path, path, "/other"]).await;
    let bytes = lines[1].rsplit(", ").next().expect("a length");
    let expected = [
        "asked: http://provider.test/v1/chat/completions".to_owned(),
        format!("{path}: 200 OK, MISS, own yes, {bytes}"),
        format!("{path}: 200 OK, HIT_L1_EXACT, own yes, {bytes}"),
        "/other: 404 Not Found, -, own -, 8 bytes".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_service_of_wasi_02_stands_behind_the_middleware() {
    let folder = tempfile::tempdir().expect("a folder");
    let middleware = folder.path().join("middleware.wasm");
    std::fs::write(&middleware, reflex_host::serve::MIDDLEWARE).expect("written");
    let service = env!("REFLEX_TEST_ORIGIN02_WASM");
    let middleware = middleware.to_str().expect("text");
    let lines = example("service02", &[middleware, service, "hi", "hi", "ho"]).await;
    let bytes = lines[0].rsplit(", ").next().expect("a length");
    let expected = [
        format!("hi: 200 OK, MISS, {bytes}"),
        format!("hi: 200 OK, HIT_L1_EXACT, {bytes}"),
        format!("ho: 200 OK, MISS, {bytes}"),
    ];
    assert_eq!(lines, expected);
}

fn policy(ctx: ReflexCtx) -> PolicyGuest {
    let component = std::fs::read(env!("REFLEX_POLICY_WASM")).expect("the guest is built");
    PolicyGuest::new(&component, ctx, GuestLimits::default()).expect("it fits")
}

fn chat(credential: Option<&str>, body: &'static str) -> Question {
    let header = credential.map(|it| ("authorization".to_owned(), it.as_bytes().to_vec()));
    Question::request(
        "POST",
        "https://api.test",
        "/v1/chat/completions",
        header.into_iter().collect(),
        body.as_bytes(),
    )
}

#[test]
fn a_policy_guest_decides_about_requests_as_llm_does() {
    let cache = Cache::builder("").in_memory();
    let policy = policy(cache.granted(Grant::new("policy")));
    let body = r#"{"model":"m","messages":[]}"#;
    let decide = |question| policy.decide(question).expect("no trap");
    let Decision::Ask(asking) = decide(chat(Some("Bearer a"), body)) else {
        panic!("nothing is cached yet");
    };
    policy.keep(&asking, b"meta", b"answer").expect("room");
    // Spelled differently, the same request.
    let again = decide(chat(
        Some("Bearer a"),
        r#"{ "messages": [], "model": "m" }"#,
    ));
    let Decision::Serve(entry) = again else {
        panic!("{again:?}");
    };
    assert_eq!(
        (entry.metadata(), &entry.payload()[..]),
        (&b"meta"[..], &b"answer"[..])
    );
    assert!(matches!(
        decide(chat(Some("Bearer b"), body)),
        Decision::Ask(_)
    ));
    let check = |question, reason: &str| match decide(question) {
        Decision::Pass(said) => assert_eq!(said, reason),
        other => panic!("{other:?}"),
    };
    check(chat(None, body), "no-credential");
    check(chat(Some("Bearer a"), "{"), "not-json");
}

#[test]
fn a_policy_guest_may_be_asked_by_many_threads() {
    let cache = Cache::builder("").in_memory();
    let tenant = Tenant::of_group("threads");
    let policy = policy(cache.granted(Grant::new("policy").for_tenant(tenant)));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let policy = &policy;
            scope.spawn(move || {
                for number in 0..100 {
                    let prompt = format!("{thread} {number}");
                    let ask = || policy.decide(Question::prompt(tenant, &*prompt));
                    match ask().expect("no trap") {
                        Decision::Ask(asking) => policy.keep(&asking, b"", prompt.as_bytes()),
                        other => panic!("{other:?}"),
                    }
                    .expect("room");
                    match ask().expect("no trap") {
                        Decision::Serve(entry) => assert_eq!(entry.payload(), prompt),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
}

bindgen!({
    inline: "
        package example:kv;

        world kv {
            export count: func(bucket: string, key: string) -> result<u64, string>;
            export forget: func(bucket: string, key: string) -> result<bool, string>;
            export keys: func(bucket: string) -> result<list<string>, string>;
        }
    ",
});

struct KvHost {
    reflex: ReflexCtx,
    table: ResourceTable,
}

/// A guest of `wasi:keyvalue` with this grant.
struct Counter {
    store: Store<KvHost>,
    kv: Kv,
}

impl Counter {
    fn new(cache: &Cache, grant: Grant) -> Self {
        let engine = Engine::default();
        let bytes = include_bytes!(env!("REFLEX_TEST_KV_WASM"));
        let component = Component::from_binary(&engine, bytes).expect("a component");
        let mut linker = Linker::<KvHost>::new(&engine);
        add_keyvalue_to_linker(&mut linker, |host| ReflexCtxView {
            ctx: &host.reflex,
            table: &mut host.table,
        })
        .expect("it is new");
        let host = KvHost {
            reflex: cache.granted(grant),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&engine, host);
        let kv = Kv::instantiate(&mut store, &component, &linker).expect("it fits");
        Self { store, kv }
    }

    fn count(&mut self, bucket: &str, key: &str) -> Result<u64, String> {
        let counted = self.kv.call_count(&mut self.store, bucket, key);
        counted.expect("no trap")
    }

    fn forget(&mut self, bucket: &str, key: &str) -> Result<bool, String> {
        let forgotten = self.kv.call_forget(&mut self.store, bucket, key);
        forgotten.expect("no trap")
    }
}

#[test]
fn a_guest_of_wasi_keyvalue_has_buckets_of_its_own() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now);
    let cache = Cache::builder("")
        .clock(Clock::from_fn(move || clock.load(Ordering::Relaxed)))
        .in_memory();
    let alice = Grant {
        lifetimes: Arc::new(Lifetimes {
            usual: Some(Duration::from_secs(60)),
            ..Lifetimes::default()
        }),
        ..Grant::new("kv").for_tenant(Tenant::of_group("alice"))
    };
    let mut alices = Counter::new(&cache, alice.clone());
    let mut bobs = Counter::new(&cache, Grant::new("kv").for_tenant(Tenant::of_group("bob")));
    let mut others = Counter::new(&cache, Grant::new("other"));
    for expected in 1..=3 {
        assert_eq!(alices.count("b", "k"), Ok(expected));
    }
    assert_eq!(alices.count("c", "k"), Ok(1));
    assert_eq!(alices.count("b", "l"), Ok(1));
    assert_eq!(bobs.count("b", "k"), Ok(1));
    assert_eq!(others.count("b", "k"), Ok(1));
    // Another instance of the same component.
    assert_eq!(Counter::new(&cache, alice.clone()).count("b", "k"), Ok(4));

    assert_eq!(alices.forget("b", "k"), Ok(true));
    assert_eq!(alices.forget("b", "k"), Ok(false));
    assert_eq!(alices.count("b", "k"), Ok(1));
    now.fetch_add(60_000, Ordering::Relaxed);
    assert_eq!(alices.count("c", "k"), Ok(1));
    assert_eq!(bobs.count("b", "k"), Ok(2));

    let keys = alices
        .kv
        .call_keys(&mut alices.store, "b")
        .expect("no trap");
    assert!(keys.is_err_and(|text| text.contains("hashes")));
    let long = "x".repeat(256);
    assert_eq!(alices.count(&long, "k"), Err("no such store".into()));
    let mut reads = Counter::new(&cache, alice.read_only());
    assert_eq!(reads.count("b", "k"), Err("access denied".into()));
    assert_eq!(reads.forget("b", "k"), Err("access denied".into()));
    let allowance = &reads.store.data().reflex.grant.allowance;
    assert_eq!(allowance.refused(Refusal::ReadOnly), 2);
}

/// A component finds a prompt that a native program stored, and the reverse.
#[test]
fn native_and_guest_share_keys() {
    let cache = Cache::builder("").namespace("shared").in_memory();
    let tenant = Tenant::of_group("both");
    let policy = policy(cache.granted(Grant::new("shared").for_tenant(tenant)));
    let key = Key::for_prompt(&tenant, "hello");
    cache.insert(&key, "native").expect("room");
    match policy
        .decide(Question::prompt(tenant, "hello"))
        .expect("no trap")
    {
        Decision::Serve(entry) => assert_eq!(entry.payload(), "native"),
        other => panic!("{other:?}"),
    }
    match policy
        .decide(Question::prompt(tenant, "other"))
        .expect("no trap")
    {
        Decision::Ask(asking) => policy.keep(&asking, b"", b"guest").expect("room"),
        other => panic!("{other:?}"),
    }
    let entry = cache.lookup(&Key::for_prompt(&tenant, "other"));
    assert_eq!(entry.expect("it was kept").payload(), "guest");
}
