//! The answer to a batch of embeddings: joined from entries and the provider's answer to the rest,
//! and taken apart to be stored.

use crate::cache::Entry;
use crate::exchange::answer::{AnswerHead, Notes};
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::policy::{BATCH_BYTES_MAX, HttpPolicy};
use crate::exchange::reply::head::{Header, apply, only};
use crate::grant::ctx::ReflexCtx;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use reflex_llm::embeddings::{Frame as Around, Tokens, Vectors, shares};
use reflex_llm::status::X_REFLEX_SAVED_TOKENS;
use reflex_llm::{Key, Part as Belongs, Usage};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The texts of a batch, and what the cache has for them. A clone costs some reference counts.
#[cfg_attr(
    not(feature = "http"),
    expect(unreachable_pub, reason = "only guests have a name for it")
)]
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) texts: Texts,
    known: Arc<[Option<Known>]>,
}

/// The texts of a batch.
#[derive(Clone)]
pub(crate) struct Texts {
    /// Each text once: its key, and its weight.
    elements: Arc<[(Key, u64)]>,
    /// The element at each place of the input.
    places: Arc<[u32]>,
}

/// The answer to one text, from the cache.
#[derive(Clone, Debug)]
struct Known {
    part: Arc<Part>,
    entry: Entry,
    headers: HeaderMap,
    notes: Notes,
}

/// An answer whose items can be taken out.
struct Part {
    text: Bytes,
    vectors: Vectors,
}

/// How late the answer to a whole batch is that contains expired entries.
pub(crate) struct Overdue {
    /// Whole seconds since the oldest of its parts was stored.
    pub(crate) age_seconds: u64,
    /// Whole seconds since the first of its parts expired.
    pub(crate) expired_seconds: u64,
}

/// An answer to a whole batch, and its part from the cache.
pub(crate) struct Made {
    body: BoxBody,
    /// Of the first known element.
    headers: HeaderMap,
    /// The cost of the cached part when it was new.
    saved: Option<Usage>,
    model: Option<String>,
    /// How many elements were known, and how many the provider was asked for.
    known: usize,
    asked: usize,
}

impl Texts {
    /// Invalid arguments make a batch without texts: nothing is found, and an answer stays whole.
    pub(crate) fn new(elements: Vec<(Key, u64)>, places: Vec<u32>) -> Self {
        let is_right = places
            .iter()
            .all(|&place| (place as usize) < elements.len());
        match is_right {
            true => Self {
                elements: elements.into(),
                places: places.into(),
            },
            false => Self {
                elements: Arc::default(),
                places: Arc::default(),
            },
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.elements.len()
    }

    /// The batch of these elements, each once, in this order.
    pub(crate) fn only(&self, numbers: &[u32]) -> Self {
        let element = |&number: &u32| self.elements.get(number as usize).copied();
        let elements: Vec<_> = numbers.iter().filter_map(element).collect();
        let places = (0..elements.len() as u32).collect();
        Self::new(elements, places)
    }

    /// Takes the answer to the batch apart, into the answer to store for each text. None if that is
    /// not certain.
    pub(crate) fn split<'a>(
        &'a self,
        answer: &'a [u8],
    ) -> Option<impl Iterator<Item = (Key, Vec<u8>)> + 'a> {
        let vectors = Vectors::read(answer, self.places.len())?;
        let places = self.places.iter();
        let weights = places.map(|&place| self.elements[place as usize].1);
        let shares = shares(vectors.tokens().unwrap_or_default(), weights);
        // Of a text that is there twice, the first.
        let mut seen = vec![false; self.elements.len()];
        let firsts = self
            .places
            .iter()
            .enumerate()
            .filter(move |&(_, &place)| !std::mem::replace(&mut seen[place as usize], true));
        Some(firsts.filter_map(move |(at, &place)| {
            let body = vectors.alone(answer, at, shares[at])?;
            Some((self.elements[place as usize].0, body))
        }))
    }
}

impl Batch {
    pub(crate) fn new(texts: Texts) -> Self {
        Self {
            texts,
            known: Arc::default(),
        }
    }

    /// Looks up each element. Entries that do not fit into one answer together count as missing,
    /// and so do parts of an answer that would be too long.
    pub(crate) async fn find(
        &mut self,
        ctx: &ReflexCtx,
        budget: &Budget,
    ) -> impl Iterator<Item = Option<&Entry>> {
        let mut known = Vec::with_capacity(self.texts.count());
        for elements in self.texts.elements.chunks(LOOKUPS_AT_ONCE_MAX) {
            let find = |(key, _): &(Key, u64)| {
                let key = ctx.key(key);
                async move { ctx.find_async(&key).await }
            };
            let found = join_all(elements.iter().map(find)).await;
            known.extend(Known::read_all(found).await);
        }
        let mut found = known.iter().flatten();
        let first = found.clone().next();
        let fit = first.is_some_and(|first| found.all(|other| first.part.fits(&other.part)));
        let item_bytes = |known: &Known| known.part.text.len() as u64;
        let longest = known.iter().flatten().map(item_bytes).max().unwrap_or(0);
        let missing = known.iter().filter(|known| known.is_none()).count() as u64;
        let rest = longest.saturating_mul(missing);
        let is_short = rest <= BATCH_BYTES_MAX as u64 && budget.has_room(rest);
        self.known = match fit && is_short {
            true => known.into(),
            false => known.iter().map(|_| None).collect(),
        };
        let known = self.known.iter();
        known.map(|known| known.as_ref().map(|known| &known.entry))
    }

