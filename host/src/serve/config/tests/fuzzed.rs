//! Any file: it is taken or refused with reasons, and never ends the program. The files are those of the
//! documentation and the one that `config default` prints, changed at random, with seeds.

use super::*;
use crate::store::sim_disk::Random;
use std::fs;

/// Files that are tried, unless `REFLEX_CONFIG_FILES` says otherwise. They take a second or two.
const FILES: u64 = 5_000;

/// Changes of one file at most.
const CHANGES_MAX: u64 = 6;

/// What a file may have in the wrong place.
const PIECES: [&[u8]; 24] = [
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b"\xff",
    b"\"",
    b"'''",
    b"[[",
    b"]]",
    b"[",
    b"{",
    b"}",
    b"=",
    b" = ",
    b".",
    b",",
    b"#",
    b"*",
    b"-1",
    b"18446744073709551616",
    b"1e400",
    b"nan",
    "\u{202e}".as_bytes(),
    "é".as_bytes(),
];

/// Values of each form, good and bad, for any setting.
const VALUES: [&str; 22] = [
    "0",
    "1",
    "-1",
    "true",
    "\"\"",
    "\"0s\"",
    "\"1s\"",
    "\"999999w\"",
    "\"1h30m\"",
    "\"64MiB\"",
    "\"16EiB\"",
    "0.5",
    "inf",
    "[]",
    "[\"a\", 1]",
    "{}",
    "\"127.0.0.1:0\"",
    "\"[::1]:65536\"",
    "\"http://a b/\"",
    "\"https://u:p@h/p?q\"",
    "\"/no/such/file\"",
    "1979-05-27",
];

/// The blocks of TOML in the documentation, and the default file with its settings in force.
fn seeds() -> Vec<Vec<u8>> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let mut seeds = Vec::new();
    for entry in fs::read_dir(docs).expect("the documentation") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = fs::read_to_string(path).expect("a page");
        let blocks = page.split("```toml\n").skip(1);
        let blocks = blocks.filter_map(|block| block.split_once("```"));
        seeds.extend(blocks.map(|(block, _)| block.into()));
    }
    assert!(seeds.len() > 5, "blocks of TOML in {docs}");
    let default = default_file();
    let in_force = default.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.contains(" = ") => setting,
        _ => line
            .strip_prefix('#')
            .filter(|it| it.contains(" = "))
            .unwrap_or(line),
    });
    seeds.push(in_force.collect::<Vec<_>>().join("\n").into());
    seeds.push(default.into());
    seeds
}

fn any<'a, T: ?Sized>(random: &mut Random, of: &[&'a T]) -> &'a T {
    of[random.below(of.len() as u64) as usize]
}

fn any_place(random: &mut Random, text: &[u8]) -> usize {
    random.below(text.len() as u64 + 1) as usize
}

/// Changes a file in one place.
fn change(text: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    let at = any_place(random, text);
    let to = (at + random.below(40) as usize).min(text.len());
    match random.below(7) {
        0 => drop(text.drain(at..to)),
        1 => drop(text.splice(at..at, any(random, &PIECES).iter().copied())),
        2 if at < text.len() => text[at] ^= 1 << random.below(8),
        3 => text.extend_from_within(at..to),
        4 => {
            let other = &seeds[random.below(seeds.len() as u64) as usize];
            text.splice(at..at, other[..any_place(random, other)].iter().copied());
        }
        _ => {
            // A line of its own for some setting, under its present key or its earlier one.
            let setting = &SETTINGS[random.below(SETTINGS.len() as u64) as usize];
            let key = match random.below(4) {
                0 if !setting.old.is_empty() => setting.old,
                _ => setting.key,
            };
            let line = format!("{key} = {}\n", any(random, &VALUES));
            let start = text[..at].iter().rposition(|byte| *byte == b'\n');
            let start = start.map_or(0, |end| end + 1);
            text.splice(start..start, line.bytes());
        }
    }
}

fn check(text: &[u8]) -> Result<Config, Vec<ConfigError>> {
    let mut draft = Draft::default();
    draft.read("edge.toml", text.into());
    Config::of_checked(draft)
}

/// What holds of any file; whether it is a configuration.
fn try_file(text: &[u8], seed: u64) -> bool {
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let in_file = |error: &ConfigError| {
        assert!(error.line <= lines, "seed {seed}: {error} of {lines} lines");
        assert!(!error.message.is_empty(), "seed {seed}: {error:?}");
        assert!(
            !error.to_string().contains(['\n', '\r']),
            "seed {seed}: {error:?}"
        );
    };
    let with_a_mistake = check(&[b"no_setting_of_ours = 1\n", text].concat());
    let mistakes = with_a_mistake.expect_err("a key of no setting");
    match check(text) {
        Ok(config) => {
            config.warnings.iter().for_each(in_file);
            let again = check(text).expect("it was accepted");
            assert!(config.changes(&again).is_empty(), "seed {seed}");
            assert!(
                mistakes.iter().any(|error| error.line == 1),
                "seed {seed}: {mistakes:?}"
            );
            true
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "seed {seed}");
            errors.iter().for_each(in_file);
            false
        }
    }
}

#[test]
fn any_file_is_taken_or_refused_with_reasons() {
    let seeds = seeds();
    let files = std::env::var("REFLEX_CONFIG_FILES").map(|count| count.parse().expect("a number"));
    let files = files.unwrap_or(FILES);
    let mut taken = 0;
    for seed in 0..files {
        let mut random = Random(seed);
        let mut text = seeds[random.below(seeds.len() as u64) as usize].clone();
        for _ in 0..random.below(CHANGES_MAX + 1) {
            change(&mut text, &mut random, &seeds);
        }
        taken += u64::from(try_file(&text, seed));
    }
    // Both happen often, or the changes would be too small, or too great, to tell anything.
    assert!(
        (files / 20..files - files / 20).contains(&taken),
        "{taken} of {files}"
    );
}
