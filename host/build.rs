//! Builds the middleware component that the binary carries. Only the daemon needs it, so
//! without feature `serve` this does nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without any such line cargo would run this again whenever a file of the package changes.
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "serve")]
    reflex_guest_build::embed("reflex-middleware", "REFLEX_MIDDLEWARE_WASM")?;
    Ok(())
}
