//! The operator's rules that come as tables: lives by path and model, APIs by path, groups of
//! tenants, prices.

use crate::serve::metrics::Price;
use reflex_llm::{
    ClientControl, Groups, Life, LifeRule, PathRule, ProviderControl, Tenant, check_path_pattern,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::Duration;

/// Each request goes through all rules; more than 1000 are a mistake, not written by hand.
const TABLES_MAX: usize = 1000;

/// A `[[ttl]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TtlTable {
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

/// A `client_control` as it is written.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ControlMode {
    Obey,
    NoRefresh,
    Ignore,
}

pub(crate) fn client_control(mode: Option<ControlMode>) -> ClientControl {
    match mode {
        None | Some(ControlMode::Obey) => ClientControl::Obey,
        Some(ControlMode::NoRefresh) => ClientControl::NoRefresh,
        Some(ControlMode::Ignore) => ClientControl::Ignore,
    }
}

/// A `provider_control` as it is written.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProviderControlMode {
    Ignore,
    Obey,
}

pub(crate) fn provider_control(mode: Option<ProviderControlMode>) -> ProviderControl {
    match mode {
        None | Some(ProviderControlMode::Ignore) => ProviderControl::Ignore,
        Some(ProviderControlMode::Obey) => ProviderControl::Obey,
    }
}

/// A `[[path]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathTable {
    path: String,
    api: String,
}

/// A `[[group]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupTable {
    name: String,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    trusted: Vec<String>,
}

/// A `[[price]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceTable {
    model: String,
    input_per_million: f64,
    output_per_million: f64,
}

pub(crate) fn lives(tables: Vec<TtlTable>) -> Result<Vec<LifeRule>, String> {
    check_count("ttl", tables.len())?;
    let rule = |table: TtlTable| {
        let path = table.path.as_deref();
        path.map_or(Ok(()), check_path_pattern)
            .map_err(|error| format!("ttl: {error}"))?;
        Ok(LifeRule {
            path: table.path,
            model: table.model,
            life: match table.seconds {
                Seconds::Number(0) => Life::NotKept,
                Seconds::Number(seconds) => Life::For(Duration::from_secs(seconds)),
                Seconds::Word(Never::Never) => Life::Forever,
            },
        })
    };
    tables.into_iter().map(rule).collect()
}

pub(crate) fn paths(tables: &[PathTable]) -> Result<Vec<PathRule>, String> {
    check_count("path", tables.len())?;
    let rule = |table: &PathTable| PathRule::parse(&table.path, &table.api);
    tables.iter().map(rule).collect()
}

/// For each tenant of a group, the tenant under which its answers are kept.
pub(crate) fn groups(
    tables: &[GroupTable],
    tenant_header: Option<&str>,
) -> Result<HashMap<Tenant, Tenant>, String> {
    let mut groups = Groups::default();
    for table in tables {
        let GroupTable {
            name,
            tenants,
            trusted,
        } = table;
        groups.add(name, tenants, trusted, tenant_header)?;
    }
    Ok(groups.into_members().collect())
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

fn check_count(name: &str, count: usize) -> Result<(), String> {
    match count <= TABLES_MAX {
        true => Ok(()),
        false => Err(format!(
            "{name}: {count} tables are over the limit of {TABLES_MAX}"
        )),
    }
}
