//! Where bodies and errors of the host become those of wasmtime's `wasi:http`, and back.

use crate::exchange::{BoxBody, Error};
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p3::bindings::http::types::{DnsErrorPayload, ErrorCode};

/// A body of the host, for a guest.
pub fn to_wasi(body: BoxBody) -> WasiBody {
    body.map_err(to_wasi_error).boxed_unsync()
}

/// A body from a guest, or from wasmtime, for the host.
pub fn from_wasi(body: WasiBody) -> BoxBody {
    body.map_err(from_wasi_error).boxed_unsync()
}

pub(crate) fn to_wasi_error(error: Error) -> wasmtime_wasi_http::Error {
    to_code(error).into()
}

/// What a guest is told.
pub(crate) fn to_code(error: Error) -> ErrorCode {
    match error {
        Error::HttpRequestDenied => ErrorCode::HttpRequestDenied,
        Error::HttpRequestUriInvalid => ErrorCode::HttpRequestUriInvalid,
        Error::DnsTimeout => ErrorCode::DnsTimeout,
        Error::DnsError => ErrorCode::DnsError(DnsErrorPayload {
            rcode: None,
            info_code: None,
        }),
        Error::DestinationUnavailable => ErrorCode::DestinationUnavailable,
        Error::DestinationUnroutable => ErrorCode::DestinationIpUnroutable,
        Error::ConnectionRefused => ErrorCode::ConnectionRefused,
        Error::ConnectionTimeout => ErrorCode::ConnectionTimeout,
        Error::ConnectionLimitReached => ErrorCode::ConnectionLimitReached,
        Error::TlsProtocolError => ErrorCode::TlsProtocolError,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        Error::InternalError(why) => ErrorCode::InternalError(why),
    }
}

pub(crate) fn from_wasi_error(error: wasmtime_wasi_http::Error) -> Error {
    use wasmtime_wasi_http::Error as Wasi;
    match error {
        Wasi::HttpRequestDenied => Error::HttpRequestDenied,
        Wasi::HttpRequestUriInvalid => Error::HttpRequestUriInvalid,
        Wasi::DnsTimeout => Error::DnsTimeout,
        Wasi::DnsError { .. } => Error::DnsError,
        Wasi::DestinationUnavailable => Error::DestinationUnavailable,
        Wasi::DestinationNotFound
        | Wasi::DestinationIpProhibited
        | Wasi::DestinationIpUnroutable => Error::DestinationUnroutable,
        Wasi::ConnectionRefused => Error::ConnectionRefused,
        Wasi::ConnectionTimeout => Error::ConnectionTimeout,
        Wasi::ConnectionLimitReached => Error::ConnectionLimitReached,
        Wasi::TlsProtocolError | Wasi::TlsCertificateError => Error::TlsProtocolError,
        Wasi::ConnectionTerminated => Error::ConnectionTerminated,
        Wasi::ConnectionReadTimeout => Error::ConnectionReadTimeout,
        Wasi::HttpResponseTimeout => Error::HttpResponseTimeout,
        Wasi::HttpResponseIncomplete => Error::HttpResponseIncomplete,
        Wasi::HttpProtocolError => Error::HttpProtocolError,
        Wasi::InternalError(why) => Error::InternalError(why),
        other => Error::InternalError(Some(other.to_string())),
    }
}

/// What a guest says went wrong.
pub(crate) fn from_code(code: ErrorCode) -> Error {
    from_wasi_error(code.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_same_after_both_borders() {
        for error in [
            Error::HttpRequestDenied,
            Error::HttpRequestUriInvalid,
            Error::DnsTimeout,
            Error::DnsError,
            Error::DestinationUnavailable,
            Error::DestinationUnroutable,
            Error::ConnectionRefused,
            Error::ConnectionTimeout,
            Error::ConnectionLimitReached,
            Error::TlsProtocolError,
            Error::ConnectionTerminated,
            Error::ConnectionReadTimeout,
            Error::HttpResponseTimeout,
            Error::HttpResponseIncomplete,
            Error::HttpProtocolError,
            Error::InternalError(None),
            Error::InternalError(Some("why".into())),
        ] {
            assert_eq!(from_wasi_error(to_wasi_error(error.clone())), error);
            assert_eq!(from_code(to_code(error.clone())), error);
        }
    }
}
