//! `reflex-edge explain`: whether two requests share a key and, if not, by what they differ; what is in
//! the key of a request, and why it passes by.
//!
//! The library decides, by the code of the daemon; this reads what was written down, and prints.
//! Names are printed, values only with `--show-values`, and credentials never.

mod asked;
mod curl;
mod dump;
mod input;
mod values;
mod words;

use asked::Asked;
use clap::Args;
use reflex_host::serve::config::{self, Config, Flags};
use reflex_host::serve::explain::{Explained, Explainer, Verdict};
use reflex_host::serve::plain::plain;
use reflex_llm::{Bypass, Difference, Differences, KeyedKind};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The requests do not share a key, or the request passes by.
const EXIT_NO: u8 = 1;
/// There is nothing to explain: the same code that clap uses.
const EXIT_USAGE: u8 = 2;

/// The path of a bare body, unless `--path` says another.
const CHAT: &str = "/v1/chat/completions";
/// The provider, unless a flag, the configuration or the request's URL names another.
const OPENAI: &str = "https://api.openai.com";

/// Explains each reason: its table is the documentation's.
const REASONS: &str = include_str!("../../docs/reasons.md");

/// Tell whether two requests share a key and, if not, by which field or header they differ; of one
/// request, what is in its key or why it passes by. Exit code 1 for different keys and for a bypass
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A request: a JSON body, a dump of HTTP, or a curl command; `-` is standard input
    request: PathBuf,
    /// Another one, to be compared with
    other: Option<PathBuf>,
    /// The daemon's configuration
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// The daemon's provider [default: the configuration's, or the one that the request names, or
    /// `https://api.openai.com`]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The path of a bare body
    #[arg(long, value_name = "PATH", default_value = CHAT)]
    path: String,
    /// Print values, cut off after 200 bytes; credentials stay hidden
    #[arg(long)]
    show_values: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The configuration's: its value is not shown.
    #[arg(skip)]
    tenant_header: Option<String>,
}

/// A request with its explanation.
struct Subject {
    name: String,
    /// What the input did not say.
    assumed: Vec<String>,
    explained: Explained,
}

impl Explain {
    pub(crate) fn run(mut self) -> ExitCode {
        self.answer().unwrap_or_else(|error| {
            eprintln!("reflex-edge: {error}");
            ExitCode::from(EXIT_USAGE)
        })
    }

