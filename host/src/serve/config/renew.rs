//! `[[renew]]`: which answers are renewed in the background, by path and model.

use reflex_llm::{RenewRule, Renewal, check_path_pattern};
use reflex_settings::amount;
use serde::Deserialize;
use std::time::Duration;

/// A greater part of a life would have most hits ask the provider.
const AHEAD_MAX: f64 = 0.9;
/// An answer that is 30 days older than its life is no answer any more.
const STALE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A `[[renew]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewTable {
    path: Option<String>,
    model: Option<String>,
    stale_while_revalidate: Option<String>,
    refresh_ahead: Option<f64>,
}

impl RenewTable {
    /// What it means; what it leaves out is as `usual`.
    pub(super) fn rule(self, usual: Renewal) -> Result<RenewRule, String> {
        self.path.as_deref().map_or(Ok(()), check_path_pattern)?;
        let stale = self.stale_while_revalidate.as_deref().map(stale);
        let ahead = self.refresh_ahead.map(permille);
        Ok(RenewRule {
            path: self.path,
            model: self.model,
            renewal: Renewal {
                stale: stale.transpose()?.unwrap_or(usual.stale),
                ahead_permille: ahead.transpose()?.unwrap_or(usual.ahead_permille),
            },
        })
    }
}

fn stale(text: &str) -> Result<Duration, String> {
    let stale =
        amount::duration(text).map_err(|error| format!("stale_while_revalidate: {error}"))?;
    match stale <= STALE_MAX {
        true => Ok(stale),
        false => Err("stale_while_revalidate: over 30 days".into()),
    }
}

/// A part of a life, in thousandths.
///
/// # Errors
///
/// It is no such part.
pub(super) fn permille(part: f64) -> Result<u16, String> {
    match (0.0..=AHEAD_MAX).contains(&part) {
        true => Ok((part * 1000.0).round() as u16),
        false => Err(format!(
            "refresh_ahead: {part} is not from 0 to {AHEAD_MAX}"
        )),
    }
}
