//! An ordinary program that asks an LLM over HTTP and does not know of a cache.

// Native linkers take no symbol of the names that components export.
#![cfg(target_arch = "wasm32")]
// What wit-bindgen's macro exports is unsafe by nature, and its items have no docs.
#![expect(unsafe_code, reason = "generated code")]
#![allow(missing_docs, unreachable_pub, reason = "generated code")]

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use wasi::http::client;
use wasi::http::types::{Fields, Method, Request, Response, Scheme};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package example:caller;

        world caller {
            import wasi:http/client@0.3.0;
            /// The status and the body of the answer.
            export ask: async func(authority: string, prompt: string) -> result<tuple<u16, list<u8>>, string>;
        }
    ",
    world: "example:caller/caller",
    generate_all,
});

struct Caller;

export!(Caller);

impl Guest for Caller {
    async fn ask(authority: String, prompt: String) -> Result<(u16, Vec<u8>), String> {
        let headers = [
            ("authorization", "Bearer caller"),
            ("content-type", "application/json"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let headers = Fields::from_list(&headers).map_err(|error| error.to_string())?;
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);

        let (mut writer, contents) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (request, _sent) = Request::new(headers, Some(contents), trailers, None);
        let wrong = |()| "not a request".to_owned();
        request.set_method(&Method::Post).map_err(wrong)?;
        request.set_scheme(Some(&Scheme::Http)).map_err(wrong)?;
        request.set_authority(Some(&authority)).map_err(wrong)?;
        request
            .set_path_with_query(Some("/v1/chat/completions"))
            .map_err(wrong)?;

        let mut write = pin!(async move {
            writer.write_all(body.into_bytes()).await;
        });
        let mut send = pin!(client::send(request));
        let mut is_written = false;
        let response = poll_fn(|cx| {
            if !is_written {
                is_written = write.as_mut().poll(cx).is_ready();
            }
            match send.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(response),
                Poll::Pending => Poll::Pending,
            }
        });
        let response = response.await.map_err(|error| error.to_string())?;
        let status = response.get_status_code();
        let (_, received) = wit_future::new(|| Ok(()));
        let (body, _trailers) = Response::consume_body(response, received);
        Ok((status, body.collect().await))
    }
}
