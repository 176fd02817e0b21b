//! Frames of a server-sent event stream, by the rules of the WHATWG standard (HTML, section
//! 9.2.6), however the bytes are cut into chunks.
//!
//! This knows framing only. What the frames mean is `answer.rs`'s.

use alloc::vec::Vec;
use core::ops::Range;

use crate::Rejected;

/// What a blank line completes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'f> {
    /// The event's name, empty if it has none.
    pub(crate) event: &'f [u8],
    /// The data lines, joined by line feeds; none if there was no such line. A client does not
    /// get to see a frame without data.
    pub(crate) data: Option<&'f [u8]>,
}

/// Whether more frames may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They may.
    #[default]
    More,
    /// This was the last. Only comments and blank lines are borne from now on.
    End,
    /// This was the last, but some gateways put [`DONE`] behind it.
    EndButForDone,
}

/// The data of the frame that ends OpenAI's older streams.
pub(crate) const DONE: &[u8] = b"[DONE]";

/// Cuts a stream into frames. The stream itself stays with the caller, who bounds it: a frame of
/// one data line, however long, is a part of it and takes no memory here.
#[derive(Default)]
pub(crate) struct Frames {
    /// How much of the stream was looked at.
    at: usize,
    /// Where the line begins whose end has not come yet.
    line: usize,
    event: Range<usize>,
    data: Data,
    /// The first line is past; only it may begin with a byte order mark.
    begun: bool,
    /// The last byte was a carriage return. It ended a line, and a line feed that follows
    /// belongs to it.
    after_return: bool,
    /// Some line ended in both.
    pairs: bool,
    /// What the frames so far say of those to come.
    flow: Flow,
}

/// The data lines of a frame.
#[derive(Default)]
enum Data {
    #[default]
    None,
    /// One, and where it stands in the stream.
    One(Range<usize>),
    /// Several, joined. Never longer than the stream.
    Joined(Vec<u8>),
}

