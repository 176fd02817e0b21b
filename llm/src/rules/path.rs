//! Paths as rules see them, and the operator's rules for APIs at paths that do not show which one
//! it is.
//!
//! One resource has many spellings: `//private`, `/./private` and `/%70rivate` are `/private` to
//! most servers. Rules see the normal form, so that no spelling evades them. The provider and the
//! key get the path as sent. A path that servers read in different ways (`..`, `;`, a backslash, a
//! broken escape) bypasses.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::request::outside;
use crate::rules::pattern::is_like_in_any_case;
use crate::{Api, Bypass};

/// A rule of the operator: the first rule that applies counts; without one, the end of the path
/// names the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// The path that it is for, in [normal form](normal_path); `*` stands for any text. Letters
    /// match in either case.
    pub path: String,
    /// Which API answers there. `None`: requests bypass.
    pub api: Option<Api>,
}

/// Operators write this for no API.
const NONE: &str = "none";

impl PathRule {
    /// Reads a rule as operators write it: a pattern, and an [API's name](Api::name) or `none`.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with it.
    pub fn parse(path: &str, api: &str) -> Result<Self, String> {
        check_path_pattern(path)?;
        let api = match api {
            NONE => None,
            name => match Api::from_name(name) {
                None => return Err(format!("path: `{path}`: `{name}` is no API, nor `none`")),
                // Such a path holds the model and the method.
                Some(api) if api.is_in_path() => {
                    return Err(format!(
                        "path: `{path}`: {name} is only at paths that name the model"
                    ));
                }
                Some(api) => Some(api),
            },
        };
        Ok(Self {
            path: path.into(),
            api,
        })
    }

    fn applies(&self, path: &str) -> bool {
        is_like_in_any_case(&self.path, path)
    }
}

/// Checks a pattern that paths are compared with. A pattern that can never match is a mistake.
///
/// # Errors
///
/// One line that says what is wrong with it.
pub fn check_path_pattern(path: &str) -> Result<(), String> {
    if !path.starts_with(['/', '*']) || path.contains(['?', '#']) {
        return Err(format!(
            "path: `{path}` is not a path without query that begins with a slash or a star"
        ));
    }
    match Readings::of(path) {
        Some(Readings {
            normal,
            opaque: None,
        }) if normal == path => Ok(()),
        Some(Readings { normal, .. }) => Err(format!(
            "path: `{path}`: rules see paths in normal form; write `{normal}`"
        )),
        None => Err(format!(
            "path: `{path}`: requests bypass where a path has `..`, `;`, a backslash or a broken \
             escape, whatever the rules say"
        )),
    }
}

/// A path, with or without query, in the form that rules see: no query, escapes decoded until none
/// is left, no empty segments and no `.`; each `..` takes the segment before it, and none leads
/// above the root. A slash at the end stays. Text that does not begin with a slash stays as it is.
///
/// For comparisons only. The path as sent is what the provider gets.
pub fn normal_path(path: &str) -> Cow<'_, str> {
    let bare = bare(path);
    if is_plain(bare) {
        return Cow::Borrowed(bare);
    }
    let decoded = decoded(bare, Separators::Decoded);
    Cow::Owned(joined(&decoded, &['/', '\\']))
}

