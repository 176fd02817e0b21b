//! Work for a client that goes on after the client has left, if followers need it.

use crate::exchange::fills::Audience;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Work that outlives its client for as long as there are followers. `audience` tells them, when
/// the client leaves.
pub(crate) struct Outliving<T, A>
where
    T: Send + 'static,
    A: Fn() -> Option<Arc<Audience>>,
{
    /// Gone when it is done.
    work: Option<Work<T>>,
    audience: A,
}

impl<T, A> Outliving<T, A>
where
    T: Send + 'static,
    A: Fn() -> Option<Arc<Audience>>,
{
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static, audience: A) -> Self {
        Self {
            work: Some(Box::pin(work)),
            audience,
        }
    }
}

impl<T, A> Future for Outliving<T, A>
where
    T: Send + 'static,
    A: Fn() -> Option<Arc<Audience>> + Unpin,
{
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Polled after its end, it stays pending.
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T, A> Drop for Outliving<T, A>
where
    T: Send + 'static,
    A: Fn() -> Option<Arc<Audience>>,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Some(audience) = (self.audience)().filter(|audience| audience.is_there())
            // At the end of the program no runtime is left to go on with.
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                // Its answer is for the followers; they have it when this is done.
                tokio::select! {
                    _ = work => {}
                    () = audience.gone() => {}
                }
            });
        }
    }
}
