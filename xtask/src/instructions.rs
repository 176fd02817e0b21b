//! The instructions that hot paths take, counted by valgrind and compared with those on record.
//!
//! A count does not depend on how busy the machine is. It does depend on the compiler, the C library
//! (`memcpy`) and the features of the processor. The record names these, and where they differ the
//! margin is wider. Hash tables are seeded anew in each run, and
//! moka works by the clock: counts of gets differ by some percent, so a count that is too high is taken
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, anyhow, bail};
use reflex_skip::Skips;
use serde_json::{Map, Value, json};

use crate::debian::{self, Unpacked};
use crate::machine::any_in_path;
use crate::workspace::{cargo, say, step};

/// The record, from the root of the workspace.
const RECORD: &str = "docs/bench/instructions.json";

/// Margin by which a count may grow. Keys and recordings take the same count in each run.
const MARGIN_PERCENT: u64 = 5;

/// The same where compiler, C library or processor are not those of the record.
const MARGIN_ELSEWHERE_PERCENT: u64 = 25;

/// A count above the margin is repeated this often, and the least count is compared; the record has
/// the median.
const RUNS: usize = 5;

/// How to accept counts as they are now.
const RENEW: &str = "cargo xtask bench instructions --renew";

/// The package, and the profile that compiles it as shipped, whatever a developer's configuration
/// says.
const PACKAGE: &str = "reflex-instructions";
const PROFILE: &str = "counted";

/// What changes a count beside the code.
type Setting = BTreeMap<String, String>;

/// A count of one says nothing about another: a name in [`Setting`].
const ARCHITECTURE: &str = "architecture";

/// Instructions by case.
type Counts = BTreeMap<String, u64>;

/// `cargo xtask bench instructions`: counts, and compares with the record or makes it anew.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let renew = match arguments {
        [] => false,
        [flag] if flag == "--renew" => true,
        _ => bail!("`bench instructions` knows `--renew` only"),
    };
    let counter = Counter::build(Valgrind::find()?)?;
    if renew {
        let counts = counter.all(|name| counter.median(name))?;
        return write(&setting()?, &counts);
    }
    let (then, record) = read()?;
    let margin = margin(&then, &setting()?);
    let counts = counter.all(|name| counter.at_most(name, &record, margin))?;
    compare(&record, &counts, margin)
}

/// What `cargo xtask test` runs.
///
/// # Errors
///
/// A count is above the record by more than the margin, or a case has none. That valgrind cannot be
/// had is an error if skips are refused.
pub(crate) fn check(skips: Skips) -> Result<()> {
    const PART: &str = "instructions of the hot paths";
    let (then, record) = read()?;
    let now = setting()?;
    if then.get(ARCHITECTURE) != now.get(ARCHITECTURE) {
        // Nothing that can be installed: allowed wherever it is.
        let why = format!("{RECORD} is of {then:?}, and this is {now:?}");
        return Skips::Allowed.skip(PART, &why).map_err(Error::msg);
    }
    let valgrind = match Valgrind::find() {
        Ok(valgrind) => valgrind,
        Err(why) => return skips.skip(PART, &format!("{why:#}")).map_err(Error::msg),
    };
    let counter = Counter::build(valgrind)?;
    let margin = margin(&then, &now);
    let counts = counter.all(|name| counter.at_most(name, &record, margin))?;
    compare(&record, &counts, margin)
}

/// By how much a count may grow, in percent.
fn margin(then: &Setting, now: &Setting) -> u64 {
    if then == now {
        return MARGIN_PERCENT;
    }
    say(&format!(
        "{RECORD} is of {then:?}, and this is {now:?}: {MARGIN_ELSEWHERE_PERCENT} % are allowed"
    ));
    MARGIN_ELSEWHERE_PERCENT
}

/// Fails with each case that takes too much, has no record or is no more.
fn compare(record: &Counts, counts: &Counts, margin: u64) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, &now) in counts {
        let Some(&then) = record.get(name) else {
            wrong.push(format!("{name}: not in the record; {now} now"));
            continue;
        };
        let percent = (now as f64 / then as f64 - 1.0) * 100.0;
        let line = format!("{name}: {then} instructions, {now} now ({percent:+.1} %)");
        say(&line);
        if is_too_much(then, now, margin) {
            wrong.push(line);
        } else if is_too_much(now, then, margin) {
            say(&format!("fewer than on record: keep that by `{RENEW}`"));
        }
    }
    let gone = record.keys().filter(|name| !counts.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{name}: in the record, but no case any more")));
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "hot paths are not those of {RECORD}, or take over {margin} % more:\n  {}\nIf that is \
         meant, renew the record by `{RENEW}` and say in the commit's message what it buys",
        wrong.join("\n  ")
    )
}

