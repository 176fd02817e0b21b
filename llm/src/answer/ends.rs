//! Which parts of a streamed answer have been seen, and whether each has ended.

use alloc::vec::Vec;

use crate::Rejected;

/// The greatest `n` that OpenAI takes. A stream that names more parts is not what we know.
const PARTS_MAX: usize = 128;

/// The parts seen, by index.
#[derive(Default)]
pub(super) struct Ends(Vec<(u32, bool)>);

impl Ends {
    /// Notes a piece of a part, and whether it is the last.
    pub(super) fn note(&mut self, index: u32, ends: bool) -> Result<(), Rejected> {
        let known = self.0.iter().position(|&(seen, _)| seen == index);
        match known {
            Some(at) => self.0[at].1 |= ends,
            None if self.0.len() == PARTS_MAX => return Err(Rejected::Unexpected),
            None => self.0.push((index, ends)),
        }
        Ok(())
    }

    /// Whether there is a part, and all have ended.
    pub(super) fn are_all(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|&(_, ended)| ended)
    }
}