    /// Looks up each element once more, and takes an entry expired for at most `most` where no
    /// fresh one is found. None if that is not the whole batch; else how old the oldest entry is,
    /// and how many seconds ago the first of them expired.
    pub(crate) async fn find_stale(&mut self, ctx: &ReflexCtx, most: Duration) -> Option<Overdue> {
        // Without stale hits by the operator's rules, nothing is looked up.
        if most.is_zero() {
            return None;
        }
        let mut known = Vec::with_capacity(self.texts.count());
        let mut expired_seconds = 0;
        for elements in self.texts.elements.chunks(LOOKUPS_AT_ONCE_MAX) {
            let found = elements
                .iter()
                .map(|(key, _)| Known::find_even_stale(ctx, key, most));
            let mut entries = Vec::with_capacity(elements.len());
            for found in join_all(found).await {
                let (entry, expired) = found?;
                expired_seconds = expired_seconds.max(expired);
                entries.push(Some(entry));
            }
            for found in Known::read_all(entries).await {
                known.push(found?);
            }
        }
        let first = known.first()?;
        if !known.iter().all(|other| first.part.fits(&other.part)) {
            return None;
        }
        let now_ms = ctx.clock.now_ms();
        let ages = known.iter().map(|known| known.entry.age_seconds(now_ms));
        let age_seconds = ages.max().unwrap_or(0);
        self.known = known.into_iter().map(Some).collect();
        Some(Overdue {
            age_seconds,
            expired_seconds,
        })
    }

    /// The answer made of the entries found, if every element has one.
    pub(crate) fn replay(&self) -> Option<Made> {
        self.make(None, &[])
    }

    /// The answer made of the provider's answer to the elements `asked` and of the others' entries.
    pub(crate) fn complete(&self, asked: &[u32], answer: Bytes) -> Option<Made> {
        let fresh = Arc::new(Part::read(answer, asked.len())?);
        self.make(Some(fresh), asked)
    }

    fn make(&self, fresh: Option<Arc<Part>>, asked: &[u32]) -> Option<Made> {
        let mut item_of = vec![None; self.texts.count()];
        for (item, &number) in asked.iter().enumerate() {
            *item_of.get_mut(number as usize)? = Some(item);
        }
        let first = self.known.iter().flatten().next()?;
        let around = fresh.as_ref().unwrap_or(&first.part);
        let mut items = Vec::with_capacity(self.texts.places.len());
        let mut saved = Tokens::default();
        for &place in &*self.texts.places {
            let (part, item) = match item_of[place as usize] {
                Some(item) => (around, item),
                None => {
                    let part = &self.known.get(place as usize)?.as_ref()?.part;
                    if !part.fits(around) {
                        return None;
                    }
                    saved = saved.plus(part.vectors.tokens().unwrap_or_default());
                    (part, 0)
                }
            };
            items.push((Arc::clone(part), item));
        }
        let billed = fresh.as_ref().and_then(|fresh| fresh.vectors.tokens());
        let tokens = saved.plus(billed.unwrap_or_default());
        let frame = around.vectors.frame(&around.text, tokens);
        let saved = first.part.vectors.tokens().map(|_| Usage {
            input_tokens: saved.prompt,
            output_tokens: 0,
            total_tokens: saved.total,
        });
        Some(Made {
            body: Assembled::new(frame, items)?.boxed_unsync(),
            headers: first.headers.clone(),
            saved,
            model: first.notes.model.clone(),
            known: self.texts.count().saturating_sub(asked.len()),
            asked: asked.len(),
        })
    }
}

impl Made {
    /// The answer under the stored headers, with `set` on top and what is saved; and counts it.
    pub(crate) fn replayed(
        mut self,
        set: &[Header],
        policy: &HttpPolicy,
    ) -> (StatusCode, HeaderMap, BoxBody) {
        let headers = std::mem::take(&mut self.headers);
        self.under(StatusCode::OK, headers, set, policy)
    }

    /// The same under the head of the provider's answer to the rest.
    pub(crate) fn completed(
        self,
        (status, headers): (StatusCode, HeaderMap),
        set: &[Header],
        policy: &HttpPolicy,
    ) -> (StatusCode, HeaderMap, BoxBody) {
        self.under(status, headers, set, policy)
    }

