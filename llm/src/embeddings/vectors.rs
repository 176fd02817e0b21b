//! An answer with vectors as its parts, and the answers that can be made of them.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::json::spans::{self, Span};

/// The places of an answer's parts in its text. Each call takes the text itself.
///
/// Exists only for an answer of known fields: a vector for each text, in order, all of one kind and
/// length; the model; the tokens that it cost, if stated; and fields about this one exchange (`id`,
/// `created`), which stay in all answers made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vectors {
    items: Vec<Item>,
    model: Span,
    usage: Option<Usage>,
    kind: VectorKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    whole: Span,
    /// Its number.
    index: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Usage {
    prompt: Span,
    total: Span,
    tokens: Tokens,
}

/// How vectors are written, the same for all vectors of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VectorKind {
    /// This many numbers.
    Numbers(usize),
    /// A string of this many bytes: numbers in base64.
    Text(usize),
}

/// The cost of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// `prompt_tokens`
    pub prompt: u64,
    /// `total_tokens`
    pub total: u64,
}

impl Tokens {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.saturating_add(other.prompt),
            total: self.total.saturating_add(other.total),
        }
    }
}

/// The text around the items of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Up to the first item.
    pub before: Vec<u8>,
    /// From each item to the next.
    pub between: Vec<u8>,
    /// From the last item on.
    pub after: Vec<u8>,
}

impl Vectors {
    /// Finds the parts of the answer to `count` texts, which a [`Recorder`](crate::Recorder) has
    /// found good. None if it is not certain which part belongs to which text, or to all.
    pub fn read(text: &[u8], count: usize) -> Option<Self> {
        let (mut data, mut model, mut usage) = (None, None, None);
        for (key, value) in spans::members(text, spans::root(text)?)? {
            let spelling = &text[value.clone()];
            match &text[key] {
                b"object" if spelling == b"\"list\"" => {}
                b"data" if data.is_none() => data = Some(value),
                b"model" if model.is_none() && is_string(spelling) => model = Some(value),
                b"usage" if usage.is_none() => usage = Some(value),
                // Of the exchange, not of the vectors: vLLM's and Mistral's.
                b"id" if is_string(spelling) => {}
                b"created" if number(spelling).is_some() => {}
                _ => return None,
            }
        }
        let mut kind = None;
        let mut items = Vec::new();
        for (place, item) in spans::elements(text, data?)?.into_iter().enumerate() {
            let (item, own) = read_item(text, item, place)?;
            if *kind.get_or_insert(own) != own {
                return None;
            }
            items.push(item);
        }
        let usage = match usage {
            None => None,
            Some(usage) => Some(read_usage(text, usage)?),
        };
        (items.len() == count).then_some(Self {
            items,
            model: model?,
            usage,
            kind: kind?,
        })
    }

    /// The cost that the answer states, if any.
    pub fn tokens(&self) -> Option<Tokens> {
        self.usage.as_ref().map(|usage| usage.tokens)
    }

    /// Whether parts of both may stand in one answer: vectors of one model, written alike.
    pub fn fits(&self, text: &[u8], other: &Self, other_text: &[u8]) -> bool {
        self.kind == other.kind
            && self.usage.is_some() == other.usage.is_some()
            && text.get(self.model.clone()) == other_text.get(other.model.clone())
    }

    /// The text around the items, with other costs if it states any.
    pub fn frame(&self, text: &[u8], tokens: Tokens) -> Frame {
        let [first, last] = [self.items.first(), self.items.last()];
        let (Some(first), Some(last)) = (first, last) else {
            return Frame {
                before: text.to_vec(),
                between: Vec::new(),
                after: Vec::new(),
            };
        };
        let before = 0..first.whole.start;
        let between = match self.items.get(1) {
            Some(second) => text[first.whole.end..second.whole.start].to_vec(),
            None => {
                // Written as the first one is.
                let space = text[before.clone()].iter().rev();
                let space = space.take_while(|byte| byte.is_ascii_whitespace()).count();
                [b",", &text[before.end - space..before.end]].concat()
            }
        };
        Frame {
            before: self.with_tokens(text, before, tokens),
            between,
            after: self.with_tokens(text, last.whole.end..text.len(), tokens),
        }
    }

