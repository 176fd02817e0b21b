//! The types of settings: how each is written in the file and in a variable of the environment.

use super::upstream::Upstream;
use reflex_settings::amount;
use serde::Deserialize as _;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// What is wrong with a value, and where in the file that is.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In bytes from the beginning of the file.
    pub(crate) at: usize,
    /// Without the setting's name.
    pub(crate) why: String,
}

/// A type of settings.
pub(crate) trait Read: Sized {
    /// Whether one variable of the environment can hold it.
    const IS_SCALAR: bool;
    /// What is written, in a few words.
    fn form() -> String;
    /// Reads a value of the file.
    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>>;
    /// Reads a variable of the environment.
    fn read_text(text: &str) -> Result<Self, String>;
    /// As it is written in the file; empty if it has no value.
    fn write(&self) -> String;
}

/// A type that is written as one word or number.
pub(crate) trait Scalar: Sized {
    /// As TOML's type.
    const KIND: Kind;
    /// See [`Read::form`].
    fn form() -> String;
    /// Reads it. Booleans and numbers come as TOML writes them.
    fn from_text(text: &str) -> Result<Self, String>;
    /// As it is written in the file.
    fn write(&self) -> String;
}

/// A type of TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Text with a unit. 0 needs none.
    Amount,
    Whole,
    Number,
    Flag,
}

impl<T: Scalar> Read for T {
    const IS_SCALAR: bool = true;

    fn form() -> String {
        <T as Scalar>::form()
    }

    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let fault = |why| {
            vec![Fault {
                at: value.span().start,
                why,
            }]
        };
        let text = match (T::KIND, value.get_ref()) {
            (Kind::Text | Kind::Amount, DeValue::String(text)) => text.to_string(),
            (Kind::Whole | Kind::Number | Kind::Amount, DeValue::Integer(number)) => {
                let whole = i128::from_str_radix(number.as_str(), number.radix());
                let whole = whole.map_err(|_| fault(format!("{number} is too great")))?;
                if T::KIND == Kind::Amount && whole != 0 {
                    return Err(fault(format!(
                        "{whole} has no unit: {}",
                        <T as Scalar>::form()
                    )));
                }
                whole.to_string()
            }
            (Kind::Number, DeValue::Float(number)) => number.as_str().to_owned(),
            (Kind::Flag, DeValue::Boolean(flag)) => flag.to_string(),
            (_, other) => {
                let found = other.type_str();
                return Err(fault(format!(
                    "found {found}, expected {}",
                    <T as Scalar>::form()
                )));
            }
        };
        T::from_text(&text).map_err(fault)
    }

    fn read_text(text: &str) -> Result<Self, String> {
        T::from_text(text)
    }

    fn write(&self) -> String {
        Scalar::write(self)
    }
}

/// A setting that may be left out, and has no default then.
impl<T: Read> Read for Option<T> {
    const IS_SCALAR: bool = T::IS_SCALAR;

    fn form() -> String {
        T::form()
    }

    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        T::read(value).map(Some)
    }

    fn read_text(text: &str) -> Result<Self, String> {
        T::read_text(text).map(Some)
    }

    fn write(&self) -> String {
        self.as_ref().map(T::write).unwrap_or_default()
    }
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const LEAST: u64, const MOST: u64>(pub(crate) u64);

/// A size in bytes within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size<const LEAST: u64, const MOST: u64>(pub(crate) u64);

/// A duration within bounds, in whole steps: all three in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<const LEAST: u64, const MOST: u64, const STEP: u64>(pub(crate) Duration);

/// A file's mode, as `chmod` writes it: `0600`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

/// One of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<T> {
    pub(crate) means: T,
    /// The position among [`Words::WORDS`].
    at: usize,
}

/// The words of a [`Word`], in the order of the documentation.
pub(crate) trait Words: DeserializeOwned + Copy {
    /// Each as it is written.
    const WORDS: &'static [&'static str];
}

impl<T: Words> Word<T> {
    /// The word at a position, which must be one of [`Words::WORDS`].
    pub(crate) fn first(means: T) -> Self {
        Self { means, at: 0 }
    }
}

impl<const LEAST: u64, const MOST: u64> Scalar for Whole<LEAST, MOST> {
    const KIND: Kind = Kind::Whole;

