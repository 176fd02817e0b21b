//! How long answers live: the operator's rules by path and model, and what a client may ask.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::{is_like, query};

/// The operator's rules, and what holds where none applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// The first that applies counts.
    pub rules: Vec<LifeRule>,
    /// Where no rule applies. `None`: for ever.
    pub usual: Option<Duration>,
    /// The longest life that a client or a component may ask for. `None`: any. The operator's own
    /// may be longer.
    pub asked_max: Option<Duration>,
}

/// One rule of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeRule {
    /// The path that it is for, without query; `*` stands for any text. `None`: any path.
    pub path: Option<String>,
    /// The model that it is for, in the same way. `None`: any model, and requests without one.
    pub model: Option<String>,
    /// How long the answers live.
    pub life: Life,
}

/// How long an answer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is not kept at all.
    NotKept,
    /// So long.
    For(Duration),
    /// Until it has to make room.
    Forever,
}

impl Lifetimes {
    /// How long an answer from there lives, if the client asks for so many seconds. What the
    /// operator does not keep, nobody has kept by asking.
    pub fn of(&self, path: &str, model: Option<&str>, asked: Option<u64>) -> Life {
        let rule = self.rules.iter().find(|rule| rule.applies(path, model));
        let usual = rule.map_or_else(
            || self.usual.map_or(Life::Forever, Life::For),
            |rule| rule.life,
        );
        match (usual, asked.map(Duration::from_secs)) {
            (Life::NotKept, _) | (_, Some(Duration::ZERO)) => Life::NotKept,
            (usual, None) => usual,
            (_, Some(asked)) => Life::For(self.asked_max.map_or(asked, |most| asked.min(most))),
        }
    }
}

impl LifeRule {
    fn applies(&self, path: &str, model: Option<&str>) -> bool {
        let (path, _) = query::split(path);
        self.path
            .as_deref()
            .is_none_or(|wanted| is_like(wanted, path))
            && self
                .model
                .as_deref()
                .is_none_or(|wanted| model.is_some_and(|model| is_like(wanted, model)))
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
}