/// Whether a path, with or without query, is `prefix` or lies below it: as rules see paths, and with
/// letters in either case. `prefix` is in [normal form](normal_path), without a slash at its end. None
/// if servers may answer that in different ways.
pub fn is_below(path: &str, prefix: &str) -> Option<bool> {
    let is_below = |path: &str| {
        let (start, rest) = path.as_bytes().split_at_checked(prefix.len())?;
        let is_whole = matches!(rest.first(), None | Some(b'/'));
        Some(is_whole && start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let is_below = |path: &str| is_below(path).unwrap_or(false);
    let readings = Readings::of(path)?;
    let found = is_below(&readings.normal);
    let opaque = readings.opaque.as_deref().map(is_below);
    opaque.is_none_or(|opaque| opaque == found).then_some(found)
}

/// How a path is understood: in one way, or in two if it has an escaped slash or colon.
pub(crate) struct Readings<'p> {
    /// The [normal form](normal_path), in which an escaped separator is one.
    pub(crate) normal: Cow<'p, str>,
    /// The same with escaped separators as part of their segments, spelled `%2F` and `%3A`, if there
    /// are any.
    pub(crate) opaque: Option<String>,
}

impl<'p> Readings<'p> {
    /// None if servers differ in more than that: in resolving `..`, in parameters after `;`, in
    /// reading a backslash as a slash, or in the meaning of a broken escape.
    pub(crate) fn of(path: &'p str) -> Option<Self> {
        let bare = bare(path);
        if is_plain(bare) {
            let normal = Cow::Borrowed(bare);
            return Some(Self {
                normal,
                opaque: None,
            });
        }
        let decoded = |separators| decoded(bare, separators);
        let open = decoded(Separators::Decoded);
        let climbs = open.split('/').any(|segment| segment == "..");
        if climbs || open.contains(['\\', ';']) || has_broken_escape(bare) {
            return None;
        }
        let normal = joined(&open, &['/']);
        let opaque = joined(&decoded(Separators::Escaped), &['/']);
        Some(Self {
            opaque: (opaque != normal).then_some(opaque),
            normal: Cow::Owned(normal),
        })
    }

    /// The segments as the client meant them. A segment may contain a slash.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = Cow<'_, str>> {
        let path = self.opaque.as_deref().unwrap_or(&self.normal);
        path.split('/').map(|segment| match segment.contains('%') {
            true => Cow::Owned(segment.replace("%2F", "/").replace("%3A", ":")),
            false => Cow::Borrowed(segment),
        })
    }

    /// Each reading that a rule may be about.
    pub(crate) fn each(&self) -> impl Iterator<Item = &str> {
        let opaque = self.opaque.as_deref();
        let whole = core::iter::once(&*self.normal).chain(opaque);
        // Many servers ignore a slash at the end.
        whole.flat_map(|path| {
            let shorter = path.strip_suffix('/').filter(|path| !path.is_empty());
            core::iter::once(path).chain(shorter)
        })
    }
}

/// The API that answers at a path (with or without query). An explicit `none` counts if it matches
/// any reading of the path; otherwise the readings must agree.
///
/// # Errors
///
/// [`Bypass::Path`] if no API does, and [`Bypass::ProviderState`] if an application that the
/// provider keeps answers there, unless a rule matches the path.
pub(crate) fn api_at(path: &str, rules: &[PathRule]) -> Result<Api, Bypass> {
    let readings = Readings::of(path).ok_or(Bypass::Path)?;
    // Anything that is no path bypasses.
    if !readings.normal.starts_with('/') {
        return Err(Bypass::Path);
    }
    let rule = |path: &str| rules.iter().find(|rule| rule.applies(path));
    let is_left_alone = |path: &str| rule(path).is_some_and(|rule| rule.api.is_none());
    if !rules.is_empty() && readings.each().any(is_left_alone) {
        return Err(Bypass::Path);
    }
    let api = |path: &str| match rule(path) {
        Some(rule) => rule.api.ok_or(Bypass::Path),
        None => match Api::of_path(path) {
            Some(_) if outside::is_kept_at(path) => Err(Bypass::ProviderState),
            Some(api) => Ok(api),
            None => Err(Bypass::Path),
        },
    };
    let found = api(&readings.normal)?;
    match &readings.opaque {
        Some(opaque) if api(opaque) != Ok(found) => Err(Bypass::Path),
        _ => Ok(found),
    }
}

/// Without query, and without a fragment, which clients must not send and servers cut off.
fn bare(path: &str) -> &str {
    match path.bytes().position(|byte| matches!(byte, b'?' | b'#')) {
        Some(end) => &path[..end],
        None => path,
    }
}

/// Whether a path is in normal form and has one reading: true of nearly all of them.
fn is_plain(path: &str) -> bool {
    if !path.starts_with('/') {
        return true;
    }
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = match byte {
            b'%' | b'\\' | b';' => false,
            // Also the names that begin with a dot; they are looked at more closely.
            b'/' | b'.' => before != b'/',
            _ => true,
        };
        before = byte;
        plain
    })
}

/// How to treat an escaped slash, and an escaped colon, which parts model and method in Google's
/// paths.
#[derive(Clone, Copy, PartialEq)]
enum Separators {
    Decoded,
    Escaped,
}

