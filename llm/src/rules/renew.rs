//! Which answers are renewed in the background, and when: the operator's rules by path and model.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::rules::path::Readings;
use crate::rules::pattern::is_for;

/// The operator's rules, and what holds where none applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewals {
    /// The first that applies counts.
    pub rules: Vec<RenewRule>,
    /// Where no rule applies.
    pub usual: Renewal,
}

/// One rule of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewRule {
    /// The path that it is for, in [normal form](crate::normal_path); `*` stands for any text.
    /// Letters match in either case. `None`: any path.
    pub path: Option<String>,
    /// The model that it is for, in the same way. `None`: any model, and requests without one.
    pub model: Option<String>,
    /// When its answers are renewed.
    pub renewal: Renewal,
}

/// When an answer is served and renewed at once. All zero is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewal {
    /// For how long after its end it is served while the next one is fetched.
    pub stale: Duration,
    /// The last part of its life, in thousandths, in which the next one is fetched before that.
    pub ahead_permille: u16,
}

impl Renewal {
    /// Whether nothing is renewed.
    pub fn is_never(&self) -> bool {
        self.stale.is_zero() && self.ahead_permille == 0
    }

    /// Whether an answer that lives for `life_ms` and has `left_ms` of that left is to be renewed
    /// by now.
    pub fn is_ahead(&self, left_ms: u64, life_ms: u64) -> bool {
        let last = u128::from(life_ms) * u128::from(self.ahead_permille);
        u128::from(left_ms) * 1000 < last
    }
}

impl Renewals {
    /// When an answer to this path and model is renewed.
    ///
    /// The path is as sent, with or without query. A rule for a path applies to each of its
    /// spellings. If servers read a path in different ways, the least counts; a path without a
    /// certain reading has none.
    pub fn of(&self, path: &str, model: Option<&str>) -> Renewal {
        let of = |path: &str| {
            let rule = self
                .rules
                .iter()
                .find(|rule| is_for((rule.path.as_deref(), rule.model.as_deref()), path, model));
            rule.map_or(self.usual, |rule| rule.renewal)
        };
        if self.rules.iter().all(|rule| rule.path.is_none()) {
            return of(path);
        }
        let Some(readings) = Readings::of(path) else {
            return Renewal::default();
        };
        let least = |one: Renewal, other: Renewal| Renewal {
            stale: one.stale.min(other.stale),
            ahead_permille: one.ahead_permille.min(other.ahead_permille),
        };
        readings.each().map(of).reduce(least).unwrap_or_default()
    }

    /// What any answer has at most.
    pub fn most(&self) -> Renewal {
        let rules = self.rules.iter().map(|rule| rule.renewal);
        rules.fold(self.usual, |one, other| Renewal {
            stale: one.stale.max(other.stale),
            ahead_permille: one.ahead_permille.max(other.ahead_permille),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::vec;

    fn renewal(stale: u64, ahead_permille: u16) -> Renewal {
        Renewal {
            stale: Duration::from_secs(stale),
            ahead_permille,
        }
    }

    #[test]
    fn the_first_rule_that_applies_counts_and_no_spelling_evades_it() {
        let rule = |path: Option<&str>, model: Option<&str>, renewal| RenewRule {
            path: path.map(str::to_owned),
            model: model.map(str::to_owned),
            renewal,
        };
        let renewals = Renewals {
            rules: vec![
                rule(Some("/private/*"), None, Renewal::default()),
                rule(None, Some("gpt-*"), renewal(60, 0)),
                rule(Some("*/embeddings"), None, renewal(0, 100)),
            ],
            usual: renewal(5, 50),
        };
        let check = |path: &str, model: Option<&str>, wanted: Renewal| {
            assert_eq!(renewals.of(path, model), wanted, "{path} {model:?}");
        };
        for path in [
            "/private/x",
            "/a/../private/x",
            "/%70rivate/x",
            "/private%2fx",
        ] {
            check(path, Some("gpt-5"), Renewal::default());
        }
        check("/v1/embeddings?a=b", Some("gpt-5"), renewal(60, 0));
        check("/v1/embeddings", Some("other"), renewal(0, 100));
        check("/v1/responses", None, renewal(5, 50));
        assert_eq!(renewals.most(), renewal(60, 100));
        assert!(Renewals::default().most().is_never());
    }

    #[test]
    fn the_last_part_of_a_life_is_ahead_of_its_end() {
        let tenth = renewal(0, 100);
        assert!(!tenth.is_ahead(100, 1000));
        assert!(tenth.is_ahead(99, 1000));
        assert!(!renewal(9, 0).is_ahead(0, 1000));
        assert!(!tenth.is_ahead(u64::MAX, u64::MAX), "no overflow");
        assert!(tenth.is_ahead(0, u64::MAX));
    }
}
