//! The operator's rules that come as tables: lives by path and model, groups of tenants, prices.

use crate::metrics::Price;
use crate::runtime::{Life, LifeRule};
use crate::tenants;
use reflex_llm::Tenant;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;

/// Rules, groups and tenants of one group are looked through for each request or at the start:
/// more than anybody writes by hand is a mistake.
const TABLES_MAX: usize = 1000;
const TENANTS_PER_GROUP_MAX: usize = 10_000;

/// A `[[ttl]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TtlTable {
    path: Option<String>,
    model: Option<String>,
    seconds: Seconds,
}

/// A number, or the word `never`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "seconds: a whole number, or \"never\"")]
enum Seconds {
    Number(u64),
    Word(Never),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Never {
    Never,
}

/// A `[[group]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupTable {
    name: String,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    trusted: Vec<String>,
}

/// A `[[price]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceTable {
    model: String,
    input_per_million: f64,
    output_per_million: f64,
}

pub(super) fn lives(tables: Vec<TtlTable>) -> Result<Vec<LifeRule>, String> {
    check_count("ttl", tables.len())?;
    let rule = |table: TtlTable| LifeRule {
        path: table.path,
        model: table.model,
        life: match table.seconds {
            Seconds::Number(0) => Life::NotKept,
            Seconds::Number(seconds) => Life::For(Duration::from_secs(seconds)),
            Seconds::Word(Never::Never) => Life::Forever,
        },
    };
    Ok(tables.into_iter().map(rule).collect())
}

/// Whom each tenant of a group shares with.
pub(super) fn groups(
    tables: &[GroupTable],
    tenant_header: Option<&str>,
) -> Result<HashMap<Tenant, Tenant>, String> {
    check_count("group", tables.len())?;
    let mut groups = HashMap::new();
    let mut names = Vec::new();
    for table in tables {
        let GroupTable {
            name,
            tenants,
            trusted,
        } = table;
        if name.is_empty() || names.contains(&name) {
            return Err(format!("group: `{name}` is no name, or that of two groups"));
        }
        names.push(name);
        if tenants.len() + trusted.len() > TENANTS_PER_GROUP_MAX {
            let most = TENANTS_PER_GROUP_MAX;
            return Err(format!("group `{name}`: more than {most} tenants"));
        }
        let mut members = Vec::new();
        for digits in tenants {
            members.push(tenants::parse(digits).ok_or_else(|| {
                // Not shown: somebody may have put a credential there.
                format!(
                    "group `{name}`: tenants are 64 digits each, as `reflex-edge tenant` prints"
                )
            })?);
        }
        for value in trusted {
            let header = tenant_header
                .ok_or_else(|| format!("group `{name}`: trusted needs a tenant_header"))?;
            let tenant = tenants::of(&[(header, value.as_bytes())], Some(header));
            members.push(
                tenant.ok_or_else(|| format!("group `{name}`: trusted: `{value}` is nobody"))?,
            );
        }
        for tenant in members {
            if groups.insert(tenant, Tenant::of_group(name)).is_some() {
                return Err(format!(
                    "group `{name}`: one of its tenants is named twice, or in two groups"
                ));
            }
        }
    }
    Ok(groups)
}

pub(super) fn prices(tables: Vec<PriceTable>) -> Result<Vec<Price>, String> {
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

fn check_count(name: &str, count: usize) -> Result<(), String> {
    match count <= TABLES_MAX {
        true => Ok(()),
        false => Err(format!(
            "{name}: {count} tables are over the limit of {TABLES_MAX}"
        )),
    }
}
