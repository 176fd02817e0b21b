//! What a hit saved, in tokens and in the operator's currency.

use super::labels::{KindLabel, ModelLabel};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reflex_llm::{Usage, is_like};
use std::sync::atomic::AtomicU64;

/// Prices of a model's tokens, in the operator's currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The model's name, in which `*` stands for any text.
    pub model: String,
    /// A million tokens of requests.
    pub input_per_million: f64,
    /// A million tokens of answers.
    pub output_per_million: f64,
}

impl Price {
    fn of(&self, usage: &Usage) -> f64 {
        let cost = |tokens: u64, per_million: f64| tokens as f64 / 1e6 * per_million;
        cost(usage.input_tokens, self.input_per_million)
            + cost(usage.output_tokens, self.output_per_million)
    }
}

/// Tokens and money that hits saved. Each counter is found once, because finding one takes a lock.
pub(super) struct Savings {
    input: Counter,
    output: Counter,
    /// Of several prices for a model, the first counts.
    money: Vec<(Price, Counter<f64, AtomicU64>)>,
}

impl Savings {
    pub(super) fn new(prices: Vec<Price>, registry: &mut Registry) -> Self {
        let tokens = Family::<KindLabel, Counter>::default();
        registry.register(
            "saved_tokens",
            "Tokens of answers from the cache, as they were counted when new",
            tokens.clone(),
        );
        let money = Family::<ModelLabel, Counter<f64, AtomicU64>>::default();
        registry.register(
            "saved_money",
            "What these tokens cost by the configuration's prices, in the operator's currency",
            money.clone(),
        );
        let counter = |kind| tokens.get_or_create_owned(&KindLabel { kind });
        Self {
            input: counter("input"),
            output: counter("output"),
            money: prices
                .into_iter()
                .map(|price| {
                    let model = price.model.clone();
                    (price, money.get_or_create_owned(&ModelLabel { model }))
                })
                .collect(),
        }
    }

    pub(super) fn add(&self, usage: &Usage, model: Option<&str>) {
        self.input.inc_by(usage.input_tokens);
        self.output.inc_by(usage.output_tokens);
        let Some(model) = model else {
            return;
        };
        if let Some((price, money)) = self.money.iter().find(|(it, _)| is_like(&it.model, model)) {
            money.inc_by(price.of(usage));
        }
    }

    /// Tokens of requests and of answers.
    pub(super) fn tokens(&self) -> u64 {
        self.input.get().saturating_add(self.output.get())
    }

    /// In the operator's currency; none without prices.
    pub(super) fn money(&self) -> Option<f64> {
        let sum = self.money.iter().map(|(_, money)| money.get()).sum();
        (!self.money.is_empty()).then_some(sum)
    }
}
