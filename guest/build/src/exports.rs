//! Takes exports out of a core module.

use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload};

/// The module without the exports of these names; everything else byte for byte.
///
/// # Errors
///
/// It is no core module.
pub(crate) fn hide(module: &[u8], hidden: &[&str]) -> Result<Vec<u8>, String> {
    let mut without = Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(|error| error.to_string())?;
        if let Payload::ExportSection(all) = payload {
            let mut exports = ExportSection::new();
            for export in all {
                let export = export.map_err(|error| error.to_string())?;
                if !hidden.contains(&export.name) {
                    exports.export(export.name, kind(export.kind)?, export.index);
                }
            }
            without.section(&exports);
        } else if let Some((id, range)) = payload.as_section() {
            let place = |at| usize::try_from(at).ok();
            let place = place(range.start).zip(place(range.end));
            let data = place.and_then(|(start, end)| module.get(start..end));
            let data = data.ok_or("a section that is not in it")?;
            without.section(&RawSection { id, data });
        }
    }
    Ok(without.finish())
}

fn kind(kind: ExternalKind) -> Result<ExportKind, String> {
    match kind {
        ExternalKind::Func => Ok(ExportKind::Func),
        ExternalKind::Table => Ok(ExportKind::Table),
        ExternalKind::Memory => Ok(ExportKind::Memory),
        ExternalKind::Global => Ok(ExportKind::Global),
        other => Err(format!("an export of the kind {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{CodeSection, Function, FunctionSection, TypeSection};

    /// A module with a function that it exports by each of these names.
    fn module(names: &[&str]) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut exports = ExportSection::new();
        for name in names {
            exports.export(name, ExportKind::Func, 0);
        }
        let mut code = CodeSection::new();
        let mut function = Function::new([]);
        function.instructions().end();
        code.function(&function);
        let mut module = Module::new();
        module.section(&types).section(&functions);
        module.section(&exports).section(&code);
        module.finish()
    }

    #[test]
    fn only_what_is_named_is_hidden() {
        let all = module(&["a", "proxy_on_done", "b"]);
        let hidden = ["proxy_on_done", "unknown"];
        assert_eq!(hide(&all, &hidden).as_deref(), Ok(&*module(&["a", "b"])));
        assert_eq!(hide(&all, &[]).as_deref(), Ok(&*all));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let whole = module(&["a"]);
        assert!(hide(b"", &[]).is_err());
        assert!(hide(&whole[..whole.len() - 1], &[]).is_err());
        assert!(hide(b"not wasm at all", &[]).is_err());
    }
}
