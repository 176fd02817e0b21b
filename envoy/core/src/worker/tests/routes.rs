//! Routes that change the request for the provider: its answer is not kept,
//! and stored answers are not served to their requests.

use super::*;
use reflex_llm::Dropped;

impl Play {
    fn dropped(&mut self, why: Dropped) -> u64 {
        self.counted(&format!("not_kept_total.{}", why.detail()))
    }

    /// The provider answers a request that the route has changed.
    fn answers_changed(&mut self, id: Id, change: impl FnOnce(&mut Seen)) {
        change(&mut self.client(id).sent);
        self.answers(id, &json("of another request"));
    }
}

/// A request that its route changes is not kept, and later ones of that route bypass.
fn check(why: Dropped, part: &str, change: impl Fn(&mut Seen)) {
    let mut play = Play::with(r#""tenant_header": "x-team""#);
    let ask = Ask::chat("hello").with("x-version", "1");
    let first = play.asked(&ask);
    play.answers_changed(first, change);
    assert_eq!(play.clients[&first].marked, Some(Status::Miss));
    assert_eq!(play.dropped(why), 1, "{part}");
    play.settle();
    assert!(play.daemon.entries.is_empty(), "{part}");
    assert!(play.daemon.fills.is_empty(), "{part}");

    let second = play.asked(&ask);
    play.provider(second);
    assert_eq!(play.bypassed(Bypass::Route), 1, "{part}");
    let lines = play.worker.shared().routes.take_lines();
    assert!(lines.iter().any(|line| line.contains(part)), "{lines:?}");
    play.ends();
}

#[test]
fn an_answer_to_another_request_than_the_keyed_one_is_not_kept() {
    use Dropped::{Rerouted, Rewritten};
    let add = |sent: &mut Seen, name: &str, value: &str| {
        sent.headers.push((name.into(), value.into()));
    };
    check(Rewritten, "the host", |sent| {
        sent.authority = "b.test".into()
    });
    check(Rewritten, "the path", |sent| {
        sent.path = "/v2/chat/completions".into();
    });
    check(Rewritten, "the query", |sent| sent.path.push_str("?alt=x"));
    check(Rewritten, "header `x-new`", |sent| add(sent, "x-new", "1"));
    check(Rewritten, "header `x-version`", |sent| {
        add(sent, "x-version", "2");
    });
    check(Rewritten, "header `x-version`", |sent| {
        sent.headers.retain(|(name, _)| name != "x-version");
    });
    check(Rewritten, "the credential", |sent| {
        sent.headers[0].1 = b"Bearer sk-b".to_vec();
    });
    // A tenant that the route adds, which the filter has not seen.
    check(Rewritten, "the credential", |sent| {
        add(sent, "x-team", "red")
    });
    check(Rewritten, "the length", |sent| sent.length = Some(1));
    check(Rewritten, "content-encoding", |sent| {
        add(sent, "content-encoding", "gzip");
    });
    check(Rerouted, "cluster `other`", |sent| {
        sent.route.cluster = "other".into();
    });
    check(Rerouted, "route `x`", |sent| sent.route.name = "x".into());
    check(Rerouted, "virtual host `b`", |sent| {
        sent.route.virtual_host = "b".into();
    });
}

#[test]
fn what_no_key_covers_may_change_on_the_way() {
    let mut play = Play::with(r#""tenant_header": "x-team""#);
    let ask = Ask::chat("hello").with("x-team", "red").at("gateway");
    let first = play.asked(&ask);
    play.client(first)
        .sent
        .headers
        .retain(|(name, _)| name != "x-team");
    for name in [
        "x-request-id",
        "accept-encoding",
        "x-forwarded-proto",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-original-path",
        "traceparent",
    ] {
        let header = (name.into(), b"set by Envoy".to_vec());
        play.client(first).sent.headers.push(header);
    }
    play.answers(first, &json("hi"));
    let second = play.asks(&ask);
    play.hit(second, &json("hi"));
    assert!(play.worker.shared().routes.take_lines().is_empty());
    play.ends();
}

#[test]
fn a_tenant_that_reaches_the_provider_is_told_once() {
    let mut play = Play::with(r#""tenant_header": "x-team""#);
    for prompt in ["one", "two"] {
        let ask = Ask::chat(prompt).with("x-team", "red");
        let id = play.asked(&ask);
        play.answers(id, &json("hi"));
        let again = play.asks(&ask);
        play.hit(again, &json("hi"));
    }
    let lines = play.worker.shared().routes.take_lines();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("tenant_header"), "{lines:?}");
    play.ends();
}

#[test]
fn what_a_filter_or_envoy_answers_is_not_kept_and_says_nothing_of_the_route() {
    let mut play = Play::new();
    let ask = Ask::chat("hello");
    let first = play.asked(&ask);
    play.on(first, Event::IsProviders(false));
    play.sent(first);
    let head: &[(&str, &[u8])] = &[("content-type", b"application/json")];
    play.on(first, Event::Head(200, head));
    assert_eq!(play.dropped(Dropped::Local), 1);
    let second = play.asked(&ask);
    play.answers(second, &json("hi"));
    let third = play.asks(&ask);
    play.hit(third, &json("hi"));
    play.ends();
}

/// Envoy shows the sent request with the head, or only at the end; followers wait for that.
#[test]
fn nothing_is_served_before_it_is_known_what_was_sent() {
    for early in [true, false] {
        let mut play = Play::new();
        let first = play.asked(&Ask::chat("hello"));
        let follower = play.asks(&Ask::chat("hello"));
        if early {
            play.sent(first);
        }
        play.head(first, 200, "application/json");
        if early {
            play.sent(first);
        }
        play.on(first, Event::Chunk(json("hi").as_bytes(), true));
        if !early {
            play.held(follower);
            let late = play.asks(&Ask::chat("hello"));
            play.held(late);
            play.sent(first);
            play.collapsed(late, &json("hi"));
        }
        play.collapsed(follower, &json("hi"));
        let next = play.asks(&Ask::chat("hello"));
        play.hit(next, &json("hi"));
        play.ends();
    }
}

/// A stream whose client hangs up at its terminal event.
#[test]
fn an_answer_of_which_it_is_never_known_what_was_sent_is_not_kept() {
    let mut play = Play::new();
    let first = play.asked(&Ask::chat("hello"));
    let follower = play.asks(&Ask::chat("hello"));
    play.head(first, 200, "application/json");
    play.on(first, Event::Chunk(json("hi").as_bytes(), true));
    play.on(first, Event::Gone);
    play.clients.remove(&first);
    play.provider(follower);
    assert_eq!(play.counted("inserts"), 0);
    play.ends();
}

/// A second route to the same upstream may change requests, though the first does not.
#[test]
fn where_several_routes_lead_to_one_upstream_each_is_proven_before_it_is_answered() {
    let mut play = Play::new();
    let ask = |route: &str| Ask::chat("hello").by_route(route);
    let first = play.asked(&ask("plain"));
    play.answers(first, &json("hi"));
    play.settle();
    let again = play.asks(&ask("plain"));
    play.hit(again, &json("hi"));

    let wanted = ask("canary").with("cache-control", "only-if-cached");
    let cached_only = play.asked(&wanted);
    play.absent(cached_only);
    // Identical ones are still one call: the route does the same to both.
    let calls = play.daemon.calls;
    let other = play.asked(&ask("canary"));
    play.provider(other);
    let follower = play.asked(&ask("canary"));
    play.held(follower);
    assert_eq!(play.daemon.calls, calls, "nothing of it may be served");
    play.answers(other, &json("ho"));
    play.collapsed(follower, &json("ho"));
    // Proven: both give the provider the same request, so they share.
    for route in ["canary", "plain"] {
        let id = play.asks(&ask(route));
        play.hit(id, &json("ho"));
    }
    play.ends();
}

#[test]
fn a_route_that_turns_out_to_change_requests_takes_nothing_of_others_and_gives_them_nothing() {
    let mut play = Play::new();
    let ask = |route: &str| Ask::chat("hello").by_route(route);
    let first = play.asked(&ask("plain"));
    play.answers(first, &json("hi"));
    let other = play.asked(&ask("canary"));
    play.provider(other);
    let follower = play.asked(&ask("canary"));
    play.held(follower);
    play.answers_changed(other, |sent| sent.path = "/canary".into());
    play.provider(follower);
    let later = play.asked(&ask("canary"));
    play.provider(later);
    assert_eq!(play.bypassed(Bypass::Route), 1);
    let again = play.asks(&ask("plain"));
    play.hit(again, &json("hi"));
    play.ends();
}

#[test]
fn a_keyed_route_has_answers_of_its_own_whatever_it_does_to_requests() {
    let mut play = Play::with(r#""keyed_routes": ["canary-*"]"#);
    let ask = |route: &str| Ask::chat("hello").by_route(route);
    let change = |sent: &mut Seen| {
        sent.path = "/v2/chat/completions".into();
        sent.headers.push(("x-variant".into(), b"b".to_vec()));
    };
    for route in ["canary-1", "canary-2"] {
        let first = play.asked(&ask(route));
        play.provider(first);
        change(&mut play.client(first).sent);
        play.answers(first, &json(route));
    }
    for route in ["canary-1", "canary-2"] {
        let id = play.asks(&ask(route));
        play.hit(id, &json(route));
    }
    let plain = play.asked(&ask("plain"));
    play.provider(plain);
    play.ends();
}

#[test]
fn a_keyed_route_that_another_one_replaces_is_not_kept() {
    let mut play = Play::with(r#""keyed_routes": ["canary"]"#);
    let ask = Ask::chat("hello").by_route("canary");
    let first = play.asked(&ask);
    play.answers_changed(first, |sent| sent.route.name = "plain".into());
    assert_eq!(play.dropped(Dropped::Rerouted), 1);
    let second = play.asked(&ask);
    play.provider(second);
    play.ends();
}