    fn under(
        self,
        status: StatusCode,
        headers: HeaderMap,
        set: &[Header],
        policy: &HttpPolicy,
    ) -> (StatusCode, HeaderMap, BoxBody) {
        // The head belongs to another body.
        let mut headers = only(&headers, Belongs::survives_other_bytes);
        apply(&mut headers, &[], set);
        policy.observer.batch(self.known, self.asked);
        if let Some(usage) = &self.saved {
            policy.observer.saved(usage, self.model.as_deref());
            let tokens = HeaderValue::from(usage.total_tokens);
            headers.insert(HeaderName::from_static(X_REFLEX_SAVED_TOKENS), tokens);
        }
        (status, headers, self.body)
    }
}

impl Known {
    /// The entry of one element, fresh or not, and how many seconds ago it expired.
    async fn find_even_stale(ctx: &ReflexCtx, key: &Key, most: Duration) -> Option<(Entry, u64)> {
        let key = ctx.key(key);
        if let Some(fresh) = ctx.find_async(&key).await {
            return Some((fresh, 0));
        }
        ctx.find_stale(&key, most).await
    }

    /// Reads the entries found: a few short ones here, more of them on a thread that may block,
    /// because a full batch is tens of megabytes of numbers.
    async fn read_all(found: Vec<Option<Entry>>) -> Vec<Option<Self>> {
        let bytes = found.iter().flatten().map(|entry| entry.payload().len());
        let read = |entry: Option<Entry>| entry.and_then(Self::read);
        if bytes.sum::<usize>() <= INLINE_BYTES_MAX {
            return found.into_iter().map(read).collect();
        }
        let count = found.len();
        // The semaphore is never closed.
        let _permit = READERS.acquire().await.ok();
        let read_here = move || found.into_iter().map(read).collect();
        let known = tokio::task::spawn_blocking(read_here).await;
        // An unreadable answer counts as missing, and the provider is asked.
        known.unwrap_or_else(|_| std::iter::repeat_with(|| None).take(count).collect())
    }

    fn read(entry: Entry) -> Option<Self> {
        let AnswerHead { headers, notes, .. } = AnswerHead::decode(entry.metadata())?;
        let part = Arc::new(Part::read(entry.payload(), 1)?);
        Some(Self {
            part,
            entry,
            headers,
            notes,
        })
    }
}

impl Part {
    fn read(text: Bytes, count: usize) -> Option<Self> {
        let vectors = Vectors::read(&text, count)?;
        Some(Self { text, vectors })
    }

    fn fits(&self, other: &Self) -> bool {
        self.vectors.fits(&self.text, &other.vectors, &other.text)
    }
}

/// Vectors of this length together are read on the thread that has looked them up, within a tenth of
/// a millisecond or so. More would hold up other requests.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Threads that read vectors at once, of all batches together. The work needs the processor, so
/// more threads would only slow each other down.
const READERS_MAX: usize = 4;

static READERS: Semaphore = Semaphore::const_new(READERS_MAX);

/// Texts looked up at once. Reads from disk are quicker together, but must not use up all waiting
/// places of the readers.
const LOOKUPS_AT_ONCE_MAX: usize = 128;

/// How much of an answer is put together at a time, and one vector more.
const CHUNK_BYTES: usize = 64 << 10;

/// The body of an answer, which is put together as it is read.
struct Assembled {
    around: Around,
    items: Vec<(Arc<Part>, usize)>,
    /// The item that comes next.
    next: usize,
    /// Bytes to come.
    left: u64,
}

impl Assembled {
    fn new(around: Around, items: Vec<(Arc<Part>, usize)>) -> Option<Self> {
        let mut assembled = Self {
            around,
            items,
            next: 0,
            left: 0,
        };
        let around = &assembled.around;
        let mut bytes = around.before.len() + around.after.len();
        for at in 0..assembled.items.len() {
            let (parts, index) = assembled.item(at)?;
            bytes += parts.map(<[u8]>::len).iter().sum::<usize>() + index.len();
        }
        assembled.left = bytes as u64;
        Some(assembled)
    }

    /// The item at a place: the text before it, its two parts, and the number between them.
    fn item(&self, at: usize) -> Option<([&[u8]; 3], String)> {
        let (part, item) = self.items.get(at)?;
        let between = match at {
            0 => &[][..],
            _ => &self.around.between,
        };
        let [start, end] = part.vectors.item(&part.text, *item)?;
        Some(([between, start, end], at.to_string()))
    }
}

impl Body for Assembled {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = BytesMut::new();
        if self.next == 0 {
            chunk.extend_from_slice(&self.around.before);
        }
        while chunk.len() < CHUNK_BYTES
            && let Some(([between, start, end], index)) = self.item(self.next)
        {
            for part in [between, start, index.as_bytes(), end] {
                chunk.extend_from_slice(part);
            }
            self.next += 1;
        }
        if self.next == self.items.len() {
            chunk.extend_from_slice(&self.around.after);
        }
        self.left = match self.next == self.items.len() {
            true => 0,
            false => self.left.saturating_sub(chunk.len() as u64),
        };
        Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Shows the number of texts only. Keys and answers do not belong in logs.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Texts({})", self.count())
    }
}

/// As for the texts.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests;
