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
        *self.ended(index)? |= ends;
        Ok(())
    }

    /// Notes that a part goes on, whatever was said of its end before.
    pub(super) fn reopen(&mut self, index: u32) -> Result<(), Rejected> {
        *self.ended(index)? = false;
        Ok(())
    }

    fn ended(&mut self, index: u32) -> Result<&mut bool, Rejected> {
        let known = self.0.iter().position(|&(seen, _)| seen == index);
        let at = match known {
            Some(at) => at,
            None if self.0.len() == PARTS_MAX => return Err(Rejected::Unexpected),
            None => {
                self.0.push((index, false));
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[at].1)
    }

    /// Whether there is a part, and all have ended.
    pub(super) fn are_all(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|&(_, ended)| ended)
    }
}
