//! Ways to have two servers disagree on where a request ends.

/// Bytes of a client that means harm.
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// RFC 9112 leaves a server no choice but 400.
    pub(super) must_be_refused: bool,
}

const PATH: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\n\
                    authorization: Bearer attacker\r\ncontent-type: application/json\r\n";

/// Each way, with `hidden` as the request that is hidden behind the first one.
pub(super) fn attacks(hidden: &[u8]) -> Vec<Attack> {
    let mut all = Vec::new();
    let mut add = |name: &str, must_be_refused: bool, head: &str, body: &[u8]| {
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        all.push(Attack {
            name: name.to_owned(),
            bytes,
            must_be_refused,
        });
    };
    let empty_then_hidden = [b"0\r\n\r\n", hidden].concat();
    let whole = empty_then_hidden.len();
    // CL.TE: the length covers the hidden request, the chunks end before it.
    let te = "transfer-encoding: chunked";
    add(
        "CL.TE",
        false,
        &format!("{PATH}content-length: {whole}\r\n{te}\r\n"),
        &empty_then_hidden,
    );
    add(
        "TE.CL, order",
        false,
        &format!("{PATH}{te}\r\ncontent-length: {whole}\r\n"),
        &empty_then_hidden,
    );
    // TE.CL: the length ends within the first chunk's size line, the chunk holds the hidden request.
    let chunk = [
        format!("{:x}\r\n", hidden.len()).as_bytes(),
        hidden,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let size_line = format!("{:x}\r\n", hidden.len()).len();
    add(
        "TE.CL",
        false,
        &format!("{PATH}{te}\r\ncontent-length: {size_line}\r\n"),
        &chunk,
    );

    // Spellings that one side may not take for `chunked`.
    for (spelling, must_be_refused) in [
        ("transfer-encoding : chunked", true),
        ("transfer-encoding: xchunked", true),
        ("transfer-encoding: chunked, identity", true),
        ("transfer-encoding: identity", true),
        ("transfer-encoding:\tchunked", false),
        ("transfer-encoding: \"chunked\"", true),
        ("transfer-encoding: chunked\r\ntransfer-encoding: cow", true),
        (
            "transfer-encoding: cow\r\ntransfer-encoding: chunked",
            false,
        ),
        ("transfer-encoding: chunked, chunked", false),
        ("transfer-encoding: CHUNKED", false),
        ("transfer-encoding: \x0bchunked", true),
        ("transfer-encoding\r\n : chunked", true),
        (" transfer-encoding: chunked", true),
        ("x: y\n transfer-encoding: chunked", true),
        ("x: y\ntransfer-encoding: chunked", false),
        ("x: y\rtransfer-encoding: chunked", true),
        ("transfer_encoding: chunked", false),
        ("transfer-encoding: chunked\x00", true),
    ] {
        let head = format!("{PATH}content-length: {whole}\r\n{spelling}\r\n");
        add(
            &format!("{spelling:?}"),
            must_be_refused,
            &head,
            &empty_then_hidden,
        );
    }

    // Lengths that one side may read in another way.
    let length = hidden.len();
    for (lengths, must_be_refused) in [
        (
            format!("content-length: 0\r\ncontent-length: {length}"),
            true,
        ),
        (
            format!("content-length: {length}\r\ncontent-length: 0"),
            true,
        ),
        (format!("content-length: 0, {length}"), true),
        (format!("content-length: +{length}"), true),
        (format!("content-length: -{length}"), true),
        (format!("content-length: 0x{length:x}"), true),
        (format!("content-length: {length}.0"), true),
        (format!("content-length: {length} 0"), true),
        ("content-length: 99999999999999999999999".to_owned(), true),
        ("content-length: ".to_owned(), true),
        (format!("content-length : {length}"), true),
        (format!("content-length\r\n : {length}"), true),
        (format!("content-length: 0\r\n {length}"), true),
        (format!("content_length: {length}"), false),
        ("content-length: 0".to_owned(), false),
        ("x: y".to_owned(), false),
    ] {
        let head = format!("{PATH}{lengths}\r\n");
        add(&format!("{lengths:?}"), must_be_refused, &head, hidden);
    }

    // Chunks that one side may cut in another place.
    let hex = format!("{:x}", hidden.len());
    for (name, body) in [
        ("an extension", format!("0;{}\r\n\r\n", "a=b")),
        ("an extension with a line feed", "0;a\nb\r\n\r\n".to_owned()),
        (
            "an extension with a carriage return",
            "0;a\rb\r\n\r\n".to_owned(),
        ),
        (
            "an extension that ends in a line feed",
            "0;\n\r\n".to_owned(),
        ),
        ("a size that ends in a line feed", "0\n\r\n".to_owned()),
        ("all ends are line feeds", "0\n\n".to_owned()),
        ("a size with spaces", "0   \r\n\r\n".to_owned()),
        (
            "a size with leading zeros",
            format!("{}0\r\n\r\n", "0".repeat(40)),
        ),
        ("a size with 0x", format!("0x{hex}\r\n")),
        (
            "a size that wraps around",
            "10000000000000000\r\n\r\n".to_owned(),
        ),
        ("a negative size", "-1\r\n\r\n".to_owned()),
        ("no size", "\r\n\r\n".to_owned()),
        (
            "a length as a trailer",
            format!("0\r\ncontent-length: {length}\r\n\r\n"),
        ),
        ("chunks as a trailer", format!("0\r\n{te}\r\n\r\n")),
        (
            "a chunk that is longer than it says",
            "1\r\n{}\r\n0\r\n\r\n".to_owned(),
        ),
    ] {
        let body = [body.as_bytes(), hidden].concat();
        add(name, false, &format!("{PATH}{te}\r\n"), &body);
    }

    // Methods and versions of which one side may think that they have no body.
    for first in [
        "GET /v1/models HTTP/1.1",
        "HEAD /v1/models HTTP/1.1",
        "DELETE /v1/models HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "POST /v1/chat/completions HTTP/1.0",
    ] {
        let line = format!("{first}\r\nhost: test\r\nauthorization: Bearer attacker\r\n");
        add(
            &format!("{first}, length"),
            false,
            &format!("{line}content-length: {length}\r\n"),
            hidden,
        );
        let keep = format!("{line}connection: keep-alive\r\n{te}\r\n");
        add(
            &format!("{first}, chunks"),
            false,
            &keep,
            &empty_then_hidden,
        );
    }
    for upgrade in ["websocket", "h2c", "TLS/1.0"] {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nhost: test\r\nconnection: upgrade, http2-settings\r\n\
             http2-settings: AAMAAABkAAQAAP__\r\nsec-websocket-version: 777\r\nupgrade: {upgrade}\r\n"
        );
        add(upgrade, false, &head, hidden);
    }
    let expects = format!("{PATH}expect: 100-continue\r\ncontent-length: {length}\r\n");
    add("expect", false, &expects, hidden);
    let hop = format!("{PATH}connection: close, content-length\r\ncontent-length: {length}\r\n");
    add("a length for one connection", false, &hop, hidden);
    let host = format!("{PATH}host: other\r\ncontent-length: {length}\r\n");
    add("two hosts", false, &host, hidden);
    all
}
