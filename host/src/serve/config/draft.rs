//! A configuration on its way from the file, the environment and the flags to its values: whose value
//! counts, and what is wrong with them, all mistakes at once.

use super::error::ConfigError;
use super::read::Fault;
use super::table::{SETTINGS, Setting, VARIABLE, Values};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// More than is written by hand: the lists have at most a few megabytes together.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) values: Values,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<ConfigError>,
    /// Where the values are from that are no defaults.
    places: HashMap<&'static str, Place>,
    lines: Lines,
}

#[derive(Clone, Debug)]
enum Place {
    /// Position of the key, and the key as it is written.
    File(usize, &'static str),
    Variable(String),
    Flag(&'static str),
}

/// The text of the file, to count its lines.
#[derive(Debug, Default)]
struct Lines {
    file: String,
    ends: Vec<usize>,
}

impl Lines {
    fn number(&self, at: usize) -> usize {
        self.ends.partition_point(|end| *end < at) + 1
    }

    fn error(&self, at: usize, setting: &str, message: String) -> ConfigError {
        ConfigError::in_line(&self.file, self.number(at), setting, &message)
    }
}

impl Draft {
    /// Reads the file. One that cannot be read is one error.
    pub(crate) fn read_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let message = match read {
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => {
                format!("the file is over the limit of {} MiB", FILE_BYTES_MAX >> 20)
            }
            Ok(_) => return self.read(&name, bytes),
            Err(error) => error.to_string(),
        };
        self.errors
            .push(ConfigError::in_line(&name, 0, "", &message));
    }

    /// Reads the file's bytes.
    pub(crate) fn read(&mut self, name: &str, bytes: Vec<u8>) {
        let ends = (0..).zip(&bytes).filter(|(_, byte)| **byte == b'\n');
        self.lines = Lines {
            file: name.to_owned(),
            ends: ends.map(|(at, _)| at).collect(),
        };
        match String::from_utf8(bytes) {
            Ok(text) => self.read_text(&text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let message = "this is not UTF-8".to_owned();
                self.errors.push(self.lines.error(at, "", message));
            }
        }
    }

    fn read_text(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken = Vec::new();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().trim().replace('\n', " ");
            let error = self.lines.error(at, "", message);
            if !broken.contains(&error.line) {
                broken.push(error.line);
                self.errors.push(error);
            }
        }
        // What is left of a broken line is not judged.
        let mut settings: Vec<_> = table.into_inner().into_iter().collect();
        settings.retain(|(key, _)| !broken.contains(&self.lines.number(key.span().start)));
        settings.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in settings {
            self.take(key.span().start, key.get_ref(), value);
        }
        self.errors.sort_by_key(|error| error.line);
    }

    fn take(&mut self, at: usize, key: &str, value: Spanned<DeValue<'_>>) {
        let (setting, written) = match find(key) {
            Some(found) => found,
            None => {
                let nearest = nearest(key).map(|key| format!(": did you mean `{key}`?"));
                let message = format!("unknown field `{key}`{}", nearest.unwrap_or_default());
                return self.errors.push(self.lines.error(at, "", message));
            }
        };
        let is_old = written == setting.old;
        if let Some(Place::File(first, other)) = self.places.get(setting.key) {
            let first = self.lines.number(*first);
            let message = format!(
                "`{}` is an older name of `{}`, and line {first} has `{other}`: give one of both",
                setting.old, setting.key
            );
            return self.errors.push(self.lines.error(at, written, message));
        }
        self.places.insert(setting.key, Place::File(at, written));
        let taken = match is_old {
            true => self.take_old(at, setting, &value),
            false => self.values.set(setting.key, value),
        };
        for Fault { at, why } in taken.err().unwrap_or_default() {
            self.errors.push(self.lines.error(at, written, why));
        }
    }

