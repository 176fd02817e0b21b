//! The one JSON reader, for requests and answers: one pass over the bytes.
//!
//! It is stricter than most. What two readers could understand differently (a key twice, half a
//! surrogate pair, a byte order mark) is refused, because the provider's reader may be the
//! other one. It neither recurses nor allocates per token, and copies no string.
//!
//! A text of up to [`NODES_MAX`] values becomes a list of them. A longer one is checked just as
//! strictly and keeps no list: its values are found in the text each time they are asked for. So
//! reading takes a bounded amount of memory beside the text, whatever the text is made of; only
//! the keys of one object are held all together, in four bytes each.
//!
//! Answers are read by the same grammar, with two differences ([`read_answer`]). Half a surrogate
//! pair is accepted: a stream that splits an emoji has one, and a replay has the same bytes. An
//! array of numbers is one node: vectors are long, and no reader of answers looks at one number.

mod document;
mod reader;
mod skip;
pub(crate) mod spans;
mod string;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use document::{Document, Spelled};
pub(crate) use reader::{read, read_answer};
pub(crate) use skip::{space, value_end};
pub(crate) use string::{Halves, run, scan, unescape};
pub(crate) use value::{Members, Value};

/// Arrays and objects inside each other. Real requests stay below 20, and the readers of
/// providers give up at 128 or earlier.
pub(crate) const DEPTH_MAX: usize = 128;

/// Values and keys that are listed; they take 8 bytes each, 256 KiB in all. A request of a megabyte
/// has about as many. Under the fuzzer, most texts have more.
pub(crate) const NODES_MAX: usize = if cfg!(fuzzing) { 8 } else { 32 << 10 };

/// Positions are kept in 28 bits, beside the four of a form.
pub(crate) const TEXT_BYTES_MAX: usize = (1 << POSITION_BITS) - 1;

const POSITION_BITS: u32 = 28;

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// An object has a key twice, compared by value.
    DuplicateKey,
    /// It is not UTF-8. Named before any fault of the JSON.
    NotUtf8,
    /// An escape stands for half of a surrogate pair.
    Surrogate,
    /// It is not JSON.
    Syntax,
    /// It is nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// It is longer than [`TEXT_BYTES_MAX`].
    TooLarge,
    /// The value is followed by more than white space.
    Trailing,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number, as spelled.
    Number,
    /// A string, or the key of an object.
    String,
    /// An array.
    Array,
    /// An array of one number or more, of an answer. Its elements were checked and dropped.
    Numbers,
    /// An object.
    Object,
}
