//! Which parts of an answer have been seen (choices, candidates), whether each has ended, and
//! whether each holds something.

use alloc::vec::Vec;

use super::{Rules, Said};
use crate::Rejected;

/// The greatest `n` that OpenAI accepts. A stream that names more parts is not understood.
const PARTS_MAX: usize = 128;

/// The parts seen.
#[derive(Default)]
pub(super) struct Parts(Vec<Part>);

/// One choice or candidate.
#[derive(Clone, Copy)]
pub(super) struct Part {
    index: u32,
    pub(super) has_ended: bool,
    pub(super) said: Said,
}

impl Parts {
    /// A part of a stream, new or not.
    pub(super) fn streamed(&mut self, index: u32) -> Result<&mut Part, Rejected> {
        let known = self.0.iter().position(|part| part.index == index);
        let at = match known {
            Some(at) => at,
            None if self.0.len() == PARTS_MAX => return Err(Rejected::Unexpected),
            None => self.push(index),
        };
        Ok(&mut self.0[at])
    }

    /// A part of an answer in one piece, in the order in which they come.
    pub(super) fn whole(&mut self, index: u32) -> &mut Part {
        let at = self.push(index);
        &mut self.0[at]
    }

    fn push(&mut self, index: u32) -> usize {
        self.0.push(Part {
            index,
            has_ended: false,
            said: Said::Nothing,
        });
        self.0.len() - 1
    }

    /// Judges the end of the answer: it must have as many parts as were asked for, numbered from 0
    /// without a gap, and each must have ended and have content.
    pub(super) fn end(&self, rules: Rules) -> Result<(), Rejected> {
        if self.0.is_empty() || self.0.iter().any(|part| !part.has_ended) {
            return Err(Rejected::Unfinished);
        }
        let mut seen = alloc::vec![false; self.0.len()];
        for part in &self.0 {
            let seen = seen.get_mut(part.index as usize);
            let is_new = seen.is_some_and(|seen| !core::mem::replace(seen, true));
            if !is_new {
                return Err(Rejected::Unexpected);
            }
        }
        if rules
            .parts
            .is_some_and(|asked| asked as usize != self.0.len())
        {
            return Err(Rejected::Unexpected);
        }
        // A model may stop without any content. Another try may have some.
        match self.0.iter().all(|part| part.said == Said::Something) {
            true => Ok(()),
            false => Err(Rejected::Empty),
        }
    }
}
