//! Hits for which the provider was asked again, by result.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Models with a series of their own; later ones are `other`. What clients send has no bound.
const MODELS_MAX: usize = 64;
/// The longest name of a model in a label.
const NAME_BYTES_MAX: usize = 64;
/// Stands for models past the bound, and for none.
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    /// `identical`, `equal`, `different`, `failed` or `skipped`.
    result: &'static str,
    model: String,
    /// The API's name.
    route: &'static str,
}

/// `reflex_verified_total`.
#[derive(Default)]
pub(super) struct Verified {
    results: Family<Labels, Counter>,
    models: Mutex<BTreeSet<String>>,
}

impl Verified {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "verified",
            "Hits for which the provider was asked again, by how the answers compare",
            self.results.clone(),
        );
    }

    pub(super) fn count(&self, result: &'static str, model: Option<&str>, route: &'static str) {
        let model = self.label(model.unwrap_or(OTHER));
        let labels = Labels {
            result,
            model,
            route,
        };
        self.results.get_or_create(&labels).inc();
    }

    fn label(&self, model: &str) -> String {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte);
        if model.is_empty() || model.len() > NAME_BYTES_MAX || !model.bytes().all(is_plain) {
            return OTHER.into();
        }
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if !models.contains(model) {
            if models.len() == MODELS_MAX {
                return OTHER.into();
            }
            models.insert(model.into());
        }
        model.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_make_more_than_so_many_series() {
        let verified = Verified::default();
        for number in 0..2 * MODELS_MAX {
            verified.label(&format!("model-{number}"));
        }
        assert_eq!(verified.label("model-0"), "model-0");
        assert_eq!(verified.label("model-99"), OTHER);
        for odd in ["", "a b", "a\"b", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(Verified::default().label(odd), OTHER, "{odd}");
        }
    }
}
