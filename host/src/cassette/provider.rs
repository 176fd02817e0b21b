//! The way to the provider while an episode is recorded: that of the daemon, without its cache.

use crate::cache::{Cache, CacheOptions};
use crate::exchange::ask::SendRequest as _;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::fills::Fills;
use crate::serve::aim::Aimer;
use crate::serve::config::Config;
use crate::serve::metrics::Metrics;
use crate::serve::own_error::ErrorVoice;
use crate::serve::upstream::{Common, ProviderTls, Providers, check_none_is_own};
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{Request, Response, StatusCode};
use reflex_llm::model_of;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sends requests to the providers of a configuration.
#[derive(Debug)]
pub(super) struct Provider {
    aimer: Aimer,
}

impl Provider {
    /// # Errors
    ///
    /// One line: a certificate or a proxy cannot be used, or this address is the provider's.
    pub(super) fn new(
        config: &Config,
        listens: SocketAddr,
        budget: &Arc<Budget>,
    ) -> Result<Self, String> {
        check_none_is_own(config, Some(listens))?;
        let certificates = ProviderTls::read_all(&config.providers)?;
        // Counters are the client's own; nothing reads them here.
        let metrics = Arc::new(Metrics::new(
            Vec::new(),
            0,
            Fills::new(&Cache::in_memory(&CacheOptions::default())),
            Arc::clone(budget),
            Arc::default(),
        ));
        let common = Common {
            budget,
            metrics: &metrics,
        };
        let providers = Providers::new(config, certificates, &common, None)?;
        let aimer = Aimer {
            providers: Arc::new(providers),
            budget: Arc::clone(budget),
            paths: Arc::clone(&config.paths),
            tenant_header: None,
            idle_max: config.net.idle_max,
            request_max: config.net.request_max,
        };
        Ok(Self { aimer })
    }

    /// Sends a request, of which `whole` is the body as far as it was read.
    ///
    /// # Errors
    ///
    /// The client's response, when no answer came.
    pub(super) async fn ask(
        &self,
        mut request: Request<BoxBody>,
        whole: &[u8],
    ) -> Result<Response<BoxBody>, Response<BoxBody>> {
        if self.aimer.providers.has_passed(request.headers()) {
            let voice = ErrorVoice::of(
                request.uri(),
                request.method(),
                request.headers(),
                &self.aimer.paths,
            );
            let why =
                "this request has come through here before: the address of the provider leads back";
            return Err(voice.error(StatusCode::LOOP_DETECTED, why));
        }
        // A compressed answer could be neither read in a diff nor searched for credentials.
        let identity = HeaderValue::from_static("identity");
        request.headers_mut().insert(ACCEPT_ENCODING, identity);
        let model = model_of(request.uri().path(), whole);
        let (request, voice) = match self.aimer.aim_with_model(request, model) {
            Ok(aimed) => aimed,
            Err(refused) => return Err(*refused),
        };
        let sent = self.aimer.providers.send(request).await;
        sent.map_err(|error| voice.gateway_error(&error))
    }
}
