//! The provider's answer, watched as it passes by. What proves good is kept; until then, requests for
//! the same wait for it.

use crate::abi::{Body, Envoy, Map};
use crate::clock::Sleep;
use crate::home::Home;
use crate::keep::{Taken, Whole};
use crate::plugin::Plugin;
use crate::request;
use reflex_envoy_core::config::Upstream;
use reflex_envoy_core::keyed::{Difference, Keyed};
use reflex_envoy_core::routes::Tell;
use reflex_host::cache::Mark;
use reflex_host::flights::{Lead, Outcome};
use reflex_llm::{Dropped, Flow, Key, Life, Recorder, Rejected, Shape, Status};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A leader whose answer stands still for this long is replaced by its first follower, which asks
/// again. Models rarely pause for longer; such a pause costs one call.
const STALL: Duration = Duration::from_secs(1);

/// A shorter part of an answer stands still only because the model does: Envoy's smallest buffers
/// are as large, and a slow client cannot hold up the answer before they are full.
const STALL_BYTES_MIN: usize = 32 << 10;

/// The remedy for compressed answers, for the log.
const COMPRESSED: &str =
    "the provider compresses its answers although asked not to, and they are not kept";

/// The remedy for tenant headers that reach the provider, for the log.
const TENANT: &str = "the provider gets the header of `tenant_header`; have the route remove it";

/// A request that may be answered from the cache, on its way to the provider.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) keyed: Keyed,
    pub(crate) upstream: Arc<Upstream>,
    /// The key of the answer whose turn it is.
    pub(crate) key: Key,
    pub(crate) shape: Shape,
    /// What client and operator let it do.
    pub(crate) flow: Flow,
    /// How long its answer is to live.
    pub(crate) life: Life,
    pub(crate) model: Option<String>,
    /// When it was looked at.
    pub(crate) since: Mark,
}

/// An answer that is watched.
#[derive(Debug)]
pub(crate) struct Recording {
    plugin: Arc<Plugin>,
    home: Arc<Home>,
    asked: Asked,
    recorder: Recorder,
    lead: Option<Lead>,
    taken: Taken,
    /// Of that, for the most that the recorder has held beside the body.
    held: usize,
    bytes: usize,
    /// Whether the provider has answered, and not Envoy or another filter.
    is_providers: bool,
    /// Whether the provider was seen to have got the request that is keyed.
    is_keyed: bool,
    /// When the last part of it came.
    came_at: Instant,
    /// When to see whether it stands still.
    stall: Option<Sleep>,
}

/// What becomes of a recording.
#[derive(Debug)]
pub(crate) enum Go {
    /// On.
    On(Box<Recording>),
    /// It is over.
    Over,
}

impl Recording {
    /// Of the answer to a request that is let go now, perhaps for others as well.
    pub(crate) fn new(
        plugin: &Arc<Plugin>,
        home: &Arc<Home>,
        asked: Asked,
        lead: Option<Lead>,
    ) -> Box<Self> {
        Box::new(Self {
            recorder: Recorder::new(asked.shape, plugin.settings.filter.limits),
            plugin: Arc::clone(plugin),
            home: Arc::clone(home),
            asked,
            lead,
            taken: Taken::default(),
            held: 0,
            bytes: 0,
            is_providers: false,
            is_keyed: false,
            came_at: Instant::now(),
            stall: None,
        })
    }

    /// What the client is told.
    pub(crate) fn status(&self) -> Status {
        self.asked.flow.answered()
    }

    /// The head of the answer.
    pub(crate) fn head(mut self: Box<Self>, envoy: &Envoy<'_>) -> Go {
        self.is_providers = request::is_providers(envoy);
        if let Err(why) = self.check(envoy) {
            return self.dropped(why);
        }
        let headers = envoy.headers(Map::Response);
        let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .map(|(name, value)| (text(name), *value))
            .collect();
        let status = headers.iter().find(|(name, _)| *name == ":status");
        let status = status.and_then(|(_, value)| str::from_utf8(value).ok()?.parse().ok());
        self.plugin.counts.controlled(self.status(), &headers);
        match self.recorder.head(status.unwrap_or(0), &headers) {
            Ok(()) if self.is_providers => Go::On(self),
            Ok(()) => self.dropped(Dropped::Local),
            Err(why) => {
                if why == Rejected::ContentEncoding {
                    let route = &self.asked.keyed.route;
                    self.plugin.routes.warn(route, Tell::Compressed, COMPRESSED);
                }
                self.rejected(why)
            }
        }
    }

    /// A part of the body.
    pub(crate) fn body(mut self: Box<Self>, envoy: &Envoy<'_>, end: bool) -> Go {
        let expected = envoy.body_bytes(Body::ReceivedResponse);
        if !self.taken.take(expected) {
            return self.dropped(Dropped::Memory);
        }
        let mut came = 0;
        for piece in envoy.body(Body::ReceivedResponse) {
            came += piece.len();
            self.recorder.feed(piece);
        }
        if came != expected {
            // A part of an answer is no answer.
            return self.rejected(Rejected::Cut);
        }
        self.bytes += came;
        self.came_at = Instant::now();
        let held = self.recorder.held_bytes();
        let more = held.saturating_sub(self.held);
        let has_room = self.taken.take(more);
        self.held += more;
        match self.recorder.rejected() {
            Some(why) => self.rejected(why),
            None if !has_room => self.dropped(Dropped::Memory),
            None if end => self.ended(envoy),
            None => Go::On(self),
        }
    }

