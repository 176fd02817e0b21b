//! Builds the guests of the tests. Some misbehave on request, one only classifies, one uses the cache.
//! One is a service to compose with. A service and a caller are of WASI 0.2. The others are those of
//! the examples of `reflex-host`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    // Some are built around the middleware, so a change there changes them.
    println!("cargo::rerun-if-changed=../guest/middleware/src");
    reflex_guest_build::embed("reflex-test-guest", "REFLEX_TEST_GUEST_WASM")?;
    reflex_guest_build::embed("reflex-test-classify", "REFLEX_TEST_CLASSIFY_WASM")?;
    println!("cargo::rerun-if-changed=guests/ask/wit");
    println!("cargo::rerun-if-changed=../guest/keyvalue/wit");
    reflex_guest_build::embed("reflex-keyvalue", "REFLEX_KEYVALUE_WASM")?;
    reflex_guest_build::embed("reflex-test-ask", "REFLEX_TEST_ASK_WASM")?;
    reflex_guest_build::embed("reflex-test-origin", "REFLEX_TEST_ORIGIN_WASM")?;
    println!("cargo::rerun-if-changed=wit");
    reflex_guest_build::embed("reflex-test-origin02", "REFLEX_TEST_ORIGIN02_WASM")?;
    reflex_guest_build::embed("reflex-test-caller02", "REFLEX_TEST_CALLER02_WASM")?;
    reflex_guest_build::embed("reflex-policy", "REFLEX_POLICY_WASM")?;
    reflex_guest_build::embed("reflex-test-app", "REFLEX_TEST_APP_WASM")?;
    reflex_guest_build::embed("reflex-test-caller", "REFLEX_TEST_CALLER_WASM")?;
    reflex_guest_build::embed("reflex-test-kv", "REFLEX_TEST_KV_WASM")?;
    reflex_guest_build::embed("reflex-test-rogue", "REFLEX_TEST_ROGUE_WASM")?;
    reflex_guest_build::embed("reflex-test-unruly", "REFLEX_TEST_UNRULY_WASM")?;
    reflex_guest_build::embed("reflex-test-own", "REFLEX_TEST_OWN_WASM")?;
    Ok(())
}