    /// An item in two parts: its number belongs between them. None past the last item.
    pub fn item<'t>(&self, text: &'t [u8], number: usize) -> Option<[&'t [u8]; 2]> {
        let Item { whole, index } = self.items.get(number)?;
        Some([
            text.get(whole.start..index.start)?,
            text.get(index.end..whole.end)?,
        ])
    }

    /// The answer with this item only, and with this cost.
    pub fn alone(&self, text: &[u8], number: usize, tokens: Tokens) -> Option<Vec<u8>> {
        let Frame { before, after, .. } = self.frame(text, tokens);
        let [start, end] = self.item(text, number)?;
        Some([&before, start, b"0", end, &after].concat())
    }

    fn with_tokens(&self, text: &[u8], part: Span, tokens: Tokens) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len());
        let mut at = part.start;
        if let Some(usage) = &self.usage {
            let mut edits = [(&usage.prompt, tokens.prompt), (&usage.total, tokens.total)];
            edits.sort_by_key(|(span, _)| span.start);
            for (span, count) in edits {
                if part.contains(&span.start) {
                    out.extend_from_slice(&text[at..span.start]);
                    out.extend_from_slice(count.to_string().as_bytes());
                    at = span.end;
                }
            }
        }
        out.extend_from_slice(&text[at..part.end]);
        out
    }
}

fn read_item(text: &[u8], item: Span, place: usize) -> Option<(Item, VectorKind)> {
    let (mut index, mut kind) = (None, None);
    for (key, value) in spans::members(text, item.clone())? {
        let spelling = &text[value.clone()];
        match &text[key] {
            b"object" if spelling == b"\"embedding\"" => {}
            b"index" if index.is_none() && spelling == place.to_string().as_bytes() => {
                index = Some(value);
            }
            b"embedding" if kind.is_none() => kind = Some(kind_of(spelling)?),
            _ => return None,
        }
    }
    let item = Item {
        whole: item,
        index: index?,
    };
    Some((item, kind?))
}

fn kind_of(vector: &[u8]) -> Option<VectorKind> {
    if is_string(vector) {
        let is_base64 =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let inside = &vector[1..vector.len() - 1];
        // Another spelling, with escapes, has another length for the same numbers.
        let is_one = !inside.is_empty() && inside.iter().all(is_base64);
        return is_one.then_some(VectorKind::Text(inside.len()));
    }
    let is_array = vector.first() == Some(&b'[') && vector.len() > 2;
    is_array.then(|| VectorKind::Numbers(commas(vector) + 1))
}

/// Counts in bytes, as long as these do not run over: that is what compilers turn into SIMD.
fn commas(text: &[u8]) -> usize {
    let blocks = text.chunks(u8::MAX as usize);
    let count = |block: &[u8]| {
        let ones = block.iter().map(|&byte| u8::from(byte == b','));
        usize::from(ones.sum::<u8>())
    };
    blocks.map(count).sum()
}

fn read_usage(text: &[u8], usage: Span) -> Option<Usage> {
    let (mut prompt, mut total) = (None, None);
    for (key, value) in spans::members(text, usage)? {
        let spelling = &text[value.clone()];
        match &text[key] {
            b"prompt_tokens" if prompt.is_none() => prompt = Some((value, number(spelling)?)),
            b"total_tokens" if total.is_none() => total = Some((value, number(spelling)?)),
            // Other counts, without anything to share out.
            _ if spelling == b"0" || spelling == b"null" => {}
            _ => return None,
        }
    }
    let ((prompt, prompt_tokens), (total, total_tokens)) = (prompt?, total?);
    let tokens = Tokens {
        prompt: prompt_tokens,
        total: total_tokens,
    };
    Some(Usage {
        prompt,
        total,
        tokens,
    })
}

fn is_string(spelling: &[u8]) -> bool {
    spelling.len() >= 2 && spelling.first() == Some(&b'"')
}

fn number(spelling: &[u8]) -> Option<u64> {
    let is_natural = spelling.iter().all(u8::is_ascii_digit);
    let digits = core::str::from_utf8(spelling).ok()?;
    is_natural.then(|| digits.parse().ok()).flatten()
}

/// Shares out the cost of a batch among its texts, by their weights: providers state only the sum.
/// The shares add up to the whole, so that the same batch again shows the same sum.
pub fn shares(whole: Tokens, weights: impl Iterator<Item = u64> + Clone) -> Vec<Tokens> {
    // Each text weighs at least 1, and not so much that sums overflow.
    let weights = weights.map(|weight| u128::from(weight.min(u32::MAX.into())) + 1);
    let all: u128 = weights.clone().sum();
    let part = |count: u64, weight: u128| {
        u64::try_from(u128::from(count) * weight / all.max(1)).unwrap_or(count)
    };
    let mut passed = 0;
    let mut given = Tokens::default();
    weights
        .map(|weight| {
            passed += weight;
            let up_to = Tokens {
                prompt: part(whole.prompt, passed),
                total: part(whole.total, passed),
            };
            let share = Tokens {
                prompt: up_to.prompt - given.prompt,
                total: up_to.total - given.total,
            };
            given = up_to;
            share
        })
        .collect()
}
