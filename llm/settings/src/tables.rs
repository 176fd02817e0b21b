//! Settings that are lists of tables: lives by path and model, APIs by path, groups of tenants.

use std::time::Duration;

use reflex_llm::{Groups, Life, LifeRule, PathRule, check_path_pattern};
use serde::Deserialize;

use crate::{SECONDS_LIMIT, amount};

/// Upper bound of the tables of one list. Each request goes through all of them; more are a mistake,
/// not written by hand.
const TABLES_MAX: usize = 1000;

/// One of `ttl` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtlTable {
    path: Option<String>,
    model: Option<String>,
    life: Option<String>,
    /// The older way to write it.
    seconds: Option<Seconds>,
}

impl TtlTable {
    /// Whether it has its life in `seconds`, which is written `life` now.
    pub fn is_old(&self) -> bool {
        self.seconds.is_some()
    }

    fn life(&self) -> Result<Life, String> {
        let seconds = match (&self.life, &self.seconds) {
            (Some(life), None) if life == "never" => return Ok(Life::Forever),
            (Some(life), None) => {
                let time = amount::duration(life)
                    .map_err(|error| format!("ttl: life: {error}, or \"never\""))?;
                if time.subsec_nanos() != 0 {
                    return Err(format!("ttl: life: `{life}` is not in whole seconds"));
                }
                time.as_secs()
            }
            (None, Some(Seconds::Word(Never::Never))) => return Ok(Life::Forever),
            (None, Some(Seconds::Number(seconds))) => *seconds,
            (Some(_), Some(_)) => {
                return Err("ttl: `seconds` is an older name of `life`: give one of both".into());
            }
            (None, None) => {
                return Err("ttl: life is missing, such as \"30m\", or \"never\"".into());
            }
        };
        match seconds {
            0 => Ok(Life::NotKept),
            1..=SECONDS_LIMIT => Ok(Life::For(Duration::from_secs(seconds))),
            _ => Err(format!(
                "ttl: seconds: {seconds} is not between 0 and {SECONDS_LIMIT}"
            )),
        }
    }
}

/// A number, or the word `never`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "seconds: a whole number, or \"never\"")]
enum Seconds {
    Number(u64),
    Word(Never),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Never {
    Never,
}

/// One of `path` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathTable {
    path: String,
    api: String,
}

/// One of `group` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupTable {
    name: String,
    #[serde(default)]
    tenants: Vec<String>,
    #[serde(default)]
    trusted: Vec<String>,
}