fn is_too_much(then: u64, now: u64, margin: u64) -> bool {
    now * 100 > then * (100 + margin)
}

fn record_path() -> PathBuf {
    reflex_guest_build::workspace().join(RECORD)
}

fn read() -> Result<(Setting, Counts)> {
    let text = fs::read_to_string(record_path())
        .with_context(|| format!("{RECORD} cannot be read; `{RENEW}` makes it"))?;
    parse(&text).with_context(|| format!("{RECORD} is none; `{RENEW}` makes it"))
}

fn parse(text: &str) -> Result<(Setting, Counts)> {
    let value: Value = serde_json::from_str(text)?;
    let object = |name: &str| {
        let object = value.get(name).and_then(Value::as_object);
        object.ok_or_else(|| anyhow!("no `{name}`"))
    };
    let setting = object("setting")?.iter().map(|(name, value)| {
        let value = value.as_str().ok_or_else(|| anyhow!("{name} is no text"))?;
        Ok((name.clone(), value.to_owned()))
    });
    let counts = object("counts")?.iter().map(|(name, value)| {
        let count = value.as_u64().filter(|count| *count > 0);
        Ok((
            name.clone(),
            count.ok_or_else(|| anyhow!("{name} is no count"))?,
        ))
    });
    Ok((
        setting.collect::<Result<_>>()?,
        counts.collect::<Result<_>>()?,
    ))
}

fn write(setting: &Setting, counts: &Counts) -> Result<()> {
    let object = |pairs: Vec<(&String, Value)>| -> Value {
        let map: Map<String, Value> = pairs.into_iter().map(|(k, v)| (k.clone(), v)).collect();
        map.into()
    };
    let record = json!({
        "setting": object(setting.iter().map(|(k, v)| (k, json!(v))).collect()),
        "counts": object(counts.iter().map(|(k, v)| (k, json!(v))).collect()),
    });
    let path = record_path();
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    fs::write(&path, format!("{record:#}\n"))
        .with_context(|| format!("{RECORD} cannot be written"))?;
    for (name, count) in counts {
        say(&format!("{name}: {count} instructions"));
    }
    say(&format!("{RECORD} is renewed"));
    Ok(())
}

struct Valgrind {
    program: PathBuf,
    /// Where an unpacked one has its tools.
    tools: PathBuf,
}

impl Valgrind {
    /// The system's, or Debian's, unpacked.
    ///
    /// # Errors
    ///
    /// Neither can be found; the text says how to get one.
    fn find() -> Result<Self> {
        let folder = reflex_guest_build::target_dir().join("valgrind");
        let unpacked = if any_in_path(&["valgrind"]) {
            Unpacked { root: folder }
        } else {
            debian::unpack(&["valgrind"], &folder)?
        };
        Ok(Self {
            program: unpacked.program("valgrind")?,
            tools: unpacked.root.join("usr/libexec/valgrind"),
        })
    }
}

/// The program whose instructions are counted, and what counts them.
struct Counter {
    valgrind: Valgrind,
    program: PathBuf,
}

impl Counter {
    fn build(valgrind: Valgrind) -> Result<Self> {
        let build = ["build", "--profile", PROFILE, "-p", PACKAGE, "--locked"];
        // A developer's configuration may have compilation in small steps, which the profile cannot
        // refuse.
        step(cargo(&build).env("CARGO_INCREMENTAL", "0"))?;
        let program = reflex_guest_build::target_dir().join(PROFILE).join(PACKAGE);
        Ok(Self { valgrind, program })
    }

    /// The count of each case, by `count`.
    fn all(&self, count: impl Fn(&str) -> Result<u64>) -> Result<Counts> {
        let names = said(Command::new(&self.program))?;
        let counted = names.lines().map(|name| Ok((name.into(), count(name)?)));
        counted.collect()
    }

    /// A count that is within the margin, or else the least of some.
    fn at_most(&self, name: &str, record: &Counts, margin: u64) -> Result<u64> {
        let then = record.get(name).copied().unwrap_or_default();
        let mut least = self.count(name)?;
        for _ in 1..RUNS {
            if !is_too_much(then, least, margin) {
                break;
            }
            least = least.min(self.count(name)?);
        }
        Ok(least)
    }

    fn median(&self, name: &str) -> Result<u64> {
        let mut counts = (0..RUNS)
            .map(|_| self.count(name))
            .collect::<Result<Vec<_>>>()?;
        counts.sort_unstable();
        Ok(counts[RUNS / 2])
    }

