//! A stream of server-sent events as a list that can be read in a diff, from which the stream is restored to the byte.

use super::redact::Redactor;
use super::text::{self, Style, styled};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt::Write as _;

/// Delays are written in steps of so many milliseconds: finer ones would differ with each recording.
const DELAY_STEP_MS: u64 = 10;

/// When a part of a body had come: up to which byte, and how many milliseconds after the request was sent.
pub(super) type Arrival = (usize, u64);

/// An event, and its time after the one before, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    after_ms: u64,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// An `event` line, if it has one, and one `data` line.
    Plain { event: Option<String>, data: Data },
    /// Anything else, as it came.
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    /// JSON in the style of the stream; here without white space.
    Json(String),
    Text(String),
}

/// A stream of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Events {
    events: Vec<Event>,
    /// Ends each line: a line feed, or that behind a carriage return.
    newline: &'static str,
    style: Style,
}

/// An event as a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEvent<'f> {
    #[serde(default)]
    after_ms: u64,
    event: Option<String>,
    #[serde(borrow)]
    json: Option<&'f RawValue>,
    data: Option<String>,
    text: Option<String>,
}

impl Events {
    /// Reads a stream. What a redactor takes out of it is gone.
    pub(super) fn read(stream: &str, arrivals: &[Arrival], redactor: &Redactor) -> Self {
        let newline = match stream.contains("\r\n") {
            true => "\r\n",
            false => "\n",
        };
        let pieces = pieces(stream, newline);
        let first_json = pieces.iter().find_map(|piece| {
            let (_, data) = parts(piece, newline)?;
            Style::of(data).filter(|_| data.starts_with('{') && text::is_json(data))
        });
        let style = match first_json {
            // Lines within the data would be `data` lines of their own.
            Some(Style::Indented) | None => Style::Compact,
            Some(style) => style,
        };
        let mut arrivals = arrivals.iter();
        let mut arrival = arrivals.next();
        let (mut end, mut before_ms, mut events) = (0, 0, Vec::with_capacity(pieces.len()));
        for piece in pieces {
            end += piece.len();
            while let Some((up_to, _)) = arrival
                && *up_to < end
            {
                arrival = arrivals.next();
            }
            let at_ms = arrival.map_or(before_ms, |(_, ms)| ms - ms % DELAY_STEP_MS);
            let after_ms = at_ms.saturating_sub(before_ms);
            before_ms = at_ms.max(before_ms);
            let said = Said::read(piece, newline, style, redactor);
            events.push(Event { after_ms, said });
        }
        Self {
            events,
            newline,
            style,
        }
    }

    /// Reads what a file has.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn of_file(
        events: Vec<FileEvent<'_>>,
        newline: Option<&str>,
        style: Style,
    ) -> Result<Self, String> {
        let newline = match newline {
            None => "\n",
            Some("\r\n") => "\r\n",
            Some(_) => return Err("newline is not \"\\r\\n\"".into()),
        };
        let events = events.into_iter().map(Event::of_file);
        Ok(Self {
            events: events.collect::<Result<_, _>>()?,
            newline,
            style,
        })
    }

    /// The stream's parts with the time of each after the one before, in milliseconds.
    pub(super) fn restored(&self) -> Vec<(u64, Bytes)> {
        let restored = self.events.iter().map(|event| {
            let said = event.said.restored(self.newline, self.style);
            (event.after_ms, Bytes::from(said))
        });
        restored.collect()
    }

    /// Writes the members of a file's object.
    pub(super) fn write(&self, out: &mut String) {
        // Writing to a string does not fail.
        if self.newline != "\n" {
            let _ = write!(out, ",\n    \"newline\": {}", text::quoted(self.newline));
        }
        if let Some(style) = self.style.name() {
            let _ = write!(out, ",\n    \"style\": {}", text::quoted(style));
        }
        out.push_str(",\n    \"events\": [");
        for (number, event) in self.events.iter().enumerate() {
            out.push_str(match number {
                0 => "\n      ",
                _ => ",\n      ",
            });
            let _ = write!(out, "{{ \"after_ms\": {}", event.after_ms);
            match &event.said {
                Said::Plain { event, data } => {
                    if let Some(event) = event {
                        let _ = write!(out, ", \"event\": {}", text::quoted(event));
                    }
                    let _ = match data {
                        Data::Json(json) => write!(out, ", \"json\": {json}"),
                        Data::Text(data) => write!(out, ", \"data\": {}", text::quoted(data)),
                    };
                }
                Said::Text(said) => {
                    let _ = write!(out, ", \"text\": {}", text::quoted(said));
                }
            }
            out.push_str(" }");
        }
        out.push_str(match self.events.is_empty() {
            true => "]",
            false => "\n    ]",
        });
    }
}

impl Event {
    fn of_file(event: FileEvent<'_>) -> Result<Self, String> {
        let FileEvent {
            after_ms,
            event,
            json,
            data,
            text,
        } = event;
        let is_line = |text: &String| !text.contains(['\n', '\r']);
        let said = match (json, data, text) {
            (Some(json), None, None) if text::is_shallow(json.get()) => Said::Plain {
                event,
                data: Data::Json(styled(json.get(), Style::Compact, "")),
            },
            (None, Some(data), None) if is_line(&data) => Said::Plain {
                event,
                data: Data::Text(data),
            },
            (None, None, Some(text)) if event.is_none() => Said::Text(text),
            _ => return Err("an event has one of json (not too deep), data and text".into()),
        };
        if let Said::Plain {
            event: Some(name), ..
        } = &said
            && !is_line(name)
        {
            return Err("the name of an event is one line".into());
        }
        Ok(Self { after_ms, said })
    }
}

