//! The tenant of a request: by its credential, a trusted name or a group.

use reflex_llm::{Anonymous, Bypass, Groups, Head, Policy, Tenant, candidate};

use crate::request::{Request, chat, differ, same};

#[test]
fn case_one_team_receives_another_teams_answer() {
    let one = chat();
    let other = chat()
        .without_headers()
        .header("authorization", "Bearer sk-two");
    differ(&one, &other);
    assert_ne!(one.exchange().key.tenant, other.exchange().key.tenant);
}

#[test]
fn case_no_user_or_api_key_in_the_cache_key() {
    for name in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
        let with = |value: &str| chat().without_headers().header(name, value);
        differ(&with("one"), &with("two"));
        assert_eq!(with("").bypass(), Bypass::NoCredential);
        same(&with("one"), &with("one").header(name, ""));
    }
}

#[test]
fn every_credential_counts() {
    let both = chat().header("x-api-key", "k");
    differ(&chat(), &both);
    differ(&both, &chat().header("x-api-key", "l"));
    differ(&chat(), &chat().header("authorization", "Bearer sk-two"));
    // The same secret under another name is another tenant.
    differ(
        &chat().without_headers().header("x-api-key", "k"),
        &chat().without_headers().header("api-key", "k"),
    );
    // The order of different headers does not count.
    same(
        &both,
        &chat()
            .without_headers()
            .header("x-api-key", "k")
            .header("authorization", "Bearer sk-one"),
    );
}

#[test]
fn credentials_are_taken_as_sent() {
    let with = |value: &str| chat().without_headers().header("authorization", value);
    differ(&with("Bearer sk-one"), &with("bearer sk-one"));
    differ(&with("Bearer sk-one"), &with("Bearer sk-one "));
    differ(&with("Bearer sk-one"), &with("Bearer sk-onE"));
}

#[test]
fn an_empty_credential_is_none() {
    for value in ["", " ", "Bearer", "Bearer ", "bearer \t"] {
        let request = chat().without_headers().header("authorization", value);
        assert_eq!(request.bypass(), Bypass::NoCredential);
        let anonymous = Request {
            anonymous: Anonymous::Share,
            ..request
        };
        let without = anonymous.clone().without_headers();
        same(&anonymous, &without);
    }
}

#[test]
fn organisation_and_project_are_part_of_the_tenant() {
    for name in ["openai-organization", "openai-project"] {
        let request = chat().header(name, "a");
        assert_ne!(request.exchange().key.tenant, chat().exchange().key.tenant);
        differ(&request, &chat().header(name, "b"));
    }
}

#[test]
fn a_trusted_header_stands_for_the_caller() {
    let trusted = |request: Request| Request {
        tenant_header: Some("x-team".into()),
        ..request
    };
    let tenant = |request: Request| trusted(request).exchange().key.tenant;
    let team = |team: &str| chat().header("x-team", team);
    assert_ne!(tenant(team("a")), tenant(team("b")));
    differ(&trusted(team("a")), &trusted(team("b")));
    // A team may rotate its keys, and may have none.
    let rotated = chat()
        .without_headers()
        .header("authorization", "Bearer sk-two")
        .header("x-team", "a");
    same(&trusted(team("a")), &trusted(rotated));
    same(
        &trusted(team("a")),
        &trusted(chat().without_headers().header("x-team", "a")),
    );
    // A second value cannot pose as the first.
    assert_ne!(tenant(team("a")), tenant(team("a").header("x-team", "b")));
    // Without it the credential counts, and no credential can pose as a team.
    assert_eq!(tenant(chat()), chat().exchange().key.tenant);
    assert_eq!(tenant(team("")), chat().exchange().key.tenant);
    assert_ne!(tenant(team("Bearer sk-one")), tenant(chat()));
    // Without the setting, the header changes no tenant.
    assert_eq!(
        chat().without_headers().header("x-team", "a").bypass(),
        Bypass::NoCredential
    );
}

#[test]
fn anonymous_callers_share_only_among_themselves() {
    let anonymous = Request {
        anonymous: Anonymous::Share,
        ..chat().without_headers()
    };
    same(&anonymous, &anonymous.clone());
    differ(&anonymous, &chat());
}

#[test]
fn case_the_whole_prompt_in_keys_and_logs() {
    let key = chat().exchange().key;
    assert_eq!(format!("{key:?} {:?}", key.tenant), "Key(..) Tenant(..)");
    let head = Head {
        method: "POST",
        upstream: "https://api.openai.com",
        path: "/v1/chat/completions?key=secret",
        headers: &[("authorization", b"Bearer secret")],
    };
    let candidate = candidate(&head, &Policy::default()).unwrap();
    let logged = format!("{head:?} {candidate:?}");
    let bytes = format!("{:?}", b"secret");
    assert!(!logged.contains("secret") && !logged.contains(&bytes[1..bytes.len() - 1]));
}

#[test]
fn members_of_a_group_have_one_key_and_keep_theirs_without() {
    let policy = Policy {
        tenant_header: Some("x-team"),
        ..Policy::default()
    };
    let key = |team: &[u8], group: Option<&str>| {
        let headers: [(&str, &[u8]); 2] = [("x-team", team), ("x-other", b"counts")];
        let head = Head {
            method: "POST",
            upstream: "https://a.test",
            path: "/v1/chat/completions",
            headers: &headers,
        };
        let found = candidate(&head, &policy).expect("a candidate");
        let found = match group {
            Some(name) => found.as_tenant(Tenant::of_group(name), policy.tenant_header),
            None => found,
        };
        let examined = found.examine(crate::request::CHAT.as_bytes());
        examined.expect("cacheable").exchange.key
    };
    assert!(key(b"red", Some("us")) == key(b"blue", Some("us")));
    assert!(key(b"red", Some("us")) != key(b"red", Some("them")));
    assert!(key(b"red", None) != key(b"blue", None));
    assert!(key(b"red", None) != key(b"red", Some("us")));
    // A team of the group's name is not the group.
    assert!(key(b"us", None) != key(b"us", Some("us")));
}

fn texts<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(String::from)
}

#[test]
fn groups_hold_the_tenants_that_they_name_and_none_twice() {
    let (red, digits) = (texts(["red"]), texts([&"ab".repeat(32)]));
    let mut groups = Groups::default();
    assert!(groups.is_empty());
    groups
        .add("us", &digits, &red, Some("x-team"))
        .expect("a group");
    let team = |name: &str| {
        let headers: [(&str, &[u8]); 1] = [("x-team", name.as_bytes())];
        Tenant::named_by(&headers, Some("x-team")).expect("a tenant")
    };
    assert!(groups.of(team("red")) == Tenant::of_group("us"));
    assert!(groups.of(Tenant([0xab; 32])) == Tenant::of_group("us"));
    assert!(groups.of(team("blue")) == team("blue"));

    let refused = |name: &str, tenants: &[String], trusted: &[String], header: Option<&str>| {
        let mut groups = groups.clone();
        groups
            .add(name, tenants, trusted, header)
            .expect_err("refused")
    };
    let check = |error: String, part: &str| assert!(error.contains(part), "{error}");
    check(refused("", &[], &[], None), "no name");
    check(refused("us", &[], &[], None), "two groups");
    check(refused("them", &digits, &[], None), "named twice");
    check(refused("them", &[], &red, None), "tenant_header");
    check(
        refused("them", &[], &texts([""]), Some("x-team")),
        "no tenant",
    );
    let secret = refused("them", &texts(["sk-secret"]), &[], None);
    check(secret.clone(), "64 digits");
    assert!(!secret.contains("sk-secret"));
}
