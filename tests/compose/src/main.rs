//! The tests' work with components and WIT packages, by the libraries of the usual tools
//! (`wac`, `wkg`, `wit-bindgen`, `wasm-tools`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage:
  reflex-compose plug SOCKET.wasm PLUG.wasm OUT.wasm      as `wac plug` does
  reflex-compose wit FOLDER OUT.wasm                      as `wkg build` does
  reflex-compose c FOLDER WORLD OUT-FOLDER                as `wit-bindgen c` does
  reflex-compose new CORE.wasm OUT.wasm                   as `wasm-tools component new` does";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reflex-compose: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["plug", socket, plug, out] => write(out, &plugged(socket, plug)?),
        ["wit", folder, out] => write(out, &package(Path::new(folder))?),
        ["c", folder, world, out] => bindings(Path::new(folder), world, Path::new(out)),
        ["new", core, out] => write(out, &component(core)?),
        _ => bail!(USAGE),
    }
}

/// The component `socket`, whose imports are what the component `plug` exports.
fn plugged(socket: &str, plug: &str) -> Result<Vec<u8>> {
    use wac_graph::types::Package;
    use wac_graph::{CompositionGraph, EncodeOptions};

    let mut graph = CompositionGraph::new();
    let mut register = |name: &str, file: &str| {
        let package = Package::from_file(name, None, file, graph.types_mut())
            .with_context(|| format!("{file} is not a component"))?;
        graph.register_package(package).map_err(anyhow::Error::from)
    };
    let socket = register("reflex:socket", socket)?;
    let plug = register("reflex:plug", plug)?;
    wac_graph::plug(&mut graph, vec![plug], socket)?;
    Ok(graph.encode(EncodeOptions::default())?)
}

/// The WIT package in `folder`, with all that it is made of, in its binary form.
fn package(folder: &Path) -> Result<Vec<u8>> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(folder)?;
    let bytes = wit_component::encode(&resolve, package)?;
    // A package that cannot be read back is invalid.
    wit_component::decode(&bytes)?;
    Ok(bytes)
}

/// Bindings for C, as a header, a source file and an object file that describes the world.
fn bindings(folder: &Path, world: &str, out: &Path) -> Result<()> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(folder)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut generator = wit_bindgen_c::Opts::default().build();
    let mut files = wit_bindgen_core::Files::default();
    wit_bindgen_core::WorldGenerator::generate(&mut *generator, &mut resolve, world, &mut files)?;
    fs::create_dir_all(out)?;
    for (name, contents) in files.iter() {
        let file: PathBuf = out.join(name);
        fs::write(&file, contents)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// The component that a core module describes itself to be.
fn component(core: &str) -> Result<Vec<u8>> {
    let module = fs::read(core).with_context(|| format!("{core} cannot be read"))?;
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .encode()
}

fn write(out: &str, bytes: &[u8]) -> Result<()> {
    fs::write(out, bytes).with_context(|| format!("{out} cannot be written"))
}
