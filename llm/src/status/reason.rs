//! Why a request bypasses, and why an answer is not kept: each reason with the token that
//! `Cache-Status` details, metrics and the WIT contract know it by. `docs/reasons.md` explains each,
//! and a test keeps it complete.

/// Declares an enum of reasons, their tokens and the way back from a token.
macro_rules! reasons {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $reason:ident = $token:literal,)* }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $reason,)*
        }

        impl $name {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// The reason as a kebab-case token. Tokens are stable: metrics are named by them.
            pub const fn detail(self) -> &'static str {
                match self {
                    $(Self::$reason => $token,)*
                }
            }

            /// The reason that a token stands for.
            pub fn from_detail(detail: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.detail() == detail)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                formatter.write_str(self.detail())
            }
        }
    };
}

reasons! {
    /// Why a request goes to the provider untouched, its answer not kept.
    Bypass {
        /// No LLM API that we know answers at this path.
        Path = "path",
        /// The provider is not known here, but must be, as part of the key.
        Upstream = "upstream",
        /// The path is known, but only POST asks for an answer there.
        Method = "method",
        /// A parameter of the query that decides how the request is treated has a spelling or a
        /// value that we don't expect.
        Query = "query",
        /// The body is compressed: we do not read it.
        ContentEncoding = "content-encoding",
        /// The client says `Cache-Control: no-store`.
        NoStore = "no-store",
        /// The request names no tenant, so the answer may not be shared.
        NoCredential = "no-credential",
        /// The body is over the bound of its buffer.
        BodyTooLarge = "body-too-large",
        /// Trailers follow the body: no client of an LLM sends any, and no key covers them.
        Trailers = "trailers",
        /// The client sends its body only when the provider has asked for it (`Expect`), so the body
        /// cannot be read before the provider has the request.
        Expect = "expect",
        /// The request asks for a WebSocket or another protocol: the connection becomes a tunnel.
        Upgrade = "upgrade",
        /// The request is one of gRPC, whose answers say how they ended in trailers.
        Grpc = "grpc",
        /// The proxy's route changes what the provider gets, or leads to a provider that cannot be
        /// told beforehand.
        Route = "route",
        /// The body is not UTF-8.
        NotUtf8 = "not-utf8",
        /// The body begins with a byte order mark: some readers take it, others don't.
        ByteOrderMark = "byte-order-mark",
        /// The body is not JSON.
        NotJson = "not-json",
        /// More data follows the JSON value.
        TrailingData = "trailing-data",
        /// Half a surrogate pair, which readers understand differently.
        LoneSurrogate = "lone-surrogate",
        /// An object has one key twice: readers differ in which counts.
        DuplicateKey = "duplicate-key",
        /// Arrays and objects are nested deeper than we follow.
        TooDeep = "too-deep",
        /// The body is JSON but not an object.
        NotObject = "not-object",
        /// A field that decides how the request is treated has a type that we don't expect.
        FieldType = "field-type",
        /// The provider is to store the answer, so it must see the request.
        Store = "store",
        /// The request builds on state at the provider: an earlier answer, a conversation, a cached
        /// context, a prompt template, a container.
        ProviderState = "provider-state",
        /// The request asks for a higher temperature than the operator allows to be cached.
        Temperature = "temperature",
        /// The response only promises a later answer.
        Background = "background",
        /// The answer depends on what a search finds at that moment.
        WebSearch = "web-search",
        /// The provider runs a tool of its own on the way to the answer.
        HostedTool = "hosted-tool",
        /// The operator has this model, or a request with this field, bypass.
        Rule = "rule",
        /// The cache is in trouble or switched off; the client still gets its answer.
        Unavailable = "unavailable",
        /// All requests together hold as much as they may: this one is not held, and passes through.
        Memory = "memory",
        /// The tenant has more misses in a second than the operator allows.
        TenantRate = "tenant-rate",
        /// The tenant has as many fills under way as the operator allows.
        TenantFills = "tenant-fills",
    }
}

reasons! {
    /// Why an answer is not kept.
    Rejected {
        /// The status is not 200.
        Status = "status",
        /// The headers to be kept with it are over their bound.
        HeadTooLarge = "head-too-large",
        /// The body is compressed: we cannot judge it, and not every client could read it.
        ContentEncoding = "content-encoding",
        /// The content type is not that of the representation asked for.
        ContentType = "content-type",
        /// The body, or one frame of it, is over its bound.
        TooLarge = "too-large",
        /// The body ended before the answer did.
        Cut = "cut",
        /// The body, or the data of a frame, is not a JSON object.
        NotJson = "not-json",
        /// The JSON is no answer of this API.
        Unexpected = "unexpected",
        /// The provider reports an error inside a successful answer, such as a content filter that
        /// did not run.
        Error = "error",
        /// The model refused.
        Refusal = "refusal",
        /// Generation stopped at a length limit.
        Length = "length",
        /// Generation ended in a way that is not known to be good, such as `content_filter`.
        FinishReason = "finish-reason",
        /// A choice never ended, although the answer did.
        Unfinished = "unfinished",
        /// Something follows the event that ends a stream, or a choice goes on after its end.
        AfterEnd = "after-end",
        /// The answer shows that the provider searched, fetched or ran something on the way to it,
        /// though the request did not say so. The same request finds something else tomorrow.
        ProviderWork = "provider-work",
        /// A choice, or the only one, has no text, tool call, image or audio. Reasoning alone and
        /// white space alone are none.
        Empty = "empty",
        /// The answer states its end (an expiry, its `Age`), and that has passed or cannot be read.
        Expired = "expired",
        /// `Cache-Control`, `Expires` or `Vary` of the provider forbid it, and the operator has that
        /// obeyed.
        ProviderControl = "provider-control",
    }
}

reasons! {
    /// Why an answer is not kept although nothing is wrong with it.
    Dropped {
        /// A purge came after the provider was asked.
        Purged = "purged",
        /// A rule of the operator, or the client itself, gives it a life of zero.
        Ttl = "ttl",
        /// Another route, or the provider behind another cluster, answered than the one in the key.
        Rerouted = "rerouted",
        /// The provider got another request than the one in the key: another host, path or header.
        Rewritten = "rewritten",
        /// The proxy answered, or another of its filters, and not the provider.
        Local = "local-answer",
        /// The queue to the disk, or from the filter to the daemon, is full.
        Busy = "busy",
        /// The answers being recorded have reached their bound of memory.
        Memory = "memory",
        /// The component has stored as much, or as fast, as its grant allows.
        Quota = "quota",
        /// The headers that belong to it are over their bound.
        HeadersTooLarge = "headers-too-large",
        /// The daemon failed several times in a row, so the filter does not call it for now.
        BreakerOpen = "breaker-open",
        /// The daemon did not take it from the filter.
        Refused = "refused",
        /// The cache, or the filter's call of the daemon, failed.
        Failed = "failed",
    }
}