    fn answer(&mut self) -> Result<ExitCode, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let is_input = |path: &Path| path == Path::new("-");
        if is_input(&self.request) && self.other.as_deref().is_some_and(is_input) {
            return Err("only one request can be standard input".into());
        }
        let mut subjects = Vec::new();
        let inputs = [Some(self.request.clone()), self.other.clone()];
        for input in inputs.iter().flatten() {
            subjects.push(self.subject(input, &runtime)?);
        }
        let differences = self.other.as_ref().and_then(|_| differences(&subjects));
        let is_yes = match (&self.other, &differences) {
            (Some(_), differences) => differences.as_ref().is_some_and(|it| it.found.is_empty()),
            (None, _) => matches!(subjects[0].explained.verdict, Verdict::Keyed(_)),
        };
        let text = match self.json {
            true => format!("{:#}\n", self.as_json(&subjects, differences.as_ref())),
            false => self.as_text(&subjects, differences.as_ref()),
        };
        // The reader may close the pipe.
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .map_err(|error| error.to_string())?;
        Ok(match is_yes {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_NO),
        })
    }

    fn subject(
        &mut self,
        input: &Path,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Subject, String> {
        let asked = input::read(input, &self.path)?;
        let mut assumed = Vec::new();
        if asked.is_bare {
            assumed.push(format!("path {}", self.path));
            assumed.push("one credential for all bare bodies".to_owned());
        }
        let config = self.config(&asked, &mut assumed)?;
        self.tenant_header.clone_from(&config.tenant_header);
        let upstream = config.upstream.clone();
        let upstream = upstream.ok_or("the configuration has no provider: use --upstream")?;
        let name = input.display().to_string();
        let request = asked
            .to_http()
            .map_err(|error| format!("{name}: {error}"))?;
        let explained = runtime.block_on(Explainer::new(&config, upstream).explain(request));
        Ok(Subject {
            name,
            assumed,
            explained,
        })
    }

    /// The configuration, with the provider of the first that names one.
    fn config(&self, asked: &Asked, assumed: &mut Vec<String>) -> Result<Config, String> {
        let load = |upstream: Option<String>| {
            let flags = Flags {
                upstream,
                ..Flags::default()
            };
            let loaded = Config::load(self.config.as_deref(), flags);
            loaded.map_err(|errors| config::lines(&errors))
        };
        if self.upstream.is_some() {
            return load(self.upstream.clone());
        }
        // The file alone has it, or it lacks nothing else.
        if let Some(config) = self.config.as_ref().and_then(|_| load(None).ok())
            && config.upstream.is_some()
        {
            return Ok(config);
        }
        let provider = asked.provider().unwrap_or_else(|| OPENAI.into());
        assumed.push(format!("provider {provider}"));
        load(Some(provider))
    }

    /// A value, if values are to be shown.
    fn value(&self, kind: KeyedKind, name: &str, value: &[u8]) -> Option<String> {
        let tenant_header = self.tenant_header.as_deref();
        self.show_values
            .then(|| values::shown(kind, name, value, tenant_header))
    }

    fn as_text(&self, subjects: &[Subject], differences: Option<&Differences>) -> String {
        let mut text = String::new();
        if let [one, other] = subjects
            && let Some(differences) = differences
        {
            self.write_comparison(&mut text, [one, other], differences);
        } else {
            for subject in subjects {
                self.write_subject(&mut text, subject);
            }
            if subjects.len() > 1 {
                text.push_str("\nOnly requests that have a key can share one.\n");
            }
        }
        text
    }

    fn write_comparison(
        &self,
        text: &mut String,
        [one, other]: [&Subject; 2],
        differences: &Differences,
    ) {
        let names = format!("{} and {}", plain(&one.name), plain(&other.name));
        // Writing to a string does not fail.
        let _ = match differences.found.is_empty() {
            true => writeln!(text, "{names} share a key."),
            false => writeln!(text, "{names} have different keys. They differ in:"),
        };
        for difference in &differences.found {
            let label = label(difference.kind, &difference.name);
            let _ = write!(text, "  {label}");
            let _ = match (&difference.left, &difference.right) {
                _ if difference.is_order => write!(text, ": the order"),
                (Some(_), None) => write!(text, ": only in {}", plain(&one.name)),
                (None, Some(_)) => write!(text, ": only in {}", plain(&other.name)),
                _ => Ok(()),
            };
            text.push('\n');
            for value in [&difference.left, &difference.right].into_iter().flatten() {
                if let Some(value) = self.value(difference.kind, &difference.name, value) {
                    let _ = writeln!(text, "      {value}");
                }
            }
            if let Some(remedy) = remedy(difference) {
                let _ = writeln!(text, "      if it cannot change an answer: {remedy}");
            }
        }
        if differences.has_more {
            text.push_str("  and more\n");
        }
        for subject in [one, other] {
            write_notes(text, subject);
        }
    }

    fn write_subject(&self, text: &mut String, subject: &Subject) {
        let name = plain(&subject.name);
        let explained = &subject.explained;
        match &explained.verdict {
            Verdict::Refused(why) => {
                let _ = writeln!(text, "{name} is refused: {why}.");
            }
            Verdict::Bypass(reasons) => {
                let _ = writeln!(text, "{name} passes by the cache:");
                for reason in reasons {
                    let word = reason.bypass.detail();
                    let _ = write!(text, "  {word}");
                    if let Some((kind, name)) = &reason.part {
                        let _ = write!(text, ", because of the {}", label(*kind, name));
                    }
                    text.push('\n');
                    if let Some((meaning, remedy)) = meaning(reason.bypass) {
                        let _ = writeln!(text, "      {meaning}");
                        let _ = writeln!(text, "      remedy: {remedy}");
                    }
                }
            }
            Verdict::Keyed(keyed) => {
                let _ = writeln!(text, "{name} may be answered from the cache. In its key:");
                for part in keyed.parts() {
                    let label = label(part.kind, &part.name);
                    let _ = write!(text, "  {label}");
                    let _ = match self.value(part.kind, &part.name, &part.value) {
                        Some(value) => writeln!(text, ": {value}"),
                        None => writeln!(text),
                    };
                }
                let others = [
                    (KeyedKind::Header, &explained.other_headers),
                    (KeyedKind::Field, &explained.other_fields),
                ];
                if others.iter().any(|(_, names)| !names.is_empty()) {
                    text.push_str("Not in its key, or only as one of the parts above:\n");
                }
                for (kind, names) in others {
                    for name in names {
                        let _ = writeln!(text, "  {}", label(kind, name));
                    }
                }
            }
        }
        write_notes(text, subject);
    }

    fn as_json(&self, subjects: &[Subject], differences: Option<&Differences>) -> Value {
        let requests: Vec<Value> = subjects
            .iter()
            .map(|subject| self.subject_json(subject))
            .collect();
        let mut report = json!({ "requests": requests });
        if subjects.len() > 1 {
            let found = differences.map_or(&[][..], |differences| &differences.found);
            let shares = differences.is_some_and(|differences| differences.found.is_empty());
            report["share_a_key"] = shares.into();
            let differing = found.iter().map(|it| self.difference_json(it)).collect();
            report["differences"] = Value::Array(differing);
            report["has_more"] = differences.is_some_and(|it| it.has_more).into();
        }
        report
    }

    fn difference_json(&self, difference: &Difference) -> Value {
        let Difference {
            kind,
            name,
            left,
            right,
            is_order,
        } = difference;
        let mut told = json!({
            "by": kind.name(),
            "name": name,
            "in_first": left.is_some() || *is_order,
            "in_second": right.is_some() || *is_order,
            "order": is_order,
            "remedy": remedy(difference),
        });
        if self.show_values {
            let value = |value: &Option<Vec<u8>>| self.value(*kind, name, value.as_deref()?);
            told["values"] = json!([value(left), value(right)]);
        }
        told
    }

    fn subject_json(&self, subject: &Subject) -> Value {
        let explained = &subject.explained;
        let mut told = json!({ "name": subject.name, "assumed": subject.assumed });
        match &explained.verdict {
            Verdict::Refused(why) => told["refused"] = (*why).into(),
            Verdict::Bypass(reasons) => {
                let reasons = reasons.iter().map(|reason| {
                    let (by, name) = match &reason.part {
                        Some((kind, name)) => (Some(kind.name()), Some(name)),
                        None => (None, None),
                    };
                    let (meaning, remedy) = meaning(reason.bypass).unwrap_or_default();
                    json!({
                        "reason": reason.bypass.detail(),
                        "by": by,
                        "name": name,
                        "meaning": meaning,
                        "remedy": remedy,
                    })
                });
                told["bypass"] = reasons.collect();
            }
            Verdict::Keyed(keyed) => {
                let parts = keyed.parts();
                let parts = parts.iter().map(|part| {
                    let mut told = json!({ "by": part.kind.name(), "name": part.name });
                    if let Some(value) = self.value(part.kind, &part.name, &part.value) {
                        told["value"] = value.into();
                    }
                    told
                });
                told["keyed"] = parts.collect();
                told["not_keyed"] = json!({
                    "headers": explained.other_headers,
                    "fields": explained.other_fields,
                });
                told["notes"] = notes(explained).into();
            }
        }
        told
    }
}