impl Frames {
    /// Looks at what has come of the stream since the last call, and calls `each` for every frame
    /// that it completes. `stream` is everything so far.
    ///
    /// # Errors
    ///
    /// What `each` says, or [`Rejected::AfterEnd`].
    pub(crate) fn feed(
        &mut self,
        stream: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<Flow, Rejected>,
    ) -> Result<(), Rejected> {
        while let Some(&first) = stream.get(self.at) {
            if core::mem::take(&mut self.after_return) && first == b'\n' {
                self.pairs = true;
                self.at += 1;
                self.line = self.at;
                continue;
            }
            let rest = &stream[self.at..];
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.at = stream.len();
                return Ok(());
            };
            let (start, end) = (self.line, self.at + end);
            self.at = end + 1;
            self.line = self.at;
            self.after_return = stream[end] == b'\r';
            self.end_line(stream, start..end, &mut each)?;
        }
        Ok(())
    }

    /// Whether the last frame has come and the bytes may end here: not inside a line, and not
    /// inside the pair that ends one, in a stream that uses pairs.
    pub(crate) fn is_complete(&self, stream: &[u8]) -> bool {
        self.flow != Flow::More && self.is_between_frames(stream)
    }

    /// Whether nothing has come of a next frame.
    pub(crate) fn is_between_frames(&self, stream: &[u8]) -> bool {
        let cut = self.after_return && self.pairs;
        let line = self.mark_gone(stream, self.line..stream.len());
        line.is_empty() && !self.has_data() && self.event.is_empty() && !cut
    }

    fn has_data(&self) -> bool {
        !matches!(self.data, Data::None)
    }

    /// A line, or what has come of it, without the byte order mark that the first may begin with.
    fn mark_gone(&self, stream: &[u8], line: Range<usize>) -> Range<usize> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let is_marked = !self.begun && stream[line.clone()].starts_with(MARK);
        match is_marked {
            true => line.start + MARK.len()..line.end,
            false => line,
        }
    }

    fn end_line(
        &mut self,
        stream: &[u8],
        line: Range<usize>,
        each: &mut impl FnMut(Frame<'_>) -> Result<Flow, Rejected>,
    ) -> Result<(), Rejected> {
        let line = self.mark_gone(stream, line);
        self.begun = true;
        if line.is_empty() {
            return self.end_frame(stream, each);
        }
        let text = &stream[line.clone()];
        let colon = text.iter().position(|&byte| byte == b':');
        let name = &text[..colon.unwrap_or(text.len())];
        if name.is_empty() {
            return Ok(());
        }
        let mut start = line.start + colon.map_or(text.len(), |at| at + 1);
        if colon.is_some() && stream[start..line.end].first() == Some(&b' ') {
            start += 1;
        }
        let value = start..line.end;
        let is_done = name == b"data" && &stream[value.clone()] == DONE && !self.has_data();
        match self.flow {
            Flow::More => {}
            Flow::EndButForDone if is_done => {}
            Flow::End | Flow::EndButForDone => return Err(Rejected::AfterEnd),
        }
        match name {
            b"data" => {
                self.data = match core::mem::take(&mut self.data) {
                    Data::None => Data::One(value),
                    Data::One(first) => {
                        Data::Joined([&stream[first], b"\n", &stream[value]].concat())
                    }
                    Data::Joined(mut lines) => {
                        lines.push(b'\n');
                        lines.extend_from_slice(&stream[value]);
                        Data::Joined(lines)
                    }
                };
            }
            b"event" => self.event = value,
            // `id` and `retry` are about reconnecting; the rest is to be ignored.
            _ => {}
        }
        Ok(())
    }

    fn end_frame(
        &mut self,
        stream: &[u8],
        each: &mut impl FnMut(Frame<'_>) -> Result<Flow, Rejected>,
    ) -> Result<(), Rejected> {
        let data = core::mem::take(&mut self.data);
        let event = core::mem::take(&mut self.event);
        let data = match &data {
            Data::None if event.is_empty() => return Ok(()),
            Data::None => None,
            Data::One(line) => Some(&stream[line.clone()]),
            Data::Joined(lines) => Some(&lines[..]),
        };
        self.flow = match self.flow {
            Flow::More => each(Frame {
                event: &stream[event],
                data,
            })?,
            // It was the one `[DONE]` that may follow the last event.
            Flow::End | Flow::EndButForDone => Flow::End,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;

    use super::*;

    /// The frames of a text that is cut at a place: event, data.
    fn frames(text: &str, cut: usize) -> Vec<(String, Option<String>)> {
        let mut seen = Vec::new();
        let mut frames = Frames::default();
        let (first, _) = text.as_bytes().split_at(cut);
        for stream in [first, text.as_bytes()] {
            let fed = frames.feed(stream, |frame| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
                seen.push((text(frame.event), frame.data.map(text)));
                Ok(Flow::More)
            });
            assert_eq!(fed, Ok(()));
        }
        seen
    }

    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            for cut in 0..=text.len() {
                let seen = frames(&text, cut);
                let seen: Vec<_> = seen
                    .iter()
                    .map(|(event, data)| (event.as_str(), data.as_deref()))
                    .collect();
                assert_eq!(seen, expected, "{text:?} cut at {cut}");
            }
        }
    }

    /// The first four are the examples of the standard.
    #[test]
    fn frames_are_those_of_the_standard() {
        let data = |data| ("", Some(data));
        check(
            "data: YHOO\ndata: +2\ndata: 10\n\n",
            &[data("YHOO\n+2\n10")],
        );
        check(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[
                data("first event"),
                data("second event"),
                data(" third event"),
            ],
        );
        // The last is not complete.
        check("data\n\ndata\ndata\n\ndata:", &[data(""), data("\n")]);
        check("data:test\n\ndata: test\n\n", &[data("test"), data("test")]);
        check(
            "event: a\ndata: x\n\ndata: y\n\n",
            &[("a", Some("x")), data("y")],
        );
        check("event: a\nevent: b\ndata: x\n\n", &[("b", Some("x"))]);
        check("event: a\n\n\n\n", &[("a", None)]);
        check("\u{feff}data: x\n\n\u{feff}data: y\n\n", &[data("x")]);
        check("Data: x\n data: x\ndata : x\n\n", &[]);
        check("data: a:b: c\n\n", &[data("a:b: c")]);
        check("data: x", &[]);
        check("data: x\n", &[]);
    }

    /// Found by the fuzzer: the mark alone counted as the beginning of a frame.
    #[test]
    fn a_byte_order_mark_at_the_beginning_is_nothing_of_a_frame() {
        let is_between = |text: &[u8]| {
            let mut frames = Frames::default();
            let fed = frames.feed(text, |_| Ok(Flow::More));
            assert_eq!(fed, Ok(()));
            frames.is_between_frames(text)
        };
        assert!(is_between(b"\xef\xbb\xbf"));
        assert!(!is_between(b"\xef\xbb"));
        assert!(!is_between(b"\xef\xbb\xbf\xef\xbb\xbf"));
        assert!(!is_between(b"\n\xef\xbb\xbf"));
    }

    #[test]
    fn ends_of_lines_may_be_mixed() {
        let text = "data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r";
        let expected = vec![
            (String::new(), Some("a\nb\nc".to_string())),
            (String::new(), Some("d".to_string())),
        ];
        for cut in 0..=text.len() {
            assert_eq!(frames(text, cut), expected, "{cut}");
        }
    }
}