    /// The answer has come to its end.
    pub(crate) fn ended(mut self: Box<Self>, envoy: &Envoy<'_>) -> Go {
        // By now Envoy has changed the request at the latest.
        if let Err(why) = self.check(envoy) {
            return self.dropped(why);
        }
        match self.is_keyed && self.is_providers {
            true => self.whole(),
            false => self.dropped(Dropped::Rewritten),
        }
    }

    /// Envoy has ended the request before the answer's end.
    pub(crate) fn gone(mut self: Box<Self>, envoy: &Envoy<'_>) {
        if let Err(why) = self.check(envoy) {
            self.dropped(why);
            return;
        }
        // A client may hang up at the terminal event, before the provider has closed the stream.
        if self.recorder.complete().is_some() && self.is_keyed && self.is_providers {
            self.whole();
            return;
        }
        self.plugin.counts.rejected(Rejected::Cut);
        if request::has_broken(envoy) {
            // It might do so for each further leader as well, so the followers ask for themselves,
            // at once, as they would without a cache.
            self.let_go();
        }
        // Otherwise the client has gone, and with the lead dropped, a follower takes its place.
    }

    /// When the answer has stood still for too long, the first follower leads from now on: this
    /// client may read slowly, and Envoy then reads no faster from the provider. The answer may still
    /// be stored.
    pub(crate) fn watch(&mut self, context: &mut Context<'_>) {
        if self.lead.is_none() || self.bytes < STALL_BYTES_MIN {
            return;
        }
        loop {
            let came_at = self.came_at;
            let stall = self
                .stall
                .get_or_insert_with(|| Sleep::until(came_at + STALL));
            match Pin::new(stall).poll(context) {
                Poll::Pending => return,
                Poll::Ready(()) => self.stall = None,
            }
            if came_at.elapsed() >= STALL {
                self.lead = None;
                return;
            }
        }
    }

    /// Whether [`watch`](Self::watch) is to be called for the first time.
    pub(crate) fn is_to_be_watched(&self) -> bool {
        self.stall.is_none() && self.lead.is_some() && self.bytes >= STALL_BYTES_MIN
    }

    /// Compares the request that the provider got with the one that is keyed, as soon as Envoy shows
    /// it. The answer of another filter proves nothing about the provider's request.
    fn check(&mut self, envoy: &Envoy<'_>) -> Result<(), Dropped> {
        if self.is_keyed || !self.is_providers {
            return Ok(());
        }
        let Asked {
            keyed, upstream, ..
        } = &self.asked;
        let routes = &self.plugin.routes;
        let route = Arc::new(request::route(envoy));
        let checked = request::with_request(envoy, &route, |sent| {
            if sent.method.is_empty() {
                return None;
            }
            if keyed.tells_tenant(sent) {
                routes.warn(&keyed.route, Tell::Tenant, TENANT);
            }
            Some(keyed.check(&self.plugin.settings.filter, upstream, sent))
        });
        let Some(checked) = checked else {
            return Ok(());
        };
        let (why, text) = match checked {
            Ok(()) => {
                routes.proven(&keyed.route);
                self.is_keyed = true;
                return Ok(());
            }
            Err(Difference::Route(by)) => {
                let (cluster, by) = (&by.cluster, by.describe());
                let text = format!(
                    "it was chosen when the module looked, but cluster `{cluster}` answered, by \
                     {by}; a filter clears the route"
                );
                (Dropped::Rerouted, text)
            }
            Err(Difference::Part(part)) => {
                let text =
                    format!("the provider gets another request than the module: {part} differs");
                (Dropped::Rewritten, text)
            }
        };
        if !keyed.by_route {
            routes.refuse(upstream, &keyed.route, &text);
        }
        Err(why)
    }

    fn whole(self: Box<Self>) -> Go {
        let Self {
            plugin,
            home,
            asked,
            recorder,
            lead,
            taken,
            ..
        } = *self;
        let whole = Whole {
            plugin,
            home,
            recorder,
            key: asked.key,
            shape: asked.shape,
            model: asked.model,
            life: asked.life,
            since: asked.since,
            lead,
            taken,
        };
        whole.keep();
        Go::Over
    }

    fn rejected(self: Box<Self>, why: Rejected) -> Go {
        self.plugin.counts.rejected(why);
        self.let_go()
    }

    fn dropped(self: Box<Self>, why: Dropped) -> Go {
        self.plugin.counts.dropped(why);
        self.let_go()
    }

    /// Nothing of it is kept: its followers ask for themselves.
    fn let_go(self: Box<Self>) -> Go {
        if let Some(lead) = self.lead {
            lead.end(|| Outcome::Unshared);
        }
        Go::Over
    }
}
