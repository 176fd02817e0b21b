//! Builds the middleware component that the binary carries. Only a daemon that runs components needs it, so
//! without feature `middleware` this does nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without any such line cargo would run this again whenever a file of the package changes.
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "middleware")]
    embed("reflex-middleware", "REFLEX_MIDDLEWARE_WASM")?;
    Ok(())
}

/// Builds the component, or takes it from the package that this is compiled from: a package of a registry
/// has no guests to build.
#[cfg(feature = "middleware")]
fn embed(package: &str, variable: &str) -> Result<(), Box<dyn std::error::Error>> {
    let has_guests = reflex_guest_build::workspace().join("guest").is_dir();
    let packaged = std::env::current_dir()?.join(format!("{package}.wasm"));
    if has_guests || !packaged.is_file() {
        return Ok(reflex_guest_build::embed(package, variable)?);
    }
    println!("cargo::rustc-env={variable}={}", packaged.display());
    Ok(())
}
