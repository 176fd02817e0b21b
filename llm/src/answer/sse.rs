//! Frames of a server-sent event stream, by the rules of the WHATWG standard (HTML, section
//! 9.2.6), however the bytes are cut into chunks.
//!
//! This knows framing only; `judge.rs` interprets the frames.

use alloc::vec::Vec;

use crate::Rejected;

/// A frame, which a blank line completes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'f> {
    /// The event's name, empty if it has none.
    pub(crate) event: &'f [u8],
    /// The data lines, joined by line feeds; none without such a line. Clients do not see a frame
    /// without data.
    pub(crate) data: Option<&'f [u8]>,
}

/// Whether more frames may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Next {
    /// They may.
    #[default]
    More,
    /// The terminal event. Only comments and blank lines may follow.
    End,
    /// This was the last, but some gateways put [`DONE`] behind it.
    EndButForDone,
}

/// The data of the frame that ends OpenAI's older streams.
pub(crate) const DONE: &[u8] = b"[DONE]";

/// Room that is kept for the next frame. Most are shorter.
const ROOM_BYTES: usize = 16 << 10;

/// Cuts a stream into frames. It holds what has come of the frame that is not complete, which the
/// caller bounds and can count ([`held_bytes`](Self::held_bytes)).
#[derive(Default)]
pub(crate) struct Frames {
    /// The part of a line whose end has not come yet.
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The first line is past; only it may begin with a byte order mark.
    begun: bool,
    /// The last byte was a carriage return. It ended a line, and a line feed that follows
    /// belongs to it.
    after_return: bool,
    /// Some line ended in both.
    pairs: bool,
    /// Whether further frames may follow.
    next: Next,
}

impl Frames {
    /// Reads a chunk and calls `each` for every frame that it completes.
    ///
    /// # Errors
    ///
    /// The error of `each`, or [`Rejected::AfterEnd`].
    pub(crate) fn feed(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<Next, Rejected>,
    ) -> Result<(), Rejected> {
        while let Some(&first) = chunk.first() {
            if core::mem::take(&mut self.after_return) && first == b'\n' {
                self.pairs = true;
                chunk = &chunk[1..];
                continue;
            }
            let end = line_end(chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                return Ok(());
            };
            if self.line.is_empty() {
                self.end_line(part, &mut each)?;
            } else {
                let mut line = core::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.end_line(&line, &mut each)?;
                clear(&mut line);
                self.line = line;
            }
            self.after_return = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
        }
        Ok(())
    }

    /// Memory that is held for the frame that is not complete, in bytes: a line as it comes, and the
    /// data of the lines before it. At most four times what has come of the frame, or the room for
    /// short ones.
    pub(crate) fn held_bytes(&self) -> usize {
        self.line.capacity() + self.event.capacity() + self.data.capacity()
    }

    /// Whether the last frame has come and the bytes may end here: not inside a line, and not
    /// inside the pair that ends one, in a stream that uses pairs.
    pub(crate) fn is_complete(&self) -> bool {
        self.next != Next::More && self.is_between_frames()
    }

    /// Whether nothing has come of a next frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        let cut = self.after_return && self.pairs;
        self.mark_gone(&self.line).is_empty() && !self.has_data && self.event.is_empty() && !cut
    }

    /// A line, or its bytes so far, without the byte order mark that the first line may begin with.
    fn mark_gone<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        let marked = line.strip_prefix(b"\xef\xbb\xbf");
        marked.filter(|_| !self.begun).unwrap_or(line)
    }

    fn end_line(
        &mut self,
        line: &[u8],
        each: &mut impl FnMut(Frame<'_>) -> Result<Next, Rejected>,
    ) -> Result<(), Rejected> {
        let line = self.mark_gone(line);
        self.begun = true;
        if line.is_empty() {
            return self.end_frame(each);
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        if name.is_empty() {
            return Ok(());
        }
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let is_done = name == b"data" && value == DONE && !self.has_data;
        match self.next {
            Next::More => {}
            Next::EndButForDone if is_done => {}
            Next::End | Next::EndButForDone => return Err(Rejected::AfterEnd),
        }
        match name {
            b"data" => {
                if core::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            // `id` and `retry` are about reconnecting; the rest is to be ignored.
            _ => {}
        }
        Ok(())
    }

    fn end_frame(
        &mut self,
        each: &mut impl FnMut(Frame<'_>) -> Result<Next, Rejected>,
    ) -> Result<(), Rejected> {
        if self.has_data || !self.event.is_empty() {
            self.next = match self.next {
                Next::More => each(Frame {
                    event: &self.event,
                    data: self.has_data.then_some(&self.data),
                })?,
                // The one `[DONE]` that may follow the terminal event.
                Next::End | Next::EndButForDone => Next::End,
            };
        }
        clear(&mut self.event);
        clear(&mut self.data);
        self.has_data = false;
        Ok(())
    }
}

/// Where the line ends that the chunk begins in. Looks at blocks, which the compiler turns into SIMD.
fn line_end(chunk: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let (blocks, _) = chunk.as_chunks::<BLOCK>();
    let without = |block: &&[u8; BLOCK]| {
        let ends = block.map(|byte| u8::from(byte == b'\n') | u8::from(byte == b'\r'));
        ends.iter().fold(0, |any, end| any | end) == 0
    };
    let skipped = BLOCK * blocks.iter().take_while(without).count();
    let at = chunk[skipped..].iter().position(is_end)?;
    Some(skipped + at)
}

/// Empties a buffer, and gives back what a long frame took.
fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > ROOM_BYTES {
        *buffer = Vec::new();
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
        let (first, second) = text.as_bytes().split_at(cut);
        for chunk in [first, second] {
            let fed = frames.feed(chunk, |frame| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
                seen.push((text(frame.event), frame.data.map(text)));
                Ok(Next::More)
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

    /// A stream was held twice beyond what is counted, and one long frame for as long as the stream.
    #[test]
    fn what_is_held_of_a_frame_is_bounded_by_it_and_given_back() {
        let mut frames = Frames::default();
        let mut feed = |text: &[u8]| {
            assert_eq!(frames.feed(text, |_| Ok(Next::More)), Ok(()));
            frames.held_bytes()
        };
        let part = [b'x'; 1000];
        let mut come = 0;
        for line in [1_u32, 200, 30] {
            come += b"data: ".len();
            feed(b"data: ");
            for _ in 0..line {
                come += part.len();
                let held = feed(&part);
                assert!(
                    held >= come - 12 && held <= 4 * come + 64,
                    "{held} for {come}"
                );
            }
            feed(b"\n");
        }
        assert!(feed(b"\n") <= 2 * ROOM_BYTES);
        for _ in 0..100 {
            assert!(feed(b"event: a\ndata: b\n\n") <= 3 * ROOM_BYTES);
        }
    }

    /// Found by the fuzzer: the mark alone counted as the beginning of a frame.
    #[test]
    fn a_byte_order_mark_at_the_beginning_is_nothing_of_a_frame() {
        let is_between = |text: &[u8]| {
            let mut frames = Frames::default();
            let fed = frames.feed(text, |_| Ok(Next::More));
            assert_eq!(fed, Ok(()));
            frames.is_between_frames()
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
