//! Numbers and pieces from the bytes of an input. An input that is too short reads as zeros.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'i>(pub &'i [u8]);

impl<'i> Bytes<'i> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number below `limit`, which is at least 1, of two bytes.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = u16::from_le_bytes([self.byte(), self.byte()]);
        usize::from(number) % limit.max(1)
    }

    /// A number of eight bytes.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// At most so many bytes.
    pub fn piece(&mut self, most: usize) -> &'i [u8] {
        let (piece, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        piece
    }

    /// Whether anything is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Cuts `whole` into chunks of lengths that this input says, none of them empty.
    pub fn cut<'w>(&mut self, mut whole: &'w [u8]) -> Vec<&'w [u8]> {
        let mut chunks = Vec::new();
        while !whole.is_empty() {
            let length = match self.byte() {
                0 => whole.len(),
                length => usize::from(length).min(whole.len()),
            };
            let (head, tail) = whole.split_at(length);
            chunks.push(head);
            whole = tail;
        }
        chunks
    }
}
