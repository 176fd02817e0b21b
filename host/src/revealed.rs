//! Logs once that an answer reveals work of the provider beyond generating, although its request
//! did not ask for it. Each such request costs the provider's price and never becomes an entry, so
//! the operator may want such requests to pass by from the start.

use reflex_llm::{Api, Rejected};
use std::sync::atomic::{AtomicU32, Ordering};

/// The APIs that were logged already, one bit each.
static TOLD: AtomicU32 = AtomicU32::new(0);

const _: () = assert!(Api::ALL.len() <= u32::BITS as usize);

/// Notes an answer that is not kept. Logs the first of each API whose reason is
/// [`Rejected::ProviderWork`].
pub(crate) fn note(api: Api, reason: Rejected) {
    if is_news(&TOLD, api, reason) {
        tracing::warn!(
            api = api.name(),
            reason = reason.detail(),
            "an answer shows that the provider searched or ran something that its request does not \
             name, and is not kept; requests like it go to the provider each time. Name the field \
             that asks for it in `bypass_fields`, the model in `bypass_models`, or the path in a \
             `[[path]]` rule with `api = \"none\"`"
        );
    }
}

fn is_news(told: &AtomicU32, api: Api, reason: Rejected) -> bool {
    let place = Api::ALL.iter().position(|other| *other == api);
    let bit = place.map_or(0, |place| 1 << place);
    reason == Rejected::ProviderWork && bit != 0 && told.fetch_or(bit, Ordering::Relaxed) & bit == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_reveals_is_told_once_for_each_api() {
        let told = AtomicU32::new(0);
        let news = |api, reason| is_news(&told, api, reason);
        assert!(!news(Api::ChatCompletions, Rejected::Error));
        assert!(news(Api::ChatCompletions, Rejected::ProviderWork));
        assert!(!news(Api::ChatCompletions, Rejected::ProviderWork));
        for &api in Api::ALL {
            let is_first = api != Api::ChatCompletions;
            assert_eq!(news(api, Rejected::ProviderWork), is_first);
            assert!(!news(api, Rejected::ProviderWork));
        }
    }
}
