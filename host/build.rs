//! Builds the middleware component that the binary carries. Only a daemon that runs components needs it, so
//! without feature `middleware` this does nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without any such line cargo would run this again whenever a file of the package changes.
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "middleware")]
    reflex_guest_build::embed("reflex-middleware", "REFLEX_MIDDLEWARE_WASM")?;
    Ok(())
}
