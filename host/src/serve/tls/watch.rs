//! Which change of certificate files is used, and which is told.
//!
//! Certificate and key are two files, and the program that renews them writes one after the other. So a
//! state of the files that cannot be used is told only if the next look finds it still there, and then
//! once.

use super::Digest;
use std::time::Duration;

/// How often the files are looked at. Certificates change once in days or weeks, and long before the
/// earlier one expires.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is known of one side's files.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The state at the last look, if it cannot be used.
    broken: Option<Digest>,
    /// The last one that was told.
    told: Option<Digest>,
}

impl Watch {
    /// Whether to try a state of the files, while another one is in use: not twice the same broken one.
    pub(crate) fn wants(&self, now: Digest) -> bool {
        self.told != Some(now)
    }

    /// The files are as in use, or now are.
    pub(crate) fn is_good(&mut self) {
        *self = Self::default();
    }

    /// This state cannot be used; whether to tell it.
    pub(crate) fn is_broken(&mut self, now: Digest) -> bool {
        let is_lasting = self.broken.replace(now) == Some(now);
        if is_lasting {
            self.told = Some(now);
        }
        is_lasting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_told_once_and_only_if_it_lasts() {
        let [half, other] = ["half", "other"].map(Digest::of_error);
        let mut watch = Watch::default();
        assert!(watch.wants(half) && !watch.is_broken(half), "being written");
        assert!(watch.wants(half) && watch.is_broken(half), "it lasts");
        assert!(!watch.wants(half), "told");
        assert!(watch.wants(other) && !watch.is_broken(other), "another");
        assert!(watch.is_broken(other));
        watch.is_good();
        assert!(
            watch.wants(half) && !watch.is_broken(half),
            "from the start"
        );
    }
}
