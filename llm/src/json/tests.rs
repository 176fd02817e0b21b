//! A document without a list of its values gives the same values as a document with a list.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::reader::read_once;
use super::{Halves, Kind, Spelled, Value};

/// All that can be asked of a value.
fn told(value: Value<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
    let mut told = format!("{:?} {}", value.kind(), text(value.spelling()));
    if let Some(string) = value.string() {
        told += &format!(" is {string:?}");
    }
    match value.spelled() {
        _ if matches!(value.kind(), Kind::Array | Kind::Object | Kind::Numbers) => {}
        Spelled::Well(spelling) => told += &format!(" well {}", text(spelling)),
        Spelled::Otherwise(spelling) => told += &format!(" otherwise {}", text(spelling)),
    }
    told += &format!(" of {}", value.elements().count());
    for (key, inside) in value.members() {
        told += "\nby value";
        if let Some(key) = key {
            told += &format!(" {}: ", told_of_key(value, key));
        }
        told += &self::told(inside);
    }
    for (key, inside) in value.members_as_written() {
        told += "\nas written";
        if let Some(key) = key {
            told += &format!(" {}: ", told_of_key(value, key));
        }
        told += &format!("{:?} {}", inside.kind(), text(inside.spelling()));
    }
    told
}

fn told_of_key(object: Value<'_>, key: Value<'_>) -> String {
    let name = String::from_utf8_lossy(&key.name()).to_string();
    let got = object.get(&name).map(|it| (it.kind(), it.spelling()));
    assert!(object.get(&format!("{name} not there")).is_none());
    format!("{name:?} {got:?}")
}

fn check(text: &str) {
    for (halves, is_answer) in [(Halves::Refused, false), (Halves::Kept, true)] {
        let [listed, unlisted] = [true, false].map(|lists| {
            let read = read_once(text.as_bytes(), halves, is_answer, lists);
            read.map(|document| {
                assert_eq!(document.root().unlisted().is_none(), lists);
                told(document.root())
            })
        });
        assert_eq!(listed, unlisted, "{text}");
    }
}

#[test]
fn values_are_the_same_with_a_list_and_without() {
    let scalars = [
        "null",
        "true",
        "false",
        "0",
        "-1.5e+3",
        r#""""#,
        r#""a""#,
        r#""\n\"\\""#,
        r#""\u0061\/""#,
        r#""\ud83d\ude00 é""#,
        r#""\ud83d""#,
    ];
    for scalar in scalars {
        for text in [
            scalar.to_string(),
            format!(" \n{scalar}\t"),
            format!("[{scalar}]"),
            format!("[ {scalar} , {scalar},[{scalar}]]"),
            format!(r#"{{"a":{scalar}}}"#),
            format!(r#" {{ "b" : {scalar} , "a":[{scalar},1],"":{{"z":{scalar},"y":{{}}}} }} "#),
            format!(r#"[{{"b":{scalar},"\u0061":1,"\n":{scalar}}},{{"b":[],"a":{scalar}}}]"#),
        ] {
            check(&text);
        }
    }
    for text in [
        "[1,2]",
        "[[1],[1,2, 3 ],[]]",
        "[1,null]",
        "[1,[2]]",
        "[ ]",
        "{ }",
    ] {
        check(text);
    }
    // More keys than are few, in and out of order.
    for count in [11, 12, 13, 40] {
        for step in [1, 7] {
            let member = |nth: usize| format!(r#""k{:02}":{nth}"#, nth * step % 41);
            let members: Vec<_> = (0..count).map(member).collect();
            check(&format!("[{{{0}}},{{{0}}}]", members.join(",")));
        }
    }
}

#[test]
fn what_is_refused_is_refused_with_a_list_and_without() {
    for text in [
        "",
        "[",
        "]",
        "{",
        "}",
        "[1",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{1:2}",
        "01",
        "1.",
        "-",
        "tru",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\n\"",
        "1 2",
        "[1]]",
        "{\"a\":1]",
        "[1}",
        "{\"a\":1,\"a\":2}",
        "[{\"a\":1,\"\\u0061\":2}]",
        "{\"b\":1,\"a\":1,\"b\":1}",
    ] {
        check(text);
        assert!(
            read_once(text.as_bytes(), Halves::Kept, true, true).is_err(),
            "{text}"
        );
    }
    for depth in [super::DEPTH_MAX, super::DEPTH_MAX + 1] {
        check(&("[".repeat(depth) + &"]".repeat(depth)));
    }
}
