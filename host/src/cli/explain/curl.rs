//! A `curl` command line as a request. The options that change what is sent are read as curl reads
//! them; the others are known by name, because a word behind an unknown option could be its value
//! or the URL.

use super::asked::{Asked, bytes};
use super::words;
use std::path::Path;

/// Options without a value that do not change the request.
const FLAGS: &[&str] = &[
    "basic",
    "compressed",
    "compressed-ssl",
    "disable",
    "fail",
    "fail-early",
    "fail-with-body",
    "globoff",
    "http1.0",
    "http1.1",
    "http2",
    "http2-prior-knowledge",
    "http3",
    "include",
    "insecure",
    "ipv4",
    "ipv6",
    "keepalive",
    "location",
    "location-trusted",
    "buffer",
    "no-buffer",
    "no-keepalive",
    "no-progress-meter",
    "no-sessionid",
    "path-as-is",
    "progress-bar",
    "progress-meter",
    "raw",
    "remote-name",
    "remote-header-name",
    "show-error",
    "silent",
    "sslv3",
    "styled-output",
    "tcp-nodelay",
    "tlsv1",
    "tlsv1.2",
    "tlsv1.3",
    "tr-encoding",
    "trace-time",
    "verbose",
];

/// Options with a value that do not change the request.
const VALUED: &[&str] = &[
    "cacert",
    "capath",
    "cert",
    "cert-type",
    "ciphers",
    "config",
    "connect-timeout",
    "connect-to",
    "cookie-jar",
    "dns-servers",
    "dump-header",
    "expect100-timeout",
    "interface",
    "keepalive-time",
    "key",
    "key-type",
    "limit-rate",
    "max-filesize",
    "max-redirs",
    "max-time",
    "netrc-file",
    "noproxy",
    "output",
    "output-dir",
    "pass",
    "pinnedpubkey",
    "preproxy",
    "proto",
    "proto-default",
    "proxy",
    "proxy-user",
    "resolve",
    "retry",
    "retry-delay",
    "retry-max-time",
    "socks5",
    "socks5-hostname",
    "speed-limit",
    "speed-time",
    "stderr",
    "tls-max",
    "trace",
    "trace-ascii",
    "unix-socket",
    "write-out",
];

/// Short options by the long names that are used here.
const SHORT: &[(char, &str)] = &[
    ('#', "progress-bar"),
    ('A', "user-agent"),
    ('D', "dump-header"),
    ('E', "cert"),
    ('F', "form"),
    ('G', "get"),
    ('H', "header"),
    ('I', "head"),
    ('J', "remote-header-name"),
    ('K', "config"),
    ('L', "location"),
    ('N', "no-buffer"),
    ('O', "remote-name"),
    ('S', "show-error"),
    ('T', "upload-file"),
    ('U', "proxy-user"),
    ('X', "request"),
    ('Y', "speed-limit"),
    ('b', "cookie"),
    ('c', "cookie-jar"),
    ('d', "data"),
    ('e', "referer"),
    ('f', "fail"),
    ('g', "globoff"),
    ('i', "include"),
    ('k', "insecure"),
    ('m', "max-time"),
    ('o', "output"),
    ('q', "disable"),
    ('s', "silent"),
    ('u', "user"),
    ('v', "verbose"),
    ('w', "write-out"),
    ('x', "proxy"),
    ('y', "speed-time"),
    ('0', "http1.0"),
    ('1', "tlsv1"),
    ('4', "ipv4"),
    ('6', "ipv6"),
];

/// Options with a value that this reads.
const READ: &[&str] = &[
    "cookie",
    "data",
    "data-ascii",
    "data-binary",
    "data-raw",
    "data-urlencode",
    "header",
    "json",
    "oauth2-bearer",
    "referer",
    "request",
    "url",
    "user",
    "user-agent",
];

/// Reads a command. Files that it names with `@` are read, relative to the current folder.
///
/// # Errors
///
/// What is not understood, by the name of the option and without values.
pub(super) fn read(text: &str) -> Result<Asked, String> {
    let command = words::command(text)?;
    let mut line = Line {
        input: command.input,
        ..Line::default()
    };
    let mut words = command.words.into_iter().skip(1);
    let mut options_end = false;
    while let Some(word) = words.next() {
        let missing = |name: &str| format!("curl's option `{name}` has no value");
        if options_end || !word.starts_with('-') || word == "-" {
            line.url(&word)?;
        } else if word == "--" {
            options_end = true;
        } else if let Some(name) = word.strip_prefix("--") {
            match takes_value(name)? {
                true => line.set(name, &words.next().ok_or_else(|| missing(name))?)?,
                false => line.flag(name)?,
            }
        } else {
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                let long = SHORT.iter().find(|(short, _)| *short == letter);
                let (_, name) = long.ok_or_else(|| unknown(&format!("-{letter}")))?;
                if !takes_value(name)? {
                    line.flag(name)?;
                    continue;
                }
                let mut value = letters.as_str().to_owned();
                if value.is_empty() {
                    value = words.next().ok_or_else(|| missing(name))?;
                }
                line.set(name, &value)?;
                break;
            }
        }
    }
    line.into_asked()
}

