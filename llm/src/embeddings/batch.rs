//! A request for several vectors as the requests for each of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::json::Kind;
use crate::json::spans::{self, Span};
use crate::{Api, Candidate, Key};

/// The longest batch that is taken apart, which is the longest that OpenAI takes. A longer one is
/// one entry.
pub const ELEMENTS_MAX: usize = 2048;

/// Whether batches are taken apart. With several answers to one request, a batch is kept as a whole:
/// its texts would come from answers of different turns.
pub const fn are_taken_apart(samples: u32) -> bool {
    samples <= 1
}

/// The most bytes around the texts: model, options, user. They are hashed for each text.
const AROUND_BYTES_MAX: usize = 4096;

/// The fields that a request may have to be taken apart. Each is about every text by itself. Other
/// fields may not be: Jina's `late_chunking` makes the vector of a text depend on the texts before
/// it.
const FIELDS: [&[u8]; 10] = [
    b"dimensions",
    b"encoding_format",
    INPUT,
    b"input_type",
    b"model",
    b"output_dimension",
    b"output_dtype",
    b"truncate",
    b"truncation",
    b"user",
];

const INPUT: &[u8] = b"input";

/// A request whose input is an array of texts.
#[derive(Debug)]
pub struct Batch<'b> {
    body: &'b [u8],
    /// The array.
    input: Span,
    /// Each text once, with its quotes, in the order in which they come first.
    texts: Vec<Span>,
    elements: Vec<Element>,
    places: Vec<u32>,
}

/// One text of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// The key of the request that asks for this text alone, as a string.
    pub key: Key,
    /// The length of the text as spelled, quotes included: its weight where only the cost of the
    /// whole batch is known.
    pub bytes: u32,
}

impl Candidate<'_> {
    /// The texts that a request asks for, if they can be asked for one by one. None for another
    /// API; for an input that is not an array of strings, such as one of tokens; for more than
    /// [`ELEMENTS_MAX`]; and for fields that are not known to be about each text for itself.
    pub fn batch<'b>(&self, body: &'b [u8]) -> Option<Batch<'b>> {
        if self.api != Api::Embeddings {
            return None;
        }
        let prepared = self.prepare();
        let whole = prepared.read(body).ok()?;
        // Keys with escapes are told apart from these below.
        let mut names = whole.root().members().filter_map(|(key, _)| key);
        if !names.all(|name| FIELDS.contains(&&*name.name())) {
            return None;
        }
        let input = whole.root().get("input")?;
        let is_text = |kind| kind == Kind::String;
        let count = input.elements().count();
        let are_texts = input.elements().all(|element| is_text(element.kind()));
        if !(1..=ELEMENTS_MAX).contains(&count) || !are_texts {
            return None;
        }

        let members = spans::members(body, spans::root(body)?)?;
        let name = |(key, _): &(Span, Span)| &body[key.clone()];
        if !members.iter().all(|member| FIELDS.contains(&name(member))) {
            return None;
        }
        let (_, input) = members.into_iter().find(|member| name(member) == INPUT)?;
        let texts = spans::elements(body, input.clone())?;
        if body.len() - input.len() > AROUND_BYTES_MAX || texts.len() != count {
            return None;
        }

        let mut batch = Batch {
            body,
            input,
            texts: Vec::new(),
            elements: Vec::new(),
            places: Vec::with_capacity(count),
        };
        let mut known = BTreeMap::new();
        let mut alone = Vec::new();
        for text in texts {
            alone.clear();
            batch.write(&mut alone, |out| out.extend_from_slice(&body[text.clone()]));
            let key = prepared.exchange(&prepared.read(&alone).ok()?).key;
            let next = batch.elements.len() as u32;
            let number = *known.entry(key.digest).or_insert(next);
            if number == next {
                let bytes = text.len() as u32;
                batch.elements.push(Element { key, bytes });
                batch.texts.push(text);
            }
            batch.places.push(number);
        }
        Some(batch)
    }
}

impl Batch<'_> {
    /// Each text once, in the order in which they come first.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Which of the [`elements`](Self::elements) stands at each place of the input.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// The client's body, asking for these elements only, each once, in this order. Numbers without
    /// an element are passed over.
    pub fn asking(&self, numbers: &[u32]) -> Vec<u8> {
        let texts = numbers
            .iter()
            .filter_map(|&number| self.texts.get(number as usize));
        let mut body = Vec::new();
        self.write(&mut body, |out| {
            out.push(b'[');
            for (place, text) in texts.enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&self.body[text.clone()]);
            }
            out.push(b']');
        });
        body
    }

    /// The body with another input.
    fn write(&self, out: &mut Vec<u8>, input: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.body[..self.input.start]);
        input(out);
        out.extend_from_slice(&self.body[self.input.end..]);
    }
}
