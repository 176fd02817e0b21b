//! What an answer reveals of requests like its own: that the provider did more than generate,
//! although no request said so. Each such request is paid for and gives no entry, so the operator
//! may prefer that such requests bypass.

use core::fmt;

use crate::{Api, Rejected};

/// Which APIs have revealed something. For a process or a worker, which logs each once.
#[derive(Debug, Default)]
pub struct Revealed {
    /// One bit each.
    told: u32,
}

const _: () = assert!(Api::ALL.len() <= u32::BITS as usize);

/// A line for the log: what was revealed by answers of this API, and the settings that help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revelation(Api);

impl Revealed {
    /// Nothing was told yet.
    pub const fn new() -> Self {
        Self { told: 0 }
    }

    /// Takes note of an answer that is not kept. Something to log for the first answer of each API
    /// whose reason is [`Rejected::ProviderWork`].
    pub fn note(&mut self, api: Api, reason: Rejected) -> Option<Revelation> {
        let place = Api::ALL.iter().position(|other| *other == api)?;
        let bit = 1 << place;
        let is_news = reason == Rejected::ProviderWork && self.told & bit == 0;
        is_news.then(|| {
            self.told |= bit;
            Revelation(api)
        })
    }
}

impl fmt::Display for Revelation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "an answer of `{}` shows that the provider searched or ran something that its request \
             does not name, and is not kept ({}); requests like it go to the provider each time. \
             Name the field that asks for it in `bypass_fields`, the model in `bypass_models`, or \
             the path in a `path` rule with the api `none`",
            self.0.name(),
            Rejected::ProviderWork.detail()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn what_an_answer_reveals_is_told_once_for_each_api() {
        let mut revealed = Revealed::new();
        assert_eq!(revealed.note(Api::ChatCompletions, Rejected::Error), None);
        for &api in Api::ALL {
            let told = revealed
                .note(api, Rejected::ProviderWork)
                .map(|it| it.to_string());
            assert!(
                told.is_some_and(|line| line.contains(api.name())),
                "{api:?}"
            );
            assert_eq!(revealed.note(api, Rejected::ProviderWork), None);
        }
    }
}
