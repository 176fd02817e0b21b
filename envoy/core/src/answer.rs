//! An answer as the filter serves it again.

/// An answer as it is served again.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Those that go along with it ([`reflex_llm::is_kept`]), and `x-reflex-saved-tokens`; names in
    /// lower case.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// When it was stored, in milliseconds since 1970.
    pub stored_at_ms: u64,
    /// When it expires, in milliseconds since 1970; none is never.
    pub expires_at_ms: Option<u64>,
}

impl Answer {
    /// Whole seconds since it was stored; 0 when the clock was set back.
    pub fn age_seconds(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.stored_at_ms) / 1000
    }

    /// Whole seconds until it expires; none is never.
    pub fn ttl_seconds(&self, now_ms: u64) -> Option<u64> {
        let at = self.expires_at_ms?;
        Some(at.saturating_sub(now_ms) / 1000)
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + headers + OVERHEAD_BYTES
    }
}

/// Memory of an answer beside its bytes: its place in map and queue, and the allocator's share.
const OVERHEAD_BYTES: usize = 512;
