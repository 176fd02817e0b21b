//! What each tenant may ask and store: `[[limit]]`, `over_rate` and `unnamed_tenants`.

use super::words::{OverRate, UnnamedTenants};
use crate::cache::{StoredMax, TenantBounds};
use crate::exchange::limits::{self, Most, Rate, Rules};
use crate::serve::tenants::Names;
use reflex_llm::Tenant;
use reflex_settings::amount;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

/// A higher rate is none.
const RATE_MAX: f64 = 1e6;

/// A `[[limit]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitTable {
    tenant: Option<String>,
    requests_per_second: Option<f64>,
    burst: Option<u32>,
    fills_max: Option<u32>,
    disk_max: Option<String>,
    entries_max: Option<u64>,
}

/// What the limits mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) asked: Rules,
    pub(crate) stored: TenantBounds,
}

/// One table, as far as it says anything.
#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    rate: Option<Rate>,
    fills: Option<u32>,
    bytes: Option<u64>,
    entries: Option<u64>,
}

impl Limit {
    /// This one, and where it says nothing, the other one.
    fn or(self, other: Self) -> Self {
        Self {
            rate: self.rate.or(other.rate),
            fills: self.fills.or(other.fills),
            bytes: self.bytes.or(other.bytes),
            entries: self.entries.or(other.entries),
        }
    }

    fn asked(self) -> Most {
        Most {
            rate: self.rate,
            fills: self.fills,
        }
    }

    fn stored(self) -> StoredMax {
        StoredMax {
            bytes: self.bytes.unwrap_or(u64::MAX),
            entries: self.entries.unwrap_or(u64::MAX),
        }
    }
}

impl LimitTable {
    fn limit(&self) -> Result<Limit, String> {
        let rate = match (self.requests_per_second, self.burst) {
            (None, None) => None,
            (None, Some(_)) => return Err("burst: it needs requests_per_second".into()),
            (Some(per_second), burst) => Some(rate(per_second, burst)?),
        };
        let bytes = self.disk_max.as_deref().map(amount::size).transpose();
        let limit = Limit {
            rate,
            fills: self.fills_max,
            bytes: bytes.map_err(|error| format!("disk_max: {error}"))?,
            entries: self.entries_max,
        };
        let zero = [
            ("fills_max", limit.fills.map(u64::from)),
            ("disk_max", limit.bytes),
            ("entries_max", limit.entries),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, most)| *most == Some(0)) {
            return Err(format!("{name}: 0 is less than one"));
        }
        Ok(limit)
    }
}

fn rate(per_second: f64, burst: Option<u32>) -> Result<Rate, String> {
    if !(per_second > 0.0 && per_second <= RATE_MAX) {
        return Err(format!(
            "requests_per_second: {per_second} is not a number over 0, at most {RATE_MAX}"
        ));
    }
    // What a second brings.
    let burst = burst.unwrap_or(per_second.ceil() as u32);
    match burst {
        0 => Err("burst: 0 is less than one".into()),
        _ => Ok(Rate { per_second, burst }),
    }
}

/// What all tables mean, each with its place in the file; the mistakes, with theirs.
pub(super) fn limits(
    tables: &[(usize, LimitTable)],
    groups: &[String],
    (over_rate, unnamed): (OverRate, UnnamedTenants),
) -> Result<Limits, Vec<(usize, String)>> {
    let names = Names::new(groups);
    let (mut each, mut of) = (None, HashMap::new());
    let mut errors = Vec::new();
    for (at, table) in tables {
        let mut refuse = |error: String| errors.push((*at, error));
        let limit = match table.limit() {
            Ok(limit) => limit,
            Err(error) => {
                refuse(error);
                continue;
            }
        };
        let Some(name) = &table.tenant else {
            if each.replace(limit).is_some() {
                refuse("two tables without a tenant: which of them is of all tenants?".into());
            }
            continue;
        };
        let Some(tenant) = names.tenant(name) else {
            // Without the text, which may be a credential.
            refuse("tenant: neither a group's name nor the 64 digits of a tenant".into());
            continue;
        };
        if of.insert(tenant, limit).is_some() {
            refuse("two tables of the same tenant".into());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let each = each.unwrap_or_default();
    let of: HashMap<[u8; 32], Limit> = of
        .into_iter()
        .map(|(tenant, limit)| (tenant, limit.or(each)))
        .collect();
    let group = |name: &String| Tenant::of_group(name).0;
    let apart: Option<HashSet<[u8; 32]>> = match unnamed {
        UnnamedTenants::Apart => None,
        UnnamedTenants::Together => Some(groups.iter().map(group).collect()),
    };
    Ok(Limits {
        asked: Rules {
            each: each.asked(),
            of: of.iter().map(|(it, limit)| (*it, limit.asked())).collect(),
            apart: apart.clone(),
            over_rate: over_rate.into(),
        },
        stored: TenantBounds {
            each: each.stored(),
            of: of.iter().map(|(it, limit)| (*it, limit.stored())).collect(),
            apart,
        },
    })
}

impl From<OverRate> for limits::OverRate {
    fn from(over_rate: OverRate) -> Self {
        match over_rate {
            OverRate::Pass => Self::Pass,
            OverRate::Refuse => Self::Refuse,
        }
    }
}
