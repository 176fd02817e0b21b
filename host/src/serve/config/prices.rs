//! Prices of tokens by model: `[[price]]`.

use super::draft::Draft;
use crate::serve::metrics::Price;
use serde::Deserialize;

/// A `[[price]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceTable {
    model: String,
    input_per_million: f64,
    output_per_million: f64,
}

impl PriceTable {
    /// What it means.
    ///
    /// # Errors
    ///
    /// A price is below zero, or no number.
    pub(crate) fn price(&self) -> Result<Price, String> {
        let sound = |price: f64| price.is_finite() && price >= 0.0;
        if !sound(self.input_per_million) || !sound(self.output_per_million) {
            let model = &self.model;
            return Err(format!("price of `{model}`: a price is a number from 0"));
        }
        Ok(Price {
            model: self.model.clone(),
            input_per_million: self.input_per_million,
            output_per_million: self.output_per_million,
        })
    }
}

impl Draft {
    pub(super) fn prices(&mut self) -> Vec<Price> {
        let tables = self.values.price.0.clone();
        self.check_count("price", tables.len());
        let mut prices = Vec::new();
        for row in tables {
            match row.table.price() {
                Ok(price) => prices.push(price),
                Err(error) => self.refuse_at(row.at, "price", error),
            }
        }
        prices
    }
}