/// By what the keys of two requests differ; none if one of them has no key.
fn differences(subjects: &[Subject]) -> Option<Differences> {
    match subjects {
        [one, other] => match (&one.explained.verdict, &other.explained.verdict) {
            (Verdict::Keyed(one), Verdict::Keyed(other)) => Some(one.differences(other)),
            _ => None,
        },
        _ => None,
    }
}

fn label(kind: KeyedKind, name: &str) -> String {
    let name = plain(name);
    match kind {
        KeyedKind::Tenant => "credential, or what stands for it".into(),
        KeyedKind::Provider => "provider".into(),
        KeyedKind::Method => "method".into(),
        KeyedKind::Path => "path".into(),
        KeyedKind::Form => "API, and whether the answer is a stream".into(),
        KeyedKind::Accept => "header `accept`, which takes events only".into(),
        KeyedKind::Query if name.is_empty() => "query".into(),
        KeyedKind::Query => format!("query parameter `{name}`"),
        KeyedKind::Header => format!("header `{name}`"),
        KeyedKind::Cookie if name.is_empty() => "cookies".into(),
        KeyedKind::Cookie => format!("cookie `{name}`"),
        KeyedKind::Field if name.is_empty() => "body".into(),
        KeyedKind::Field => format!("field `{name}`"),
    }
}

