//! The one body type of requests and responses.

use crate::exchange::error::Error;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

/// A body of a request or a response.
pub type BoxBody = UnsyncBoxBody<Bytes, Error>;

/// A body that is in memory.
pub(crate) fn full(bytes: impl Into<Bytes>) -> BoxBody {
    Full::new(bytes.into()).map_err(Error::from).boxed_unsync()
}