    /// A whole number, whose unit is in the key.
    fn take_old(
        &mut self,
        at: usize,
        setting: &'static Setting,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Vec<Fault>> {
        let fault = |why| {
            vec![Fault {
                at: value.span().start,
                why,
            }]
        };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(fault("expected a whole number".into()));
        };
        let refused = || fault(format!("{number} is not {}", setting.form()));
        let number = u64::from_str_radix(number.as_str(), number.radix());
        let number = number.map_err(|_| refused())?;
        let text = format!("{number}{}", unit(setting.old));
        let set = self.values.set_text(setting.key, &text);
        set.map_err(|why| fault(format!("{number}: {why}")))?;
        let message = format!("{} is now {} = \"{text}\"", setting.old, setting.key);
        self.warnings
            .push(self.lines.error(at, setting.old, message));
        Ok(())
    }

    /// Takes the variables that name a setting. An empty one counts as missing: that is how many tools
    /// pass a variable that is not set.
    pub(crate) fn read_environment(&mut self, all: impl Iterator<Item = (OsString, OsString)>) {
        let own = |(name, text): (OsString, OsString)| {
            let name = name.into_string().ok()?;
            let key = name.strip_prefix(VARIABLE)?.to_ascii_lowercase();
            (!text.is_empty()).then_some((name, key, text))
        };
        // In the order of their names: the environment has no stable order.
        let sorted: BTreeMap<_, _> = all.filter_map(own).map(|it| (it.0.clone(), it)).collect();
        for (name, key, text) in sorted.into_values() {
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            let taken = match (setting, text.to_str()) {
                (Some(setting), _) if !setting.is_scalar => {
                    Err(format!("{key} is a list, which only the file can hold"))
                }
                (Some(_), None) => Err("this is not UTF-8".to_owned()),
                (Some(setting), Some(text)) => self.values.set_text(setting.key, text).map(|()| {
                    drop(
                        self.places
                            .insert(setting.key, Place::Variable(name.clone())),
                    )
                }),
                // Other programs may have variables that begin so, as Kubernetes does for a service of
                // this name.
                (None, _) => {
                    let nearest = nearest(&key).map(|key| format!("{VARIABLE}{key}"));
                    if let Some(nearest) = nearest {
                        let nearest = nearest.to_ascii_uppercase();
                        let message = format!("no setting has this name: did you mean {nearest}?");
                        self.warnings.push(ConfigError::of_no_file(&name, &message));
                    }
                    Ok(())
                }
            };
            if let Err(message) = taken {
                self.errors.push(ConfigError::of_no_file(&name, &message));
            }
        }
    }

    /// Notes that a flag has given a setting's value.
    pub(crate) fn by_flag(&mut self, key: &'static str, flag: &'static str) {
        self.places.insert(key, Place::Flag(flag));
    }

    /// A mistake in the value of a setting.
    pub(crate) fn refuse(&mut self, key: &str, message: String) {
        let error = match self.places.get(key) {
            Some(Place::File(at, written)) => self.lines.error(*at, written, message),
            Some(Place::Variable(name)) => ConfigError::of_no_file(name, &message),
            Some(Place::Flag(flag)) => ConfigError::of_no_file(flag, &message),
            None => ConfigError::of_no_file(key, &message),
        };
        self.errors.push(error);
    }

    /// A mistake at a place of the file.
    pub(crate) fn refuse_at(&mut self, at: usize, key: &str, message: String) {
        self.errors.push(self.lines.error(at, key, message));
    }

    /// A warning about a place of the file.
    pub(crate) fn warn_at(&mut self, at: usize, key: &str, message: String) {
        self.warnings.push(self.lines.error(at, key, message));
    }
}

/// The setting with this key, or with this old one, and the key as it is written.
fn find(key: &str) -> Option<(&'static Setting, &'static str)> {
    let named = |setting: &'static Setting| {
        let names = [setting.key, setting.old].into_iter();
        let mut names = names.filter(|name| *name == key && !name.is_empty());
        names.next().map(|name| (setting, name))
    };
    SETTINGS.iter().find_map(named)
}

/// The key that was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    /// No key is half as long.
    const LONGEST: usize = 64;
    if key.len() > LONGEST {
        return None;
    }
    let distance = |setting: &'static Setting| {
        let names = [setting.key, setting.old].into_iter();
        let names = names.filter(|name| !name.is_empty());
        let nearest = names
            .map(|name| strsim::damerau_levenshtein(key, name))
            .min();
        (nearest.unwrap_or(usize::MAX), setting.key)
    };
    let (distance, nearest) = SETTINGS.iter().map(distance).min()?;
    // A third of the letters: with more, it is another word.
    (distance * 3 <= key.len()).then_some(nearest)
}

/// The unit of the whole number under an old key.
fn unit(old: &str) -> &'static str {
    match old {
        _ if old.contains("_bytes") => "B",
        _ if old.contains("_milliseconds") => "ms",
        _ => "s",
    }
}