fn unknown(option: &str) -> String {
    // A misplaced value is not to be told.
    let option: String = option.chars().take(40).collect();
    format!("curl's option `{option}` is not understood: leave it out if it changes nothing")
}

fn takes_value(name: &str) -> Result<bool, String> {
    if READ.contains(&name) || VALUED.contains(&name) {
        return Ok(true);
    }
    let plain = name.strip_prefix("no-").unwrap_or(name);
    if FLAGS.contains(&name) || FLAGS.contains(&plain) || matches!(name, "get" | "head") {
        return Ok(false);
    }
    Err(match name {
        "form" | "form-string" => "a form (-F) is no JSON, and passes by (`not-json`)".into(),
        "next" => "curl's `--next` begins another request: give each its file".into(),
        _ => unknown(&format!("--{name}")),
    })
}

/// What a command line says so far.
#[derive(Default)]
struct Line {
    url: Option<String>,
    method: Option<String>,
    /// As curl writes them, in their order; an empty value leaves curl's own out.
    headers: Vec<(String, Option<String>)>,
    data: Option<Vec<u8>>,
    is_json: bool,
    /// Data goes into the query.
    gets: bool,
    is_head: bool,
    input: Option<String>,
}

impl Line {
    fn url(&mut self, url: &str) -> Result<(), String> {
        let url = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        match self.url.replace(url) {
            None => Ok(()),
            Some(_) => Err("the command has several URLs: give each its file".into()),
        }
    }