    fn form() -> String {
        match MOST == u64::MAX {
            true => format!("a whole number from {LEAST}"),
            false => format!("a whole number, {LEAST} to {MOST}"),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let number = text.parse().ok();
        let fits = number.filter(|number| (LEAST..=MOST).contains(number));
        fits.map(Self)
            .ok_or_else(|| format!("{text} is not {}", <Self as Read>::form()))
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

impl<const LEAST: u64, const MOST: u64> Scalar for Size<LEAST, MOST> {
    const KIND: Kind = Kind::Amount;

    fn form() -> String {
        let within = match (LEAST, MOST) {
            (0, u64::MAX) => String::new(),
            (_, u64::MAX) => ", over 0".to_owned(),
            _ => format!(", at most {}", amount::write_size(MOST)),
        };
        format!("a size such as \"64MiB\"{within}")
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let size = amount::size(text)?;
        match (LEAST..=MOST).contains(&size) {
            true => Ok(Self(size)),
            false => Err(format!("`{text}` is not {}", <Self as Read>::form())),
        }
    }

    fn write(&self) -> String {
        quoted(&amount::write_size(self.0))
    }
}

impl<const LEAST: u64, const MOST: u64, const STEP: u64> Scalar for Span<LEAST, MOST, STEP> {
    const KIND: Kind = Kind::Amount;

    fn form() -> String {
        let written = |ms| amount::write_duration(Duration::from_millis(ms));
        format!("a duration, {} to {}", written(LEAST), written(MOST))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let time = amount::duration(text)?;
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match (LEAST..=MOST).contains(&ms) {
            true if ms.is_multiple_of(STEP) => Ok(Self(time)),
            true => Err(format!("`{text}` is not in whole seconds")),
            false => Err(format!("`{text}` is not {}", <Self as Read>::form())),
        }
    }

    fn write(&self) -> String {
        quoted(&amount::write_duration(self.0))
    }
}

impl Scalar for Mode {
    const KIND: Kind = Kind::Text;

    fn form() -> String {
        "a file's mode such as \"0660\"".into()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        // The parser would take a sign.
        let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
        mode.filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not {}", <Self as Read>::form()))
    }

    fn write(&self) -> String {
        quoted(&format!("{:04o}", self.0))
    }
}

impl<T: Words> Scalar for Word<T> {
    const KIND: Kind = Kind::Text;

    fn form() -> String {
        let words: Vec<String> = T::WORDS.iter().map(|word| quoted(word)).collect();
        words.join(" or ")
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let at = T::WORDS.iter().position(|word| *word == text);
        let deserializer: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
        let means = T::deserialize(deserializer).ok();
        means
            .zip(at)
            .map(|(means, at)| Self { means, at })
            .ok_or_else(|| format!("`{text}` is not {}", <Self as Read>::form()))
    }

    fn write(&self) -> String {
        quoted(T::WORDS.get(self.at).unwrap_or(&""))
    }
}

impl Scalar for bool {
    const KIND: Kind = Kind::Flag;

    fn form() -> String {
        "true or false".into()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("`{text}` is not true or false"))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Scalar for f64 {
    const KIND: Kind = Kind::Number;

    fn form() -> String {
        "a number".into()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("`{text}` is not a number"))
    }

    fn write(&self) -> String {
        format!("{self:?}")
    }
}

/// Text of another crate's type, parsed as that crate does.
macro_rules! parsed {
    ($($type:ty: $form:literal, $write:expr;)*) => {$(
        impl Scalar for $type {
            const KIND: Kind = Kind::Text;

            fn form() -> String {
                $form.into()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| told(text, error, $form))
            }

            fn write(&self) -> String {
                let write: fn(&$type) -> String = $write;
                quoted(&write(self))
            }
        }
    )*};
}

parsed! {
    SocketAddr: "an address with a port such as \"127.0.0.1:8080\"", ToString::to_string;
    String: "a text", Clone::clone;
    PathBuf: "a path", |path| path.to_string_lossy().into_owned();
    Upstream: "a URL such as \"https://api.openai.com\"", ToString::to_string;
}

/// An own error says everything; others do not repeat the text.
fn told(text: &str, error: impl fmt::Display, form: &str) -> String {
    let error = error.to_string();
    match error.contains('`') {
        true => error,
        false => format!("`{text}` is not {form}"),
    }
}

/// Patterns and names.
impl Read for Vec<String> {
    const IS_SCALAR: bool = false;

    fn form() -> String {
        "a list of texts".into()
    }

    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let at = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            let why = format!("expected {}", <Self as Read>::form());
            return Err(vec![Fault { at, why }]);
        };
        each(items.into_iter(), String::read)
    }

    fn read_text(_: &str) -> Result<Self, String> {
        Err("a list is set in the file".into())
    }

    fn write(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A list of tables: `[[price]]`.
#[derive(Clone, Debug)]
pub(crate) struct Tables<T>(pub(crate) Vec<Row<T>>);

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Row<T> {
    pub(crate) table: T,
    /// Where in the file it begins.
    pub(crate) at: usize,
    /// All of it, to tell it from another one.
    text: String,
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: DeserializeOwned> Read for Tables<T> {
    const IS_SCALAR: bool = false;

    fn form() -> String {
        "a list of tables".into()
    }

    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        let at = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            let why = format!("expected {}", <Self as Read>::form());
            return Err(vec![Fault { at, why }]);
        };
        each(items.into_iter(), row).map(Self)
    }

    fn read_text(_: &str) -> Result<Self, String> {
        Err("a list is set in the file".into())
    }

    fn write(&self) -> String {
        let rows: Vec<&str> = self.0.iter().map(|row| row.text.as_str()).collect();
        format!("[{}]", rows.join(", "))
    }
}

fn row<T: DeserializeOwned>(item: Spanned<DeValue<'_>>) -> Result<Row<T>, Vec<Fault>> {
    let at = item.span().start;
    let fault = |error: toml::de::Error| {
        vec![Fault {
            at: error.span().map_or(at, |span| span.start),
            why: error.message().trim().replace('\n', " "),
        }]
    };
    let reader = |item| toml::de::ValueDeserializer::from(item);
    let text = toml::Value::deserialize(reader(item.clone())).map_err(fault)?;
    Ok(Row {
        table: T::deserialize(reader(item)).map_err(fault)?,
        at,
        text: text.to_string(),
    })
}

/// All items, or the faults of all.
fn each<'a, T>(
    items: impl Iterator<Item = Spanned<DeValue<'a>>>,
    read: impl Fn(Spanned<DeValue<'a>>) -> Result<T, Vec<Fault>>,
) -> Result<Vec<T>, Vec<Fault>> {
    let (mut read_items, mut faults) = (Vec::new(), Vec::new());
    for item in items {
        match read(item) {
            Ok(item) => read_items.push(item),
            Err(more) => faults.extend(more),
        }
    }
    match faults.is_empty() {
        true => Ok(read_items),
        false => Err(faults),
    }
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