impl Said {
    fn read(piece: &str, newline: &str, style: Style, redactor: &Redactor) -> Self {
        let Some((event, data)) = parts(piece, newline) else {
            return Self::Text(redactor.text(piece));
        };
        let data = match text::is_json(data) {
            true => {
                let data = redactor.json(data);
                let compact = styled(&data, Style::Compact, "");
                match styled(&compact, style, "") == data {
                    true => Data::Json(compact),
                    false => Data::Text(data),
                }
            }
            false => Data::Text(redactor.text(data)),
        };
        let event = event.map(|event| redactor.text(event));
        Self::Plain { event, data }
    }

    fn restored(&self, newline: &str, style: Style) -> String {
        let (event, data) = match self {
            Self::Text(text) => return text.clone(),
            Self::Plain { event, data } => (event, data),
        };
        let mut said = String::new();
        if let Some(event) = event {
            // Writing to a string does not fail.
            let _ = write!(said, "event: {event}{newline}");
        }
        let _ = match data {
            Data::Json(json) => write!(said, "data: {}", styled(json, style, "")),
            Data::Text(data) => write!(said, "data: {data}"),
        };
        said.push_str(newline);
        said.push_str(newline);
        said
    }
}

/// The events, each with the empty line behind it; what comes behind the last one is another.
fn pieces<'s>(stream: &'s str, newline: &str) -> Vec<&'s str> {
    let end = format!("{newline}{newline}");
    stream.split_inclusive(end.as_str()).collect()
}

/// The name and the data of an event that has these lines alone.
fn parts<'s>(piece: &'s str, newline: &str) -> Option<(Option<&'s str>, &'s str)> {
    let lines = piece.strip_suffix(newline)?.strip_suffix(newline)?;
    let (event, data) = match lines.strip_prefix("event: ") {
        Some(rest) => {
            let (event, data) = rest.split_once(newline)?;
            (Some(event), data)
        }
        None => (None, lines),
    };
    let data = data.strip_prefix("data: ")?;
    let has_line = |text: &str| text.contains(['\n', '\r']);
    (!has_line(data) && !event.is_some_and(has_line)).then_some((event, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: &str) -> Events {
        let events = Events::read(stream, &[(stream.len(), 0)], &Redactor::of_none());
        let restored: Vec<u8> = events
            .restored()
            .iter()
            .flat_map(|(_, it)| it.to_vec())
            .collect();
        assert_eq!(String::from_utf8_lossy(&restored), stream);
        let mut file = String::from("{ \"a\": 1");
        events.write(&mut file);
        file.push('}');
        #[derive(Deserialize)]
        struct Read<'f> {
            newline: Option<String>,
            style: Option<String>,
            #[serde(borrow)]
            events: Vec<FileEvent<'f>>,
        }
        let read: Read<'_> = serde_json::from_str(&file).expect("JSON");
        let style = Style::from_name(read.style.as_deref()).expect("a style");
        let read = Events::of_file(read.events, read.newline.as_deref(), style);
        assert_eq!(read.as_ref(), Ok(&events), "{file}");
        events
    }

    #[test]
    fn each_stream_is_restored_to_the_byte() {
        for stream in [
            "",
            "data: {\"a\":1}\n\ndata: [DONE]\n\n",
            "event: message_start\ndata: {\"a\": 1, \"b\": [1, 2]}\n\n: ping\n\n",
            "data: {\"a\":1}\r\n\r\ndata: {}\r\n\r\n",
            "data: {\"a\":1}\n\ndata: {\"a\":",
            "data:{\"a\":1}\n\nid: 7\ndata: x\ndata: y\n\n\n\n",
            "data: {\"a\": 1}\n\ndata: {\"b\":1}\n\n",
            "data: { \"a\":1}\n\nretry: 3\n\n",
            "data: ü\r\n\r\ndata: a\n\n",
            "data: a\rb\n\n",
            "data: \"sk\"\n\n",
        ] {
            check(stream);
        }
        let events = check("event: a\ndata: {\"a\": 1}\n\n");
        assert_eq!(events.style, Style::Spaced);
    }

    #[test]
    fn delays_are_in_steps_and_add_up() {
        let stream = "data: 1\n\ndata: 2\n\ndata: 3\n\n";
        let arrivals = [(9, 14), (10, 25), (18, 29), (27, 131)];
        let events = Events::read(stream, &arrivals, &Redactor::of_none());
        let delays: Vec<u64> = events.restored().iter().map(|(ms, _)| *ms).collect();
        assert_eq!(delays, [10, 10, 110]);
    }

    #[test]
    fn a_file_cannot_slip_lines_into_an_event() {
        for event in [
            "{\"data\": \"a\\n\\ndata: b\"}",
            "{\"event\": \"a\\nb\", \"data\": \"c\"}",
            "{\"event\": \"a\", \"text\": \"c\"}",
            "{\"json\": 1, \"data\": \"c\"}",
            "{}",
        ] {
            let event: FileEvent<'_> = serde_json::from_str(event).expect("an event");
            assert!(Event::of_file(event).is_err());
        }
    }
}
