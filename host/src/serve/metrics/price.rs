//! What a hit saved, in tokens and in the operator's currency.

use super::labels::{KindLabel, ModelLabel};
use crate::sync::lock;
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use reflex_llm::{Usage, is_like};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

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

/// Models with a series of their own; the money of later ones counts as [`OTHER`]'s. Each configuration has
/// few, but there may be many configurations in the life of a process.
const SERIES_MAX: usize = 1024;
/// Stands for models past the bound.
const OTHER: &str = "other";

type Money = Counter<f64, AtomicU64>;

/// Tokens and money that hits saved. Each counter is found once, because finding one takes a lock.
pub(super) struct Savings {
    input: Counter,
    output: Counter,
    money: Family<ModelLabel, Money>,
    /// Of several prices for a model, the first counts.
    prices: ArcSwap<Vec<(Price, Money)>>,
    /// Of all configurations so far: what was saved stays saved.
    series: Mutex<BTreeMap<String, Money>>,
}

impl Savings {
    pub(super) fn new(prices: Vec<Price>, registry: &mut Registry) -> Self {
        let tokens = Family::<KindLabel, Counter>::default();
        registry.register(
            "saved_tokens",
            "Tokens of answers from the cache, as they were counted when new",
            tokens.clone(),
        );
        let money = Family::<ModelLabel, Money>::default();
        registry.register(
            "saved_money",
            "What these tokens cost by the configuration's prices, in the operator's currency",
            money.clone(),
        );
        let counter = |kind| tokens.get_or_create_owned(&KindLabel { kind });
        let savings = Self {
            input: counter("input"),
            output: counter("output"),
            money,
            prices: ArcSwap::default(),
            series: Mutex::default(),
        };
        savings.price(prices);
        savings
    }

    /// Counts by these prices from now on.
    pub(super) fn price(&self, prices: Vec<Price>) {
        let mut series = lock(&self.series);
        let priced = |price: Price| {
            let is_known = series.contains_key(&price.model);
            let model = match is_known || series.len() < SERIES_MAX {
                true => price.model.clone(),
                false => OTHER.into(),
            };
            let label = ModelLabel {
                model: model.clone(),
            };
            let new = || self.money.get_or_create_owned(&label);
            let money = series.entry(model).or_insert_with(new).clone();
            (price, money)
        };
        let prices = prices.into_iter().map(priced).collect();
        self.prices.store(Arc::new(prices));
    }

    pub(super) fn add(&self, usage: &Usage, model: Option<&str>) {
        self.input.inc_by(usage.input_tokens);
        self.output.inc_by(usage.output_tokens);
        let Some(model) = model else {
            return;
        };
        let prices = self.prices.load();
        if let Some((price, money)) = prices.iter().find(|(it, _)| is_like(&it.model, model)) {
            money.inc_by(price.of(usage));
        }
    }

    /// Tokens of requests and of answers.
    pub(super) fn tokens(&self) -> u64 {
        self.input.get().saturating_add(self.output.get())
    }

    /// In the operator's currency; none without prices.
    pub(super) fn money(&self) -> Option<f64> {
        let series = lock(&self.series);
        let sum = series.values().map(Counter::get).sum();
        (!series.is_empty()).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(models: &[&str], output_per_million: f64) -> Vec<Price> {
        let price = |model: &&str| Price {
            model: (*model).into(),
            input_per_million: 0.0,
            output_per_million,
        };
        models.iter().map(price).collect()
    }

    const MILLION: Usage = Usage {
        input_tokens: 0,
        output_tokens: 1_000_000,
        total_tokens: 1_000_000,
    };

    #[test]
    fn other_prices_hold_from_now_on_and_what_was_saved_stays() {
        let savings = Savings::new(Vec::new(), &mut Registry::default());
        savings.add(&MILLION, Some("m-1"));
        assert_eq!(savings.money(), None);
        for (prices, sum) in [
            (prices(&["m-*"], 2.0), 2.0),
            (prices(&["m-*"], 3.0), 5.0),
            (prices(&["x", "m-1"], 4.0), 9.0),
            (Vec::new(), 9.0),
        ] {
            savings.price(prices);
            savings.add(&MILLION, Some("m-1"));
            assert_eq!(savings.money(), Some(sum));
        }
    }

    #[test]
    fn reloads_cannot_make_more_than_so_many_series() {
        let savings = Savings::new(Vec::new(), &mut Registry::default());
        for number in 0..2 * SERIES_MAX {
            savings.price(prices(&[&format!("m-{number}")], 1.0));
            savings.add(&MILLION, Some(&format!("m-{number}")));
        }
        assert_eq!(lock(&savings.series).len(), SERIES_MAX + 1);
        assert_eq!(savings.money(), Some(2.0 * SERIES_MAX as f64));
    }
}
