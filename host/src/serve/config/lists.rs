//! What the lists of tables mean: lives, renewals, paths, groups, limits and prices. Each table that
//! means nothing is an error of its own line, and is left out.

use super::draft::Draft;
use super::limits::{self, Limits};
use super::renew::permille;
use super::words::Hits;
use crate::serve::metrics::Price;
use reflex_llm::{Groups, Lifetimes, PathRule, Renewal, Renewals};
use reflex_settings::{check_count, lives, path_rules};

impl Draft {
    pub(super) fn lifetimes(&mut self) -> Lifetimes {
        let tables = self.values.ttl.0.clone();
        self.check_count("ttl", tables.len());
        let mut rules = Vec::new();
        for row in tables {
            if row.table.is_old() {
                let message = "`seconds` of `[[ttl]]` is now `life`, a duration such as \"10m\"";
                self.warn_at(row.at, "ttl", message.into());
            }
            match lives(vec![row.table]) {
                Ok(rule) => rules.extend(rule),
                Err(error) => self.refuse_at(row.at, "ttl", error),
            }
        }
        Lifetimes {
            rules,
            usual: Some(self.values.ttl_default.0),
            asked_max: Some(self.values.ttl_max.0),
        }
    }

    pub(super) fn paths(&mut self) -> Vec<PathRule> {
        let tables = self.values.path.0.clone();
        self.check_count("path", tables.len());
        let mut rules = Vec::new();
        for row in tables {
            match path_rules(&[row.table]) {
                Ok(rule) => rules.extend(rule),
                Err(error) => self.refuse_at(row.at, "path", error),
            }
        }
        rules
    }

    /// For each tenant of a group, the tenant under which its answers are kept.
    pub(super) fn groups(&mut self) -> Groups {
        let mut groups = Groups::default();
        let header = self.values.tenant_header();
        for row in self.values.group.0.clone() {
            if let Err(error) = row.table.add_to(&mut groups, header.as_deref()) {
                self.refuse_at(row.at, "group", error);
            }
        }
        groups
    }

    pub(super) fn limits(&mut self, groups: &[String]) -> Limits {
        let rows = self.values.limit.0.iter();
        let tables: Vec<_> = rows.map(|row| (row.at, row.table.clone())).collect();
        self.check_count("limit", tables.len());
        let words = (
            self.values.over_rate.means,
            self.values.unnamed_tenants.means,
        );
        limits::limits(&tables, groups, words).unwrap_or_else(|errors| {
            for (at, error) in errors {
                self.refuse_at(at, "limit", error);
            }
            Limits::default()
        })
    }

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

    /// Which answers are renewed in the background. What a rule leaves out is as without one.
    pub(super) fn renewals(&mut self) -> Renewals {
        let usual = Renewal {
            stale: self.values.stale_while_revalidate.0,
            ahead_permille: permille(self.values.refresh_ahead).unwrap_or_else(|error| {
                self.refuse("refresh_ahead", error);
                0
            }),
        };
        let tables = self.values.renew.0.clone();
        self.check_count("renew", tables.len());
        let mut rules = Vec::new();
        for row in tables {
            match row.table.rule(usual) {
                Ok(rule) => rules.push(rule),
                Err(error) => self.refuse_at(row.at, "renew", error),
            }
        }
        let renewals = Renewals { rules, usual };
        let hits = match (self.values.hits, &self.values.component) {
            (Some(hits), _) => hits.means,
            (None, Some(_)) => Hits::Component,
            (None, None) => Hits::Native,
        };
        if !renewals.most().is_never() && hits == Hits::Component {
            let key = match self.values.hits {
                Some(_) => "hits",
                None => "component",
            };
            let message = format!("{key}: the component answers hits, and renews nothing");
            self.refuse(key, message);
        }
        renewals
    }

    fn check_count(&mut self, list: &str, count: usize) {
        if let Err(error) = check_count(list, count) {
            self.refuse(list, error);
        }
    }
}