    fn flag(&mut self, name: &str) -> Result<(), String> {
        match name {
            "get" => self.gets = true,
            "head" => self.is_head = true,
            "compressed" => self.own("accept-encoding", "deflate, gzip"),
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "url" => self.url(value)?,
            "request" => self.method = Some(value.to_owned()),
            "header" => match value.strip_prefix('@') {
                Some(file) => {
                    let lines = String::from_utf8(self.file(file)?);
                    let lines = lines.map_err(|_| format!("{file}: not UTF-8"))?;
                    lines.lines().for_each(|line| self.header(line));
                }
                None => self.header(value),
            },
            "user-agent" => self.own("user-agent", value),
            "referer" => self.own("referer", value),
            "cookie" if value.contains('=') => self.own("cookie", value),
            "cookie" => return Err("a file of cookies (-b FILE) is not read".into()),
            "oauth2-bearer" => self.own("authorization", &format!("Bearer {value}")),
            // The value only has to tell one user from another.
            "user" => self.own("authorization", &format!("Basic {value}")),
            "data" | "data-ascii" => {
                let mut data = self.content(value)?;
                if value.starts_with('@') {
                    data.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                }
                self.add(&data, true);
            }
            "data-raw" => self.add(value.as_bytes(), true),
            "data-binary" => {
                let data = self.content(value)?;
                self.add(&data, true);
            }
            "data-urlencode" => {
                let data = self.encoded(value)?;
                self.add(&data, true);
            }
            "json" => {
                let data = self.content(value)?;
                self.add(&data, false);
                self.is_json = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// A header as `-H` has it: `Name: value`, `Name;` for an empty one, `Name:` to leave out.
    fn header(&mut self, line: &str) {
        if let Some((name, value)) = line.split_once(':') {
            let value = value.trim();
            let value = (!value.is_empty()).then(|| value.to_owned());
            self.headers.push((name.trim().to_ascii_lowercase(), value));
        } else if let Some(name) = line.trim().strip_suffix(';') {
            self.headers
                .push((name.to_ascii_lowercase(), Some(String::new())));
        }
    }

    /// A header that an option of its own sets; `-H` goes before it.
    fn own(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.headers.push((name.into(), Some(value.into())));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other == name)
    }

    fn add(&mut self, more: &[u8], with_ampersand: bool) {
        match &mut self.data {
            None => self.data = Some(more.to_vec()),
            Some(data) => {
                if with_ampersand {
                    data.push(b'&');
                }
                data.extend_from_slice(more);
            }
        }
    }

    fn content(&mut self, value: &str) -> Result<Vec<u8>, String> {
        match value.strip_prefix('@') {
            Some(file) => self.file(file),
            None => Ok(value.as_bytes().to_vec()),
        }
    }

    fn file(&mut self, name: &str) -> Result<Vec<u8>, String> {
        if name == "-" {
            let input = self.input.clone();
            let input = input.ok_or("the command reads standard input: name a file with @")?;
            return Ok(input.into_bytes());
        }
        bytes(Path::new(name)).map_err(|error| format!("{name}: {error}"))
    }

    /// `content`, `=content`, `name=content`, `@file` or `name@file`.
    fn encoded(&mut self, value: &str) -> Result<Vec<u8>, String> {
        let (name, content) = match value.find(['=', '@']) {
            None => ("", value.as_bytes().to_vec()),
            Some(at) if value[at..].starts_with('=') => {
                (&value[..at], value.as_bytes()[at + 1..].to_vec())
            }
            Some(at) => (&value[..at], self.file(&value[at + 1..])?),
        };
        let mut encoded = name.as_bytes().to_vec();
        if !name.is_empty() {
            encoded.push(b'=');
        }
        for byte in content {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    encoded.push(byte);
                }
                _ => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
        Ok(encoded)
    }

    fn into_asked(mut self) -> Result<Asked, String> {
        let mut url = self.url.take().ok_or("the command has no URL")?;
        let data = self.data.take();
        let (data, method) = match (data, self.gets, self.is_head) {
            (Some(data), true, _) => {
                let query = String::from_utf8(data).map_err(|_| "the query is not UTF-8")?;
                let mark = if url.contains('?') { '&' } else { '?' };
                url = format!("{url}{mark}{query}");
                (None, "GET")
            }
            (data, _, true) => (data, "HEAD"),
            (Some(data), ..) => (Some(data), "POST"),
            (None, ..) => (None, "GET"),
        };
        if self.is_json {
            self.own("content-type", "application/json");
            self.own("accept", "application/json");
        } else if data.is_some() {
            self.own("content-type", "application/x-www-form-urlencoded");
        }
        self.own("accept", "*/*");
        self.own("user-agent", "curl");
        let headers = self.headers.into_iter();
        Ok(Asked {
            method: self.method.unwrap_or_else(|| method.into()),
            url,
            headers: headers
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            body: data.unwrap_or_default(),
            is_bare: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
        let found = asked.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_documented_command_is_the_request_that_curl_sends() {
        let asked = read(
            "curl https://api.openai.com/v1/chat/completions \\\n  -H \"Content-Type: \
             application/json\" \\\n  -H \"Authorization: Bearer $OPENAI_API_KEY\" \\\n  -d '{\n \
             \"model\": \"m\"}'",
        )
        .expect("a command");
        assert_eq!(asked.method, "POST");
        assert_eq!(asked.url, "https://api.openai.com/v1/chat/completions");
        assert_eq!(header(&asked, "content-type"), Some("application/json"));
        assert_eq!(
            header(&asked, "authorization"),
            Some("Bearer $OPENAI_API_KEY")
        );
        assert_eq!(asked.body, b"{\n \"model\": \"m\"}");
    }

    #[test]
    fn options_mean_what_they_mean_to_curl() {
        let check = |text: &str, method: &str, url: &str, body: &str| {
            let asked = read(text).expect(text);
            let got = (asked.method.as_str(), asked.url.as_str());
            assert_eq!(got, (method, url), "{text}");
            assert_eq!(asked.body, body.as_bytes(), "{text}");
        };
        check("curl a.test", "GET", "http://a.test", "");
        check("curl -sSLd1 -d 2 http://a", "POST", "http://a", "1&2");
        check("curl --json 1 --json 2 http://a", "POST", "http://a", "12");
        check(
            "curl -XPUT --data-raw @x --url http://a",
            "PUT",
            "http://a",
            "@x",
        );
        check(
            "curl -G -d a=1 --data-urlencode 'b= ü' http://a?c",
            "GET",
            "http://a?c&a=1&b=%20%C3%BC",
            "",
        );
        check("curl -I http://a", "HEAD", "http://a", "");
        check(
            "curl -m 5 -o /x --retry 3 -- http://a",
            "GET",
            "http://a",
            "",
        );
        check("curl http://a -d @- <<X\n{}\nX\n", "POST", "http://a", "{}");
        let asked = read("curl http://a -H 'X-A;' -H 'Accept:' -A me --json 1").expect("a command");
        assert_eq!(header(&asked, "x-a"), Some(""));
        assert_eq!(header(&asked, "accept"), None);
        assert_eq!(header(&asked, "user-agent"), Some("me"));
        assert_eq!(header(&asked, "content-type"), Some("application/json"));
    }

    #[test]
    fn what_is_not_understood_is_named_without_values() {
        for (text, part) in [
            ("curl", "no URL"),
            ("curl http://a http://b", "several URLs"),
            ("curl --frob sk-secret http://a", "`--frob`"),
            ("curl -! http://a", "`-!`"),
            ("curl http://a -d", "`data`"),
            ("curl http://a -F file=@sk-secret", "form"),
            ("curl http://a -d @-", "standard input"),
            ("curl http://a -b sk-secret", "cookies"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
