//! Imports run one way. Read from the source itself, so that the picture in `ARCHITECTURE.md` cannot
//! drift from the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, Item, UseTree, Visibility};

/// The storeys of the host, from the top down: a module imports from its own storey and from those
/// below.
const STOREYS: [&str; 11] = [
    "main",
    "cli",
    "cassette",
    "serve",
    "fleet",
    "component",
    "exchange",
    "grant",
    "embed",
    "cache",
    "store",
];

/// A module by its path in its crate, such as `cache::queue`. The crate's root is empty.
type Module = Vec<String>;

/// What each module of a crate takes from others.
#[derive(Default)]
struct House {
    modules: BTreeSet<Module>,
    /// Names that a module re-exports, and where they come from.
    handed_on: BTreeMap<Module, Module>,
    /// From, to, and one of the names.
    imports: BTreeMap<(Module, Module), String>,
}

impl House {
    /// Reads a crate's `src` folder.
    fn read(source: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(source);
        let files = rust_files(&root);
        assert!(files.len() >= 10, "{source} has moved");
        let mut house = Self::default();
        let parsed: Vec<(Module, syn::File)> = files
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(&path).expect("a readable file");
                let parsed = syn::parse_file(&text);
                let file = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                (module_of(&root, &path), file)
            })
            .collect();
        house.modules = parsed.iter().map(|(module, _)| module.clone()).collect();
        let mut taken = Vec::new();
        for (module, file) in &parsed {
            // Tests may look at everything.
            if !module.iter().any(|name| name == "tests") {
                house.take(module, module, &file.items, &mut taken);
            }
        }
        for (from, path) in taken {
            let Some(to) = house.home(&path, 0) else {
                continue;
            };
            let name = path.last().cloned().unwrap_or_default();
            if from != to {
                house.imports.entry((from, to)).or_insert(name);
            }
        }
        house
    }

    /// Notes the imports of these items, which stand in `place` in the file of `module`.
    fn take(
        &mut self,
        module: &Module,
        place: &Module,
        items: &[Item],
        taken: &mut Vec<(Module, Module)>,
    ) {
        for item in items {
            match item {
                Item::Use(import) if !is_for_tests(&import.attrs) => {
                    let mut leaves = Vec::new();
                    flatten(&import.tree, &mut Vec::new(), &mut leaves);
                    for (path, name) in leaves {
                        let Some(path) = self.absolute(place, &path) else {
                            continue;
                        };
                        match import.vis {
                            Visibility::Inherited => taken.push((module.clone(), path)),
                            // A re-export is imported by the module that takes it.
                            _ => {
                                let mut handed = place.clone();
                                handed.push(name);
                                self.handed_on.insert(handed, path);
                            }
                        }
                    }
                }
                Item::Mod(inner) if !is_for_tests(&inner.attrs) => {
                    if let Some((_, items)) = &inner.content {
                        let mut place = place.clone();
                        place.push(inner.ident.to_string());
                        self.take(module, &place, items, taken);
                    }
                }
                _ => {}
            }
        }
    }

    /// The path from the crate's root; none for a path of another crate.
    fn absolute(&self, place: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([place.as_slice(), rest].concat()),
            "super" => {
                let (_, parent) = place.split_last()?;
                let ups = rest.iter().take_while(|name| *name == "super").count();
                let kept = parent.len().checked_sub(ups)?;
                Some([&parent[..kept], &rest[ups..]].concat())
            }
            child => {
                let mut module = place.clone();
                module.push(child.to_owned());
                let is_own = self.modules.contains(&module);
                is_own.then(|| [place.as_slice(), path].concat())
            }
        }
    }

    /// The file in which a name is defined.
    fn home(&self, path: &[String], depth: usize) -> Option<Module> {
        assert!(depth < 16, "{path:?} is handed on in a circle");
        (1..=path.len()).rev().find_map(|length| {
            let (known, rest) = path.split_at(length);
            // A module and what it is named after may have one name, as `inspect::inspect`.
            if let Some(module) = self.modules.get(known) {
                return Some(module.clone());
            }
            let origin = self.handed_on.get(known)?;
            self.home(&[origin.as_slice(), rest].concat(), depth + 1)
        })
    }

    /// Imports from a lower storey to a higher one.
    fn upward(&self) -> Vec<String> {
        let storey = |module: &Module| {
            let top = module.first()?;
            STOREYS.iter().position(|name| name == top)
        };
        let is_upward = |(from, to): &(&Module, &Module)| matches!((storey(from), storey(to)), (Some(from), Some(to)) if from > to);
        let arrows = self
            .imports
            .iter()
            .map(|((from, to), name)| ((from, to), name));
        arrows
            .filter(|(arrow, _)| is_upward(arrow))
            .map(|((from, to), name)| arrow(from, to, name))
            .collect()
    }

    /// Modules that import each other in a loop, a line for each import in it. A module and its own
    /// parts are one thing.
    fn circles(&self) -> Vec<String> {
        let is_part =
            |(one, other): &(&Module, &Module)| one.starts_with(other) || other.starts_with(one);
        let arrows: BTreeSet<(&Module, &Module)> = self
            .imports
            .keys()
            .map(|(from, to)| (from, to))
            .filter(|arrow| !is_part(arrow))
            .collect();
        let reaches = |from: &Module, to: &Module| {
            let mut seen = BTreeSet::new();
            let mut next = vec![from];
            while let Some(module) = next.pop() {
                if module == to {
                    return true;
                }
                if seen.insert(module) {
                    let onward = arrows.iter().filter(|(from, _)| *from == module);
                    next.extend(onward.map(|(_, to)| *to));
                }
            }
            false
        };
        let in_circle = arrows.iter().filter(|(from, to)| reaches(to, from));
        in_circle
            .map(|&(from, to)| arrow(from, to, &self.imports[&(from.clone(), to.clone())]))
            .collect()
    }
}