    /// Instructions of one pass.
    fn count(&self, name: &str) -> Result<u64> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let out = folder.path().join("callgrind.out");
        let mut valgrind = Command::new(&self.valgrind.program);
        valgrind
            .args(["--quiet", "--tool=callgrind"])
            // Only within one pass, by the name of the function around it.
            .arg("--toggle-collect=*reflex_instructions*counted*")
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(&self.program)
            .arg(name);
        if self.valgrind.tools.exists() {
            valgrind.env("VALGRIND_LIB", &self.valgrind.tools);
        }
        let passes: u64 = said(valgrind)?.trim().parse().context("no number")?;
        let text = fs::read_to_string(&out).context("callgrind has written nothing")?;
        let total = total_in(&text).filter(|total| *total >= passes);
        let total = total.ok_or_else(|| anyhow!("callgrind has counted nothing of `{name}`"))?;
        Ok(total / passes)
    }
}

/// The line `totals: 4061455` of what callgrind writes.
fn total_in(text: &str) -> Option<u64> {
    let mut lines = text.lines().rev();
    lines.find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok())
}

/// What a program that ends well prints.
fn said(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({})", output.status);
    }
    String::from_utf8(output.stdout).context("no text")
}

fn setting() -> Result<Setting> {
    // The C library's version stands in the first line.
    let mut ldd = Command::new("ldd");
    ldd.arg("--version");
    let libc = said(ldd)?;
    let libc = libc
        .lines()
        .next()
        .and_then(|line| line.split(' ').next_back());
    let mut rustc = Command::new("rustc");
    rustc
        .arg("--version")
        .current_dir(reflex_guest_build::workspace());
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |feature: &str| flags.split_whitespace().any(|flag| flag == feature);
    // Valgrind offers a program none beyond these.
    let features: Vec<&str> = [
        "avx2",
        "bmi2",
        "fma",
        "pclmulqdq",
        "sse4_2",
        "erms",
        "movbe",
    ]
    .into_iter()
    .filter(|feature| has(feature))
    .collect();
    let setting = [
        ("compiler", said(rustc)?.trim().to_owned()),
        ("processor", features.join(" ")),
        (ARCHITECTURE, std::env::consts::ARCH.to_owned()),
        ("libc", libc.unwrap_or_default().to_owned()),
    ];
    Ok(setting.map(|(name, value)| (name.to_owned(), value)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        let pairs = pairs
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count));
        pairs.collect()
    }

    #[test]
    fn a_count_that_grows_beyond_the_margin_fails_and_says_how_to_renew_the_record() {
        let record = counts(&[("key", 1000), ("get", 100)]);
        let check = |now: &[(&str, u64)], wrong: Option<&str>| match (
            compare(&record, &counts(now), MARGIN_PERCENT),
            wrong,
        ) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => {
                let text = error.to_string();
                assert!(text.contains(part) && text.contains(RENEW), "{text}");
            }
            (result, _) => panic!("{now:?}: {result:?}"),
        };
        check(&[("key", 1000), ("get", 100)], None);
        check(&[("key", 1050), ("get", 105)], None);
        check(&[("key", 500), ("get", 1)], None);
        check(
            &[("key", 1051), ("get", 100)],
            Some("key: 1000 instructions, 1051 now (+5.1 %)"),
        );
        check(&[("key", 1000), ("get", 106)], Some("get: 100"));
        check(
            &[("key", 1000), ("get", 100), ("new", 5)],
            Some("new: not in the record"),
        );
        check(&[("key", 1000)], Some("get: in the record"));
    }

    #[test]
    fn what_is_not_of_the_record_may_grow_by_more() {
        let of = |libc: &str| Setting::from([("libc".to_owned(), libc.to_owned())]);
        assert_eq!(margin(&of("2.36"), &of("2.36")), MARGIN_PERCENT);
        assert_eq!(margin(&of("2.36"), &of("2.41")), MARGIN_ELSEWHERE_PERCENT);
    }

    #[test]
    fn the_record_is_read_as_it_is_written() {
        let text = r#"{"setting": {"libc": "2.36"}, "counts": {"key": 41049}}"#;
        let (setting, record) = parse(text).expect("a record");
        assert_eq!(setting["libc"], "2.36");
        assert_eq!(record, counts(&[("key", 41049)]));
        for bad in [
            "",
            "{}",
            r#"{"setting":{},"counts":{"key":0}}"#,
            r#"{"setting":{},"counts":{"key":"1"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_record_of_this_repository_is_one() {
        let (setting, record) = read().expect("a record");
        assert!(setting.contains_key("compiler") && !record.is_empty());
    }

    #[test]
    fn the_total_is_found_in_what_callgrind_writes() {
        let text =
            "# callgrind format\nversion: 1\nsummary: 0\n\nfn=(1) x\n0 12\n\ntotals: 4061455\n";
        assert_eq!(total_in(text), Some(4_061_455));
        assert_eq!(total_in("summary: 5\n"), None);
    }
}
