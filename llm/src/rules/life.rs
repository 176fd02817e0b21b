//! How long answers live: the operator's rules by path and model, and the client's wish.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::rules::path::Readings;
use crate::rules::pattern::is_for;

/// The operator's rules, and the default where none applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// The first that applies counts.
    pub rules: Vec<LifeRule>,
    /// Where no rule applies. `None`: no expiry.
    pub usual: Option<Duration>,
    /// The longest life that a client or a component may ask for. `None`: any. The operator's own
    /// may be longer.
    pub asked_max: Option<Duration>,
}

/// One rule of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeRule {
    /// The path that it is for, in [normal form](crate::normal_path); `*` stands for any text.
    /// Letters match in either case. `None`: any path.
    pub path: Option<String>,
    /// The model that it is for, in the same way. `None`: any model, and requests without one.
    pub model: Option<String>,
    /// How long the answers live.
    pub life: Life,
}

/// How long an answer lives. A shorter life is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It is not kept at all.
    NotKept,
    /// It lives this long.
    For(Duration),
    /// It lives until the store needs its room.
    Forever,
}

impl Lifetimes {
    /// How long an answer of this path and model lives, if the client asks for `asked` seconds. A
    /// client cannot have an answer kept that the operator does not keep.
    ///
    /// The path is as sent, with or without query. A rule for a path applies to each of its
    /// spellings. If servers read a path in different ways, the shortest life counts; an answer
    /// from a path without a certain reading is not kept.
    pub fn of(&self, path: &str, model: Option<&str>, asked: Option<u64>) -> Life {
        let usual = self.usual(path, model);
        match (usual, asked.map(Duration::from_secs)) {
            (Life::NotKept, _) | (_, Some(Duration::ZERO)) => Life::NotKept,
            (usual, None) => usual,
            (_, Some(asked)) => Life::For(self.asked_max.map_or(asked, |most| asked.min(most))),
        }
    }
}

impl Lifetimes {
    fn usual(&self, path: &str, model: Option<&str>) -> Life {
        let of = |path: &str| {
            let rule = self.rules.iter().find(|rule| rule.applies(path, model));
            rule.map(|rule| rule.life)
        };
        let without_rule = self.usual.map_or(Life::Forever, Life::For);
        if self.rules.iter().all(|rule| rule.path.is_none()) {
            return of(path).unwrap_or(without_rule);
        }
        let Some(readings) = Readings::of(path) else {
            return Life::NotKept;
        };
        readings.each().filter_map(of).min().unwrap_or(without_rule)
    }
}

impl LifeRule {
    fn applies(&self, path: &str, model: Option<&str>) -> bool {
        is_for((self.path.as_deref(), self.model.as_deref()), path, model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned as _;
    use alloc::vec;

    #[test]
    fn the_first_rule_that_applies_counts_and_asking_is_clamped() {
        let rule = |path: Option<&str>, model: Option<&str>, life| LifeRule {
            path: path.map(str::to_owned),
            model: model.map(str::to_owned),
            life,
        };
        let day = Life::For(Duration::from_secs(86_400));
        let lifetimes = Lifetimes {
            rules: vec![
                rule(Some("*/embeddings"), None, Life::Forever),
                rule(None, Some("live-*"), Life::NotKept),
                rule(Some("/v1/*"), Some("gpt-*"), day),
            ],
            usual: Some(Duration::from_secs(60)),
            asked_max: Some(Duration::from_secs(600)),
        };
        let check = |path: &str, model: Option<&str>, asked: Option<u64>, life: Life| {
            assert_eq!(lifetimes.of(path, model, asked), life, "{path} {model:?}");
        };
        let seconds = |seconds| Life::For(Duration::from_secs(seconds));
        check("/v1/embeddings?a=b", Some("live-1"), None, Life::Forever);
        check("/v1/responses", Some("live-1"), None, Life::NotKept);
        check("/v1/responses", Some("live-1"), Some(9), Life::NotKept);
        check("/v1/responses", Some("gpt-5"), None, day);
        check("/v1/responses", Some("gpt-5"), Some(9), seconds(9));
        check("/v1/responses", Some("gpt-5"), Some(9999), seconds(600));
        check("/v1/responses", Some("gpt-5"), Some(0), Life::NotKept);
        check("/v2/responses", Some("gpt-5"), None, seconds(60));
        check("/v1/responses", None, None, seconds(60));
    }

    #[test]
    fn no_spelling_of_a_path_evades_a_rule() {
        let lifetimes = Lifetimes {
            rules: vec![LifeRule {
                path: Some("/private/*".to_owned()),
                model: None,
                life: Life::NotKept,
            }],
            usual: Some(Duration::from_secs(60)),
            asked_max: None,
        };
        for path in [
            "/private/x",
            "//private/x",
            "/./private/x",
            "/private//x?a=b",
            "/%70rivate/x",
            "/%2570rivate/x",
            "/private%2fx",
            "/private%2Fx/",
            "/PRIVATE/x",
            "/a/../private/x",
            "/a/%2e%2e/private/x",
            "/a/..;/private/x",
            "/a\\..\\private\\x",
        ] {
            assert_eq!(lifetimes.of(path, None, None), Life::NotKept, "{path}");
            assert_eq!(lifetimes.of(path, None, Some(9)), Life::NotKept, "{path}");
        }
        for path in ["/public/x", "/v1/private/x", "/a?/private/x", "/private"] {
            let usual = Life::For(Duration::from_secs(60));
            assert_eq!(lifetimes.of(path, None, None), usual, "{path}");
        }
    }
}
