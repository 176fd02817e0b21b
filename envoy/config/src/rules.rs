//! The operator's rules that come as lists: lives by path and model, APIs by path, groups of
//! tenants. They are written as the tables of the daemon's file are, and mean the same.

use std::time::Duration;

use reflex_llm::{Groups, Life, LifeRule, PathRule, check_path_pattern};
use serde::Deserialize;

use super::SECONDS_LIMIT;

/// Rules are looked through for each request: more than anybody writes by hand is a mistake.
const RULES_MAX: usize = 1000;

/// One of `ttl` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
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

/// One of `path` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Path {
    path: String,
    api: String,
}

/// One of `group` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    name: String,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    trusted: Vec<String>,
}

pub(super) fn lives(rules: Vec<Rule>) -> Result<Vec<LifeRule>, String> {
    if rules.len() > RULES_MAX {
        return Err(format!("ttl: more than {RULES_MAX} rules"));
    }
    let life = |seconds| match seconds {
        Seconds::Number(0) => Ok(Life::NotKept),
        Seconds::Number(seconds) if seconds <= SECONDS_LIMIT => {
            Ok(Life::For(Duration::from_secs(seconds)))
        }
        Seconds::Number(seconds) => Err(format!(
            "ttl: seconds: {seconds} is not between 0 and {SECONDS_LIMIT}"
        )),
        Seconds::Word(Never::Never) => Ok(Life::Forever),
    };
    let rule = |rule: Rule| {
        let path = rule.path.as_deref();
        path.map_or(Ok(()), check_path_pattern)
            .map_err(|error| format!("ttl: {error}"))?;
        Ok(LifeRule {
            path: rule.path,
            model: rule.model,
            life: life(rule.seconds)?,
        })
    };
    rules.into_iter().map(rule).collect()
}

pub(super) fn paths(rules: &[Path]) -> Result<Vec<PathRule>, String> {
    if rules.len() > RULES_MAX {
        return Err(format!("path: more than {RULES_MAX} rules"));
    }
    let rule = |rule: &Path| PathRule::parse(&rule.path, &rule.api);
    rules.iter().map(rule).collect()
}

pub(super) fn groups(groups: &[Group], tenant_header: Option<&str>) -> Result<Groups, String> {
    let mut all = Groups::default();
    for group in groups {
        all.add(&group.name, &group.tenants, &group.trusted, tenant_header)?;
    }
    Ok(all)
}