/// The path with its escapes decoded, repeatedly: a gateway and the server behind it may decode one
/// after the other. Takes time linear in the path.
fn decoded(path: &str, separators: Separators) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        out.push(byte);
        while let [.., b'%', high, low] = out[..]
            && let Some(byte) = escaped(high, low)
        {
            out.truncate(out.len() - 3);
            match byte {
                b'/' if separators == Separators::Escaped => out.extend_from_slice(b"%2F"),
                b':' if separators == Separators::Escaped => out.extend_from_slice(b"%3A"),
                _ => {
                    out.push(byte);
                    continue;
                }
            }
            break;
        }
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(high)? << 4 | digit(low)?;
    u8::try_from(value).ok()
}

/// Whether a percent sign is not followed by two digits.
fn has_broken_escape(path: &str) -> bool {
    let mut parts = path.split('%');
    parts.next();
    let mut after = parts.map(str::as_bytes);
    after.any(|bytes| !matches!(bytes, [high, low, ..] if escaped(*high, *low).is_some()))
}

/// Joins the segments again, without empty ones and dots.
fn joined(path: &str, separators: &[char]) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in path.split(separators) {
        last = segment;
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || matches!(last, "" | "." | "..") {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_resource_has_one_normal_form() {
        let check = |path: &str, normal: &str| {
            assert_eq!(normal_path(path), normal, "{path}");
            assert_eq!(normal_path(normal), normal, "{path}");
        };
        for path in [
            "/private",
            "//private",
            "///./private",
            "/./private",
            "/%70rivate",
            "/%2570rivate",
            "/%25%37%30rivate",
            "/%2e/private",
            "/%2F%2fprivate",
            "/a/../private",
            "/a/%2E./private",
            "/a/.%2e/private?b=/c",
            "/../../private",
            "/\\private",
            "/a\\..\\private",
            "/private#a",
        ] {
            check(path, "/private");
        }
        check("/v1/chat/completions?a=b", "/v1/chat/completions");
        check("/v1/.well-known", "/v1/.well-known");
        check("/v1/x/", "/v1/x/");
        check("/v1/x/.", "/v1/x/");
        check("/v1/x/y/..", "/v1/x/");
        check("/", "/");
        check("/..", "/");
        check("//", "/");
        check("/%e9", "/\u{fffd}");
        check("*", "*");
        check("https://a//b", "https://a//b");
        check("", "");
    }

    #[test]
    fn what_servers_read_in_different_ways_has_no_reading() {
        for path in [
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/%252e./b",
            "/a%2f..%2fb",
            "/..;/b",
            "/a;b=c/d",
            "/a%3bb",
            "/a\\b",
            "/a%5Cb",
            "/%7",
            "/%zz",
            "/%u0070rivate",
        ] {
            assert!(Readings::of(path).is_none(), "{path}");
        }
        let two = Readings::of("/a%2Fb%252fc//d").expect("two readings");
        assert_eq!(two.normal, "/a/b/c/d");
        assert_eq!(two.opaque.as_deref(), Some("/a%2Fb%2Fc/d"));
        assert!(Readings::of("/a%20b").expect("one").opaque.is_none());
    }

    #[test]
    fn no_spelling_of_a_path_leads_out_of_a_prefix_or_into_it() {
        let check = |path: &str, expected: Option<bool>| {
            assert_eq!(is_below(path, "/a/b"), expected, "{path}");
        };
        for path in [
            "/a/b",
            "/a/b/",
            "/a/b?c",
            "/a/b/c/d?e",
            "//a/./b/c",
            "/%61/b/c",
            "/%2561/b/c",
            "/A/b/c",
        ] {
            check(path, Some(true));
        }
        for path in ["/", "*", "", "/a", "/a/bc", "/x/a/b", "/a/\u{e9}"] {
            check(path, Some(false));
        }
        for path in [
            "/a%2Fb/c",
            "/x/../a/b",
            "/a/b/../../x",
            "/a;x/b",
            "/a\\b",
            "/%zz",
        ] {
            check(path, None);
        }
        check("/a/b/org%2Fname", Some(true));
    }

    #[test]
    fn decoding_takes_time_linear_in_the_path() {
        // Each pass over this text would decode one escape only.
        let path = format!("/%{}41", "25".repeat(50_000));
        assert_eq!(normal_path(&path), "/A");
    }
}
