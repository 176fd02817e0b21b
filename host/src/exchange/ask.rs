//! How requests go to the provider.

use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use std::pin::Pin;

/// A response on its way.
pub type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<http::Response<BoxBody>, Error>> + Send>>;

/// How the requests of guests leave the host.
pub trait SendRequest: Send + Sync + 'static {
    /// Sends a request and resolves once the response's head has come.
    ///
    /// The future is polled while an instance of a guest runs, and wasmtime runs no instance within
    /// another. A sender that lets a guest answer must run it on a task of its own, as
    /// [`Service02`](crate::component::Service02) does.
    ///
    /// # Errors
    ///
    /// The future fails without a response, or if the host does not allow guests that target.
    fn send(&self, request: http::Request<BoxBody>) -> ResponseFuture;
}