/// The setting that takes a part out of the key. Fields further in have none.
fn remedy(difference: &Difference) -> Option<String> {
    let list = difference.kind.by()?.list();
    let name = &difference.name;
    let is_inside = difference.kind == KeyedKind::Field && name.contains(['.', '[']);
    let mut rules = reflex_llm::Rules::default();
    let own = match list {
        "ignored_headers" => &mut rules.ignored_headers,
        "ignored_cookies" => &mut rules.ignored_cookies,
        "ignored_query" => &mut rules.ignored_query,
        _ => &mut rules.ignored_fields,
    };
    own.push(name.clone());
    let is_allowed = !name.is_empty() && !is_inside && rules.check(None).is_ok();
    is_allowed.then(|| format!("{list} = [{}]", json!(plain(name))))
}

/// Meaning and remedy of a reason, from the table of `docs/reasons.md`.
fn meaning(bypass: Bypass) -> Option<(String, String)> {
    let section = REASONS.split("\n## Bypasses\n").nth(1)?;
    let section = section.split("\n## ").next()?;
    let start = format!("| `{}` |", bypass.detail());
    let row = section.lines().find_map(|line| line.strip_prefix(&start))?;
    let mut cells = row.trim_end_matches('|').split(" | ").map(str::trim);
    Some((cells.next()?.to_owned(), cells.next()?.to_owned()))
}

fn write_notes(text: &mut String, subject: &Subject) {
    for note in notes(&subject.explained) {
        let _ = writeln!(text, "{}: {note}.", plain(&subject.name));
    }
    if !subject.assumed.is_empty() {
        let assumed = plain(&subject.assumed.join(", "));
        let _ = writeln!(text, "Assumed for {}: {assumed}.", plain(&subject.name));
    }
}

/// What the client's instructions and the operator's rules add.
fn notes(explained: &Explained) -> Vec<&'static str> {
    let control = &explained.control;
    [
        (
            control.no_cache,
            "the client has the provider asked each time (`no-cache`)",
        ),
        (
            control.only_if_cached,
            "the client takes a cached answer only (`only-if-cached`)",
        ),
        (
            control.max_age.is_some(),
            "the client bounds the age of an answer (`max-age`)",
        ),
        (
            control.min_fresh.is_some(),
            "the client asks for a fresh answer (`min-fresh`)",
        ),
        (
            !explained.is_kept,
            "no new answer is stored (`[[ttl]]` or `x-reflex-ttl`)",
        ),
    ]
    .into_iter()
    .filter_map(|(holds, note)| holds.then_some(note))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_a_remedy() {
        for bypass in Bypass::ALL {
            let (meaning, remedy) = meaning(*bypass).expect("a page that explains each reason");
            assert!(!meaning.is_empty() && !remedy.is_empty(), "{bypass}");
        }
    }

    #[test]
    fn only_a_setting_that_is_allowed_is_a_remedy() {
        let check = |kind, name: &str, expected: Option<&str>| {
            let difference = Difference {
                kind,
                name: name.into(),
                left: None,
                right: None,
                is_order: false,
            };
            assert_eq!(remedy(&difference).as_deref(), expected, "{name}");
        };
        check(
            KeyedKind::Header,
            "x-a",
            Some("ignored_headers = [\"x-a\"]"),
        );
        check(KeyedKind::Header, "cookie", None);
        check(
            KeyedKind::Field,
            "user",
            Some("ignored_fields = [\"user\"]"),
        );
        check(KeyedKind::Field, "messages", None);
        check(KeyedKind::Field, "a.b", None);
        check(KeyedKind::Query, "key", None);
        check(KeyedKind::Tenant, "", None);
    }
}
