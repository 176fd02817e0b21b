//! The names that occur most often, in bounded memory: the space-saving algorithm of Metwally,
//! Agrawal and El Abbadi (2005).
//!
//! A name that finds no room takes the place of the rarest one and inherits its count as a possible
//! error. So a name that makes up more than one in [`NAMES_MAX`] of all requests is never missed,
//! and what is shown, the count without the inherited part, is never too high.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Names counted at once: at most 128 bytes each, 10 KiB in all.
pub(super) const NAMES_MAX: usize = 64;

/// Counts by name.
#[derive(Clone, Debug)]
pub(super) struct Top<K>(HashMap<K, Count>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    hits: u64,
    /// The part of `requests` that may have been another name's.
    inherited: u64,
}

/// A name that occurs often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Often<K> {
    pub(crate) name: K,
    /// At least so many requests.
    pub(crate) requests: u64,
    /// At least so many of them were hits.
    pub(crate) hits: u64,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash + Ord> Top<K> {
    /// Counts `weight` requests of that name.
    pub(super) fn add<Q>(&mut self, name: &Q, is_hit: bool, weight: u64)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        if !self.0.contains_key(name) {
            let inherited = self.make_room();
            let count = Count {
                requests: inherited,
                inherited,
                hits: 0,
            };
            self.0.insert(name.to_owned(), count);
        }
        if let Some(count) = self.0.get_mut(name) {
            count.requests += weight;
            count.hits += if is_hit { weight } else { 0 };
        }
    }

    /// The count of the name that had to go; 0 while there is room.
    fn make_room(&mut self) -> u64 {
        if self.0.len() < NAMES_MAX {
            return 0;
        }
        let rarest = self.0.iter().min_by_key(|(_, count)| count.requests);
        let Some((name, requests)) = rarest.map(|(name, count)| (name.clone(), count.requests))
        else {
            return 0;
        };
        self.0.remove(&name);
        requests
    }

    /// The `most` most frequent names of several tops together, in order.
    pub(super) fn of<'a>(tops: impl Iterator<Item = &'a Self>, most: usize) -> Vec<Often<K>>
    where
        K: 'a,
    {
        let mut sums: HashMap<&K, (u64, u64)> = HashMap::new();
        for (name, count) in tops.flat_map(|top| &top.0) {
            let (requests, hits) = sums.entry(name).or_default();
            *requests += count.requests - count.inherited;
            *hits += count.hits;
        }
        let often = |(name, (requests, hits)): (&K, (u64, u64))| Often {
            name: name.clone(),
            requests,
            hits,
        };
        let mut often: Vec<_> = sums.into_iter().map(often).collect();
        often.sort_by(|one, other| {
            let by_count = other.requests.cmp(&one.requests);
            by_count.then_with(|| one.name.cmp(&other.name))
        });
        often.truncate(most);
        often
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_names_takes_no_more_memory_and_hides_no_frequent_name() {
        let mut top = Top::<String>::default();
        for number in 0..10_000 {
            top.add(&format!("model-{number}"), false, 1);
            if number % 10 == 0 {
                top.add("often", true, 1);
            }
            assert!(top.0.len() <= NAMES_MAX);
        }
        let often = Top::of([&top].into_iter(), 1);
        assert_eq!(often[0].name, "often");
        assert!(
            often[0].requests <= 1000 && often[0].requests > 900,
            "{often:?}"
        );
        assert!(often[0].hits <= often[0].requests);
    }

    #[test]
    fn tops_add_up() {
        let (mut one, mut other) = (Top::<String>::default(), Top::default());
        one.add("a", true, 3);
        other.add("a", false, 16);
        other.add("b", true, 1);
        let often = Top::of([&one, &other].into_iter(), 10);
        let expected = [("a", 19, 3), ("b", 1, 1)];
        let expected = expected.map(|(name, requests, hits)| Often {
            name: name.to_owned(),
            requests,
            hits,
        });
        assert_eq!(often, expected);
    }
}