fn arrow(from: &Module, to: &Module, name: &str) -> String {
    format!("{} takes {name} from {}", from.join("::"), to.join("::"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn module_of(root: &Path, file: &Path) -> Module {
    let path = file
        .strip_prefix(root)
        .expect("a path in the crate")
        .with_extension("");
    let names = path.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "lib").collect()
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

/// Each name of an import: its path, and what it is called here.
fn flatten(tree: &UseTree, path: &mut Module, leaves: &mut Vec<(Module, String)>) {
    let mut leaf = |name: &syn::Ident, called: &syn::Ident| {
        let mut path = path.clone();
        if name != "self" {
            path.push(name.to_string());
        }
        leaves.push((path, called.to_string()));
    };
    match tree {
        UseTree::Name(it) => leaf(&it.ident, &it.ident),
        UseTree::Rename(it) => leaf(&it.ident, &it.rename),
        UseTree::Glob(_) => leaves.push((path.clone(), "*".to_owned())),
        UseTree::Path(it) => {
            path.push(it.ident.to_string());
            flatten(&it.tree, path, leaves);
            path.pop();
        }
        UseTree::Group(it) => {
            for tree in &it.items {
                flatten(tree, path, leaves);
            }
        }
    }
}

#[test]
fn imports_run_one_way() {
    let none: [&str; 0] = [];
    for source in [
        "host/src",
        "llm/src",
        "envoy/core/src",
        "envoy/native/src",
        "envoy/wasm/src",
    ] {
        let house = House::read(source);
        assert_eq!(
            house.circles(),
            none,
            "{source}: modules that import each other"
        );
        assert_eq!(house.upward(), none, "{source}: imports from below");
    }
}

/// The reader finds upward imports and circles.
#[test]
fn a_circle_and_an_upward_import_are_seen() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let mut house = House::default();
    for (from, to) in [
        ("cache::queue", "cache::writer"),
        ("cache::writer", "cache::queue"),
        ("cache", "cache::queue"),
        ("cache::queue", "cache"),
        ("store", "serve::proxy"),
    ] {
        house.imports.insert((module(from), module(to)), "X".into());
    }
    assert_eq!(
        house.circles(),
        [
            "cache::queue takes X from cache::writer",
            "cache::writer takes X from cache::queue",
        ]
    );
    assert_eq!(house.upward(), ["store takes X from serve::proxy"]);
}
