//! Prices of tokens by model: `[[price]]`.

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
