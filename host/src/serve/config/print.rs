//! The settings as a file with all defaults, and as the table of `docs/settings.md`.

use super::table::{Applies, SETTINGS, Setting, Values};
use std::fmt::Write as _;

/// The column at which comments end.
const WIDTH: usize = 96;

/// A file with every setting at its default, each commented out, with its meaning and the reason.
pub fn default_file() -> String {
    let mut text = String::from(
        "# All settings of reflex-edge, each with its default. Remove the `#` before a key to change it.\n\
         # A setting without a default has an example. Lists of tables (`[[price]]`) belong at the end\n\
         # of the file. `reflex-edge config check FILE` checks it.\n",
    );
    let written = Values::default().written();
    let rows = || SETTINGS.iter().zip(&written);
    let tables = rows().filter(|(setting, _)| setting.is_tables());
    for (setting, default) in rows()
        .filter(|(setting, _)| !setting.is_tables())
        .chain(tables)
    {
        text.push('\n');
        let when = match setting.applies {
            Applies::Reload => "Applies with a reload.",
            Applies::Restart => "Applies with a restart.",
        };
        let reason = setting.reason;
        let form = match setting.is_tables() {
            true => String::new(),
            false => format!(" Written as {}.", setting.form()),
        };
        comment(
            &mut text,
            &format!("{}{form} {when} Why this default: {reason}.", setting.about),
        );
        for line in value(setting, default).lines() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "#{line}");
        }
    }
    text
}

/// The table of `docs/settings.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "| key | default | applies | meaning, and why this default |\n|---|---|---|---|\n",
    );
    for (setting, default) in SETTINGS.iter().zip(Values::default().written()) {
        let key = match setting.is_tables() {
            true => format!("[[{}]]", setting.key),
            false => setting.key.to_owned(),
        };
        let default = match default.as_str() {
            "" => "–".to_owned(),
            "[]" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        let when = match setting.applies {
            Applies::Reload => "reload",
            Applies::Restart => "restart",
        };
        let (about, reason) = (setting.about, setting.reason);
        let form = match setting.is_tables() {
            true => "A list of tables".to_owned(),
            false => capital(&setting.form()),
        };
        let _ = writeln!(
            text,
            "| `{key}` | {default} | {when} | {about} {form}. *Why:* {reason}. |"
        );
    }
    text
}

/// A setting as the file has it.
fn value(setting: &Setting, default: &str) -> String {
    let shown = match default {
        "" | "[]" => setting.example,
        default => default,
    };
    match setting.is_tables() {
        true => shown.to_owned(),
        false => format!("{} = {shown}", setting.key),
    }
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + word.len() + 1 > WIDTH {
            let _ = writeln!(text, "{line}");
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
