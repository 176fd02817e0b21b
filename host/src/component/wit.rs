//! Our WIT interfaces as guests see them, one file for each. `exchange`, `grant` and `cache` do the
//! work.

pub(crate) mod cache;
#[cfg(feature = "http")]
pub(crate) mod embeddings;
#[cfg(feature = "http")]
pub(crate) mod http;
pub(crate) mod keyvalue;

use super::bindings::cache::Error;
use crate::grant;

impl From<grant::Error> for Error {
    fn from(error: grant::Error) -> Self {
        match error {
            grant::Error::Invalid(what) => Self::Invalid(what),
            grant::Error::Bypass(reason) => Self::Bypass(reason),
            grant::Error::TooLarge(most) => Self::TooLarge(most),
            grant::Error::Unavailable(why) => Self::Unavailable(why),
            grant::Error::Denied(reason) => Self::Denied(reason),
            grant::Error::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
        }
    }
}
