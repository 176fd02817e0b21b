//! Builds the guests of the tests: one that misbehaves on request, one that only classifies, one
//! that asks the cache, and a service to be composed with.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    // The first is the middleware with a switch, so a change there is a change of it.
    println!("cargo::rerun-if-changed=../guest/middleware/src");
    reflex_guest_build::embed("reflex-test-guest", "REFLEX_TEST_GUEST_WASM")?;
    reflex_guest_build::embed("reflex-test-classify", "REFLEX_TEST_CLASSIFY_WASM")?;
    println!("cargo::rerun-if-changed=guests/ask/wit");
    println!("cargo::rerun-if-changed=../guest/keyvalue/wit");
    reflex_guest_build::embed("reflex-keyvalue", "REFLEX_KEYVALUE_WASM")?;
    reflex_guest_build::embed("reflex-test-ask", "REFLEX_TEST_ASK_WASM")?;
    reflex_guest_build::embed("reflex-test-origin", "REFLEX_TEST_ORIGIN_WASM")?;
    Ok(())
}
