//! A service of WASI 0.2 that misbehaves: its caller gets an error, a body that is cut does
//! not look whole, and the next request is answered.

use super::service::{Answer, Parts, Told, boxed, chat, full, origin02};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use reflex_host::component::{GuestLimits, Service02};
use reflex_host::exchange::Error;
use reflex_host::exchange::{BoxBody, ResponseFuture, SendRequest};
use reflex_tests::{PATIENCE, within};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const CHAT: &str = "/v1/chat/completions";

/// Room for one instance, for which all requests wait.
fn one() -> GuestLimits {
    GuestLimits {
        instances_max: 1,
        instance_wait_max: PATIENCE,
        guest_time_max: PATIENCE,
        ..GuestLimits::default()
    }
}

/// For services that make no calls.
fn no_calls() -> Arc<dyn SendRequest> {
    struct Refused;
    impl SendRequest for Refused {
        fn send(&self, _: Request<BoxBody>) -> ResponseFuture {
            Box::pin(std::future::ready(Err(Error::HttpRequestDenied)))
        }
    }
    Arc::new(Refused)
}

fn request(told: Option<&str>, path: &str, body: BoxBody) -> Request<BoxBody> {
    let mut request = Request::post(format!("http://model.test{path}"));
    if let Some(told) = told {
        request = request.header("x-test-guest", told);
    }
    request.body(body).expect("a request")
}

async fn tell(service: &Service02, told: &str) -> Result<Response<BoxBody>, Error> {
    let request = request(Some(told), CHAT, full(chat("whatever", false)));
    within("a response", service.send(request)).await
}

async fn others_are_answered(service: &Service02) {
    let request = request(None, CHAT, full(chat("beside it", false)));
    let answer = within("an answer", service.send(request)).await;
    let answer = Answer::new(answer.expect("a response")).rest().await;
    assert!(answer.contains("chat.completion"), "{answer}");
}

/// A service that is told to fail in this way gives no response, for this reason.
async fn check_fails(limits: GuestLimits, told: &str, expected: &str) {
    let (service, _pace) = origin02(limits);
    for _ in 0..2 {
        let failed = tell(&service, told).await.expect_err(told);
        let failed = format!("{failed:?}");
        assert!(failed.starts_with(expected), "{told}: {failed}");
    }
    others_are_answered(&service).await;
}

#[tokio::test]
async fn a_service_that_gives_no_response_is_an_error() {
    check_fails(one(), "trap", "InternalError").await;
    check_fails(one(), "allocate", "InternalError").await;
    check_fails(one(), "say-nothing", "HttpResponseIncomplete").await;
    check_fails(one(), "drop-the-response", "HttpResponseIncomplete").await;
    check_fails(one(), "refuse", "InternalError(Some(\"configuration error").await;
}

#[tokio::test]
async fn a_service_that_computes_for_too_long_is_stopped() {
    let limits = GuestLimits {
        guest_time_max: Duration::from_secs(1),
        ..one()
    };
    check_fails(limits, "spin", "HttpResponseTimeout").await;
}

/// A body that is cut in this way breaks off, and the failure is counted.
async fn check_breaks(limits: GuestLimits, told: &str, reason: &str) {
    let (service, _pace) = origin02(limits);
    let (observer, mut reasons) = Told::new();
    let service = service.observed(observer);
    let response = tell(&service, told).await.expect("a response");
    let body = within("the end of a body", response.into_body().collect()).await;
    assert!(body.is_err(), "{told}: it passes for a whole body");
    assert_eq!(within("a reason", reasons.recv()).await, Some(reason));
    assert_eq!(reasons.try_recv().ok(), None, "{told}");
    others_are_answered(&service).await;
}

#[tokio::test]
async fn a_body_that_a_service_does_not_end_breaks_off() {
    check_breaks(one(), "trap-while-streaming", "stream-trap").await;
    check_breaks(one(), "end-nothing", "stream-body").await;
}

#[tokio::test]
async fn a_service_that_streams_for_too_long_is_stopped() {
    let limits = GuestLimits {
        stream_time_max: Duration::from_secs(2),
        ..one()
    };
    check_breaks(limits, "sleep-while-streaming", "stream-timeout").await;
}

#[test]
fn what_is_no_service_of_wasi_02_is_refused_when_it_is_loaded() {
    for (component, reason) in [
        (
            &include_bytes!(env!("REFLEX_TEST_ORIGIN_WASM"))[..],
            "Mismatch",
        ),
        (
            include_bytes!(env!("REFLEX_TEST_CALLER02_WASM")),
            "Mismatch",
        ),
        (b"(component)", "NotAComponent"),
    ] {
        let refused = Service02::new(component, no_calls(), one()).expect_err(reason);
        assert!(format!("{refused:?}").starts_with(reason), "{refused:?}");
    }
}

#[tokio::test]
async fn a_service_finds_no_environment_and_no_folders() {
    let (service, _pace) = origin02(one());
    let response = tell(&service, "look-around").await.expect("a response");
    assert_eq!(Answer::new(response).rest().await, "0");
}

#[tokio::test]
async fn more_requests_than_there_may_be_instances_are_refused() {
    let limits = GuestLimits {
        instance_wait_max: Duration::ZERO,
        ..one()
    };
    let (service, pace) = origin02(limits);
    let stream = || service.send(request(None, CHAT, full(chat("slowly", true))));
    let first = within("a response", stream()).await.expect("a response");
    let refused = within("a refusal", stream()).await.expect_err("no room");
    assert!(
        matches!(refused, Error::ConnectionLimitReached),
        "{refused}"
    );
    pace.0.add_permits(3);
    let answer = Answer::new(first).rest().await;
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
}

#[tokio::test]
async fn an_instance_ends_with_a_request_that_has_no_client_any_more() {
    let limits = GuestLimits {
        instance_wait_max: Duration::ZERO,
        ..one()
    };
    let (service, _pace) = origin02(limits);
    let (parts, body) = mpsc::channel(1);
    let left = service.send(request(None, CHAT, boxed(Parts(body))));
    let reads = async {
        // The second has room only when the service has read the first.
        for _ in 0..2 {
            parts
                .send(Bytes::from_static(b"{"))
                .await
                .expect("it reads");
        }
    };
    tokio::select! {
        _ = left => panic!("an answer to half a request"),
        () = within("the service to read", reads) => {}
    }
    within("the body to be dropped", parts.closed()).await;
    others_are_answered(&service).await;
}
