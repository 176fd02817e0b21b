//! Prices of tokens by model: `[[price]]`.

use crate::serve::metrics::Price;
use reflex_settings::check_count;
use serde::Deserialize;

/// A `[[price]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceTable {
    model: String,
    input_per_million: f64,
    output_per_million: f64,
}

pub(crate) fn prices(tables: Vec<PriceTable>) -> Result<Vec<Price>, String> {
    check_count("price", tables.len())?;
    let price = |table: PriceTable| {
        let PriceTable {
            model,
            input_per_million,
            output_per_million,
        } = table;
        let sound = |price: f64| price.is_finite() && price >= 0.0;
        if !sound(input_per_million) || !sound(output_per_million) {
            return Err(format!("price of `{model}`: there is one below zero"));
        }
        Ok(Price {
            model,
            input_per_million,
            output_per_million,
        })
    };
    tables.into_iter().map(price).collect()
}