impl GroupTable {
    /// The group's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What `ttl` means.
///
/// # Errors
///
/// One line that names the list: too many tables, a path that no request has, or a life over
/// [`SECONDS_LIMIT`].
pub fn lives(tables: Vec<TtlTable>) -> Result<Vec<LifeRule>, String> {
    check_count("ttl", tables.len())?;
    let rule = |table: TtlTable| {
        let path = table.path.as_deref();
        path.map_or(Ok(()), check_path_pattern)
            .map_err(|error| format!("ttl: {error}"))?;
        let life = table.life()?;
        Ok(LifeRule {
            path: table.path,
            model: table.model,
            life,
        })
    };
    tables.into_iter().map(rule).collect()
}

/// What `path` means.
///
/// # Errors
///
/// One line that names the list: too many tables, a path that no request has, or an unknown API.
pub fn path_rules(tables: &[PathTable]) -> Result<Vec<PathRule>, String> {
    check_count("path", tables.len())?;
    let rule = |table: &PathTable| PathRule::parse(&table.path, &table.api);
    tables.iter().map(rule).collect()
}

/// What `group` means, with this setting of `tenant_header`.
///
/// # Errors
///
/// One line that names the group, and what is wrong with it.
pub fn groups(tables: &[GroupTable], tenant_header: Option<&str>) -> Result<Groups, String> {
    let mut groups = Groups::default();
    for table in tables {
        table.add_to(&mut groups, tenant_header)?;
    }
    Ok(groups)
}

impl GroupTable {
    /// Adds the group to the others.
    ///
    /// # Errors
    ///
    /// As [`groups`].
    pub fn add_to(&self, groups: &mut Groups, tenant_header: Option<&str>) -> Result<(), String> {
        groups.add(&self.name, &self.tenants, &self.trusted, tenant_header)
    }
}

/// Checks the length of the list `name`.
///
/// # Errors
///
/// One line that names the list, over 1000 tables.
pub fn check_count(name: &str, count: usize) -> Result<(), String> {
    match count <= TABLES_MAX {
        true => Ok(()),
        false => Err(format!(
            "{name}: {count} tables are over the limit of {TABLES_MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(json: &str) -> Result<Vec<LifeRule>, String> {
        lives(serde_json::from_str(json).map_err(|error| error.to_string())?)
    }

    #[test]
    fn lives_are_seconds_or_never_and_zero_keeps_nothing() {
        let check = |seconds: &str, expected: Life| {
            let rules = ttl(&format!(r#"[{{"model": "m", "seconds": {seconds}}}]"#));
            assert_eq!(rules.expect("valid")[0].life, expected, "{seconds}");
        };
        check("0", Life::NotKept);
        check("60", Life::For(Duration::from_secs(60)));
        check("2147483648", Life::For(Duration::from_secs(1 << 31)));
        check(r#""never""#, Life::Forever);
    }

    #[test]
    fn a_life_is_a_duration_or_never() {
        let check = |life: &str, expected: Life| {
            let rules = ttl(&format!(r#"[{{"life": "{life}"}}]"#));
            assert_eq!(rules.expect("valid")[0].life, expected, "{life}");
        };
        check("0s", Life::NotKept);
        check("1h30m", Life::For(Duration::from_secs(5400)));
        check("never", Life::Forever);
        let refused = |json: &str, part: &str| {
            let error = ttl(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        };
        refused(r#"[{"life": "soon"}]"#, "ttl: life: `soon`");
        refused(r#"[{"life": "500ms"}]"#, "whole seconds");
        refused(r#"[{"life": "1s", "seconds": 1}]"#, "one of both");
        refused(r#"[{"life": "99999999999s"}]"#, "99999999999");
    }

    #[test]
    fn mistakes_are_named() {
        let check = |json: &str, part: &str| {
            let error = ttl(json).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        };
        check(r#"[{"seconds": 2147483649}]"#, "ttl: seconds: 2147483649");
        check(r#"[{"seconds": -1}]"#, "seconds");
        check(r#"[{"seconds": "soon"}]"#, "seconds");
        check(r#"[{"seconds": 1, "modle": "m"}]"#, "`modle`");
        check(r#"[{"seconds": 1, "path": "/a//b"}]"#, "write `/a/b`");
        check(r#"[{"path": "/a"}]"#, "life is missing");
        let group: GroupTable =
            serde_json::from_str(r#"{"name": "a", "trusted": ["x"]}"#).expect("a table");
        let error = groups(&[group], None).expect_err("no header names it");
        assert!(error.contains("tenant_header"), "{error}");
    }

    #[test]
    fn lists_are_bounded() {
        let rule = r#"{"seconds": 1}"#;
        let rules = |count| ttl(&format!("[{}]", vec![rule; count].join(",")));
        assert_eq!(rules(TABLES_MAX).expect("allowed").len(), TABLES_MAX);
        let error = rules(TABLES_MAX + 1).expect_err("too many");
        assert!(error.starts_with("ttl: 1001"), "{error}");
        let path = r#"{"path": "/v1", "api": "none"}"#;
        let json = format!("[{}]", vec![path; TABLES_MAX + 1].join(","));
        let tables: Vec<PathTable> = serde_json::from_str(&json).expect("tables");
        let error = path_rules(&tables).expect_err("too many");
        assert!(error.starts_with("path: 1001"), "{error}");
    }
}
