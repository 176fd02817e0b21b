//! Why a body or a response did not come. The names are those of `wasi:http`, without its types.

use std::convert::Infallible;
use std::fmt;

/// Why a request got no response, or a body broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host lets no request go to that target.
    HttpRequestDenied,
    /// The target is no valid URI.
    HttpRequestUriInvalid,
    /// Resolving the target's name took too long.
    DnsTimeout,
    /// The target's name could not be resolved.
    DnsError,
    /// The target has not answered lately, and is left alone for a while.
    DestinationUnavailable,
    /// The target could not be reached, for a reason without a name of its own.
    DestinationUnroutable,
    /// The target refused the connection.
    ConnectionRefused,
    /// Connecting took too long.
    ConnectionTimeout,
    /// No connection is left: the process or the system is at its limit.
    ConnectionLimitReached,
    /// TLS with the target failed.
    TlsProtocolError,
    /// The other side closed the connection. The request may have been acted on.
    ConnectionTerminated,
    /// The other side paused for too long within a body, or took too long for the whole.
    ConnectionReadTimeout,
    /// The head of the response took too long.
    HttpResponseTimeout,
    /// The response ended before its end.
    HttpResponseIncomplete,
    /// The other side does not speak HTTP as it must.
    HttpProtocolError,
    /// Anything else, in words.
    InternalError(Option<String>),
}

#[cfg(feature = "serve")]
impl Error {
    /// Whether no connection with the target came about. Nothing was sent.
    pub(crate) fn is_of_connecting(&self) -> bool {
        matches!(
            self,
            Self::DnsTimeout
                | Self::DnsError
                | Self::DestinationUnroutable
                | Self::ConnectionRefused
                | Self::ConnectionTimeout
                | Self::TlsProtocolError
        )
    }

    /// Whether the target has perhaps got the request, and has not answered.
    pub(crate) fn is_of_waiting(&self) -> bool {
        matches!(self, Self::ConnectionTerminated | Self::HttpResponseTimeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HttpRequestDenied => "request denied",
            Self::HttpRequestUriInvalid => "invalid URI",
            Self::DnsTimeout => "DNS lookup timed out",
            Self::DnsError => "DNS error",
            Self::DestinationUnavailable => "destination unavailable",
            Self::DestinationUnroutable => "destination unroutable",
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionLimitReached => "connection limit reached",
            Self::TlsProtocolError => "TLS protocol error",
            Self::ConnectionTerminated => "connection terminated",
            Self::ConnectionReadTimeout => "connection read timeout",
            Self::HttpResponseTimeout => "response timeout",
            Self::HttpResponseIncomplete => "incomplete response",
            Self::HttpProtocolError => "HTTP protocol error",
            Self::InternalError(None) => "internal error",
            Self::InternalError(Some(why)) => return write!(f, "internal error: {why}"),
        })
    }
}

impl std::error::Error for Error {}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(feature = "serve")]
impl From<hyper::Error> for Error {
    /// An error within a body: its head had come.
    fn from(error: hyper::Error) -> Self {
        match error.is_parse() {
            true => Self::HttpProtocolError,
            false => Self::ConnectionTerminated,
        }
    }
}
