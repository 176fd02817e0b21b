//! Batches of embeddings: which are taken apart, and that a joined answer is the one that the
//! provider would have given.

use reflex_llm::embeddings::{ELEMENTS_MAX, Found, Frame, Tokens, Vectors, shares};
use reflex_llm::{Api, Control, Key};
use serde_json::{Value, json};

use crate::embeddings::embedding;
use crate::judging::{Judged, LIMITS};
use crate::random::Random;
use crate::request::{Request, chat};

/// A request for these texts, spelled as JSON, with more fields.
fn request(input: &str, fields: &str) -> Request {
    let body = format!(r#"{{"model":"m",{fields}"input":{input}}}"#);
    chat().path("/v1/embeddings").body(body)
}

/// The parts of a batch: its keys, and their places.
fn split(request: &Request) -> Option<(Vec<Key>, Vec<u32>)> {
    request.batch(|batch| {
        let keys = batch.elements().iter().map(|element| element.key);
        (keys.collect(), batch.places().to_vec())
    })
}

#[test]
fn each_text_has_the_key_of_the_request_for_it_alone() {
    let fields = r#""dimensions":8,"user":"u","encoding_format":"base64","#;
    for path in [
        "/v1/embeddings",
        "/openai/deployments/a/embeddings?api-version=2024-10-21",
    ] {
        let all = request(r#"[ "a\n", "\u0062" ,"a\u000a","", "日本"]"#, fields).path(path);
        let (keys, places) = split(&all).unwrap();
        assert_eq!(places, [0, 1, 0, 2, 3]);
        for (key, text) in keys
            .iter()
            .zip([r#""a\n""#, r#""b""#, r#""""#, r#""日本""#])
        {
            let alone = request(text, fields).path(path).exchange().key;
            assert_eq!(*key, alone, "{text}");
        }
    }
    let other = request(r#"["b"]"#, "");
    assert_ne!(
        split(&other).unwrap().0[0],
        request(r#""b""#, fields).exchange().key
    );
    let other_user = request(r#"["b"]"#, "").without_headers();
    let other_user = other_user.header("authorization", "Bearer sk-two");
    assert_ne!(split(&other_user).unwrap().0, split(&other).unwrap().0);
}

#[test]
fn what_is_not_for_certain_a_batch_of_texts_is_one_entry() {
    for input in [
        "[]",
        "[1,2]",
        "[[1],[2]]",
        r#"["a",1]"#,
        r#"["a",[1]]"#,
        r#"["a",null]"#,
        r#"[{"text":"a"}]"#,
        r#""a""#,
        "null",
        "{}",
    ] {
        assert_eq!(split(&request(input, "")), None, "{input}");
    }
    for field in [
        // Jina's: the vectors of a batch depend on each other.
        r#""late_chunking":true,"#,
        r#""unheard_of":null,"#,
        r#""stream":true,"#,
        r#""m\u006fdel2":"","#,
    ] {
        assert_eq!(split(&request(r#"["a","b"]"#, field)), None, "{field}");
    }
    // The name in another spelling means the same, but is not searched for.
    let spelled = chat()
        .path("/v1/embeddings")
        .body(r#"{"model":"m","inp\u0075t":["a"]}"#);
    assert_eq!(split(&spelled), None);
    assert_eq!(split(&embedding().body("[")), None);
    assert_eq!(split(&chat()), None);
    let long = format!(r#""user":"{}","#, "u".repeat(5000));
    assert_eq!(split(&request(r#"["a","b"]"#, &long)), None);

    let many = |count: usize| {
        let texts: Vec<String> = (0..count).map(|text| format!("\"{text}\"")).collect();
        split(&request(&format!("[{}]", texts.join(",")), ""))
    };
    assert_eq!(many(ELEMENTS_MAX).unwrap().0.len(), ELEMENTS_MAX);
    assert_eq!(many(ELEMENTS_MAX + 1), None);
}

#[test]
fn the_request_for_the_rest_says_what_the_whole_one_has_said() {
    let body =
        "{ \"user\": \"u\", \"input\" : [\"a\", \"\\u0062\",\"c\" ,\"a\"],\n\"model\":\"m\"}";
    let all = chat().path("/v1/embeddings").body(body);
    let rest = all.batch(|batch| batch.asking(&[2, 1, 9])).unwrap();
    assert_eq!(
        String::from_utf8(rest).unwrap(),
        "{ \"user\": \"u\", \"input\" : [\"c\",\"\\u0062\"],\n\"model\":\"m\"}"
    );
}

/// A provider: each text has a vector in a spelling of its own, and tokens of its own.
struct Provider {
    pretty: bool,
    base64: bool,
    has_usage: bool,
    has_id: bool,
    calls: usize,
}

impl Provider {
    fn item(&self, text: &str, index: usize) -> String {
        let number = text.len() + 3;
        let vector = match self.base64 {
            true => format!("\"{}\"", format!("{number:04}+/A=").repeat(2)),
            false => format!("[-0.{number}0,{number}E-2,1e{number}, 0.0]"),
        };
        match self.pretty {
            true => format!(
                "{{\n      \"object\": \"embedding\",\n      \"index\": {index},\n      \
                 \"embedding\": {vector}\n    }}"
            ),
            false => format!(r#"{{"embedding":{vector},"index":{index},"object":"embedding"}}"#),
        }
    }

    fn tokens(text: &str) -> u64 {
        text.len() as u64 / 2 + 1
    }

    fn answer(&mut self, texts: &[&str]) -> String {
        self.calls += 1;
        let (comma, open, close) = match self.pretty {
            true => (",\n    ", "[\n    ", "\n  ]"),
            false => (",", "[", "]"),
        };
        let items = texts.iter().enumerate();
        let items: Vec<String> = items.map(|(at, text)| self.item(text, at)).collect();
        let data = format!("{open}{}{close}", items.join(comma));
        let tokens: u64 = texts.iter().copied().map(Self::tokens).sum();
        let usage = match self.has_usage {
            true => format!(
                r#","usage":{{"total_tokens":{tokens},"prompt_tokens": {tokens},"completion_tokens":0}}"#
            ),
            false => String::new(),
        };
        let id = match self.has_id {
            true => format!(r#""id":"embd-{0}","created":{0},"#, self.calls),
            false => String::new(),
        };
        let text = format!(r#"{{{id}"object":"list","data":{data},"model":"m"{usage}}}"#);
        assert_eq!(
            Judged(Api::Embeddings, LIMITS).json(&text),
            Ok(()),
            "{text}"
        );
        text
    }
}

/// Joins items; the frame is the first answer's.
fn assemble(parts: &[(&str, usize)], counts: &[usize], tokens: Tokens) -> String {
    let read = |part: usize| Vectors::read(parts[part].0.as_bytes(), counts[part]).unwrap();
    let Frame {
        before,
        between,
        after,
    } = read(0).frame(parts[0].0.as_bytes(), tokens);
    let mut out = before;
    for (place, &(text, item)) in parts.iter().enumerate() {
        let vectors = read(place);
        assert!(vectors.fits(text.as_bytes(), &read(0), parts[0].0.as_bytes()));
        let [start, end] = vectors.item(text.as_bytes(), item).unwrap();
        if place > 0 {
            out.extend_from_slice(&between);
        }
        for part in [start, place.to_string().as_bytes(), end] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(&after);
    String::from_utf8(out).unwrap()
}

/// Any batch, any part of it known, from any batches: the joined answer is the one that
/// the provider would have given to all, number by number as it spells them.
#[test]
fn what_is_taken_apart_and_put_together_is_what_the_provider_says() {
    let mut random = Random(4);
    let pool: Vec<String> = (0..12).map(|long| "t".repeat(long * 3)).collect();
    for _ in 0..500 {
        let mut flip = || random.below(2) == 0;
        let mut provider = Provider {
            pretty: flip(),
            base64: flip(),
            has_usage: flip(),
            has_id: flip(),
            calls: 0,
        };
        // What is stored for each text, by earlier batches.
        let mut stored: Vec<Option<String>> = vec![None; pool.len()];
        for _ in 0..random.below(3) {
            let mut numbers: Vec<usize> = (0..pool.len()).collect();
            random.shuffle(&mut numbers);
            numbers.truncate(1 + random.below(4));
            let texts: Vec<&str> = numbers.iter().map(|&at| pool[at].as_str()).collect();
            let answer = provider.answer(&texts);
            let vectors = Vectors::read(answer.as_bytes(), texts.len()).unwrap();
            let whole = vectors.tokens().unwrap_or_default();
            let shared = shares(whole, texts.iter().map(|text| text.len() as u64));
            for (item, &at) in numbers.iter().enumerate() {
                let alone = vectors
                    .alone(answer.as_bytes(), item, shared[item])
                    .unwrap();
                stored[at] = Some(String::from_utf8(alone).unwrap());
            }
        }

        let count = 1 + random.below(8);
        let wanted: Vec<usize> = (0..count).map(|_| random.below(pool.len())).collect();
        let texts: Vec<&str> = wanted.iter().map(|&at| pool[at].as_str()).collect();
        let all = request(&json!(texts).to_string(), "");
        let (elements, places) = split(&all).unwrap();
        let first_place = |element: u32| places.iter().position(|&at| at == element).unwrap();
        let known = |element: u32| stored[wanted[first_place(element)]].as_deref();
        let missing: Vec<u32> = (0..elements.len() as u32)
            .filter(|&element| known(element).is_none())
            .collect();
        let rest: Value =
            serde_json::from_slice(&all.batch(|batch| batch.asking(&missing)).unwrap()).unwrap();
        let rest: Vec<&str> = rest["input"]
            .as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap())
            .collect();
        let fresh = (!rest.is_empty()).then(|| provider.answer(&rest));

        let part = |&place: &u32| match (missing.iter().position(|&at| at == place), &fresh) {
            (Some(item), Some(fresh)) => ((fresh.as_str(), item), rest.len()),
            _ => ((known(place).unwrap(), 0), 1),
        };
        let (parts, counts): (Vec<_>, Vec<_>) = places.iter().map(part).unzip();
        let told = assemble(
            &parts,
            &counts,
            Tokens {
                prompt: 7,
                total: 9,
            },
        );
        let direct = provider.answer(&texts);
        let items = |text: &str| {
            let vectors = Vectors::read(text.as_bytes(), texts.len()).unwrap();
            let item = |at| {
                vectors
                    .item(text.as_bytes(), at)
                    .unwrap()
                    .map(<[u8]>::to_vec)
            };
            (0..texts.len()).map(item).collect::<Vec<_>>()
        };
        assert_eq!(items(&told), items(&direct));
        assert_eq!(
            Judged(Api::Embeddings, LIMITS).json(&told),
            Ok(()),
            "{told}"
        );
        let told: Value = serde_json::from_str(&told).unwrap();
        if provider.has_usage {
            let usage = json!({"prompt_tokens": 7, "total_tokens": 9, "completion_tokens": 0});
            assert_eq!(told["usage"], usage);
        }
    }
}

#[test]
fn what_is_found_is_as_old_as_its_oldest_part_and_stays_as_long_as_the_first_to_go() {
    let check = |control: &str, answers: &[Option<(u64, Option<u64>)>], expected| {
        let control = Control::of(&[("cache-control", control.as_bytes())]);
        let found = Found::of(&control, answers.iter().copied());
        assert_eq!(found, expected, "{control:?} {answers:?}");
    };
    let all = |age_seconds, ttl_seconds| Found::All {
        age_seconds,
        ttl_seconds,
    };
    let (old, young, lasting) = (Some((90, Some(10))), Some((5, Some(95))), Some((20, None)));
    check("", &[young, old, lasting], all(90, Some(10)));
    check("", &[lasting, young], all(20, Some(95)));
    check("", &[lasting], all(20, None));
    check("", &[None, old, None], Found::AllBut(vec![0, 2]));
    check("max-age=50", &[young, old], Found::AllBut(vec![1]));
    check("min-fresh=50", &[old, lasting], Found::AllBut(vec![0]));
    check("max-age=50", &[old, None], Found::Nothing);
    check("no-cache", &[young, lasting], Found::Nothing);
    check("", &[None, None], Found::Nothing);
    check("", &[], Found::Nothing);
}

#[test]
fn the_same_batch_again_is_the_same_bytes() {
    let texts = ["one", "and two", ""];
    for pretty in [false, true] {
        let mut provider = Provider {
            pretty,
            base64: false,
            has_usage: true,
            has_id: false,
            calls: 0,
        };
        let answer = provider.answer(&texts);
        let vectors = Vectors::read(answer.as_bytes(), 3).unwrap();
        let whole = vectors.tokens().unwrap();
        let shared = shares(whole, texts.iter().map(|text| text.len() as u64));
        let alone: Vec<String> = (0..3)
            .map(|item| {
                vectors
                    .alone(answer.as_bytes(), item, shared[item])
                    .unwrap()
            })
            .map(|text| String::from_utf8(text).unwrap())
            .collect();
        let costs = alone
            .iter()
            .map(|text| Vectors::read(text.as_bytes(), 1).unwrap());
        let sum = costs
            .filter_map(|one| one.tokens())
            .fold(Tokens::default(), Tokens::plus);
        assert_eq!(sum, whole);
        let parts: Vec<(&str, usize)> = alone.iter().map(|text| (text.as_str(), 0)).collect();
        assert_eq!(assemble(&parts, &[1; 3], sum), answer);
    }
}

#[test]
fn shares_add_up_and_go_by_weight() {
    let tokens = |total| Tokens {
        prompt: total,
        total,
    };
    let share = |total, weights: &[u64]| -> Vec<u64> {
        let shared = shares(tokens(total), weights.iter().copied());
        shared.iter().map(|share| share.total).collect()
    };
    assert_eq!(share(10, &[0, 0]), [5, 5]);
    assert_eq!(share(8, &[2, 0, 3]), [3, 1, 4]);
    assert_eq!(share(0, &[1, 2]), [0, 0]);
    assert_eq!(share(5, &[]), [0; 0]);
    let most = share(u64::MAX, &[u64::MAX, 1, u64::MAX]);
    assert_eq!(most.iter().sum::<u64>(), u64::MAX);
    let mut random = Random(5);
    for _ in 0..200 {
        let weights: Vec<u64> = (0..1 + random.below(9))
            .map(|_| random.next() % 99)
            .collect();
        let total = random.next() % 1000;
        assert_eq!(share(total, &weights).iter().sum::<u64>(), total);
    }
}

#[test]
fn an_answer_that_is_not_certain_is_not_taken_apart() {
    let good = |data: &str, rest: &str| {
        format!(r#"{{"object":"list","data":[{data}],"model":"m"{rest}}}"#)
    };
    let usage = r#","usage":{"prompt_tokens":2,"total_tokens":2}"#;
    let item =
        |index: u32| format!(r#"{{"object":"embedding","index":{index},"embedding":[1,2]}}"#);
    let two = format!("{},{}", item(0), item(1));
    let read = |text: &str, count| Vectors::read(text.as_bytes(), count).is_some();
    assert!(read(&good(&two, usage), 2));
    assert!(read(&good(&two, ""), 2));
    assert!(read(&good(&two, r#","id":"x","created":5"#), 2));
    for count in [0, 1, 3] {
        assert!(!read(&good(&two, usage), count), "{count}");
    }
    for data in [
        String::new(),
        format!("{},{}", item(1), item(0)),
        format!("{},{}", item(0), item(0)),
        format!("{},{}", item(0), item(2)),
        format!(
            "{},{}",
            item(0),
            r#"{"object":"embedding","embedding":[1,2]}"#
        ),
        format!("{},{}", item(0), r#"{"object":"embedding","index":1}"#),
        format!("{},{}", item(0), r#"{"index":1,"embedding":[1,2,3]}"#),
        format!("{},{}", item(0), r#"{"index":1,"embedding":"AACAPw=="}"#),
        format!("{},{}", item(0), r#"{"index":1.0,"embedding":[1,2]}"#),
        format!("{},{}", item(0), r#"{"index":1,"embedding":[1,2],"tag":1}"#),
        format!(
            "{},{}",
            item(0),
            r#"{"object":"sparse","index":1,"embedding":[1,2]}"#
        ),
        format!("{},{}", item(0), r#"{"index":1,"embedding":[]}"#),
        format!("{},{}", item(0), r#"{"index":1,"embedding":{"a":1}}"#),
        format!("{},null", item(0)),
    ] {
        assert!(!read(&good(&data, usage), 2), "{data}");
    }
    let strings = r#"{"index":0,"embedding":"AA\/A"},{"index":1,"embedding":"AA\/A"}"#;
    assert!(!read(&good(strings, usage), 2));
    for rest in [
        r#","usage":{"prompt_tokens":2}"#,
        r#","usage":{"prompt_tokens":2,"total_tokens":-1}"#,
        r#","usage":{"prompt_tokens":2,"total_tokens":2,"images":1}"#,
        r#","usage":null"#,
        r#","tag":1"#,
        r#","meta":{}"#,
        r#","id":7"#,
    ] {
        assert!(!read(&good(&two, rest), 2), "{rest}");
    }
    assert!(!read(r#"{"data":[]}"#, 0));
    assert!(!read("[]", 1));
    assert!(!read("", 1));
}

#[test]
fn only_vectors_of_one_model_and_kind_stand_together() {
    let answer = |model: &str, vector: &str, usage: &str| {
        format!(r#"{{"data":[{{"index":0,"embedding":{vector}}}],"model":"{model}"{usage}}}"#)
    };
    let usage = r#","usage":{"prompt_tokens":2,"total_tokens":2}"#;
    let one = answer("m", "[1,2]", usage);
    let fits = |other: &str| {
        let read = |text: &str| Vectors::read(text.as_bytes(), 1).unwrap();
        read(&one).fits(one.as_bytes(), &read(other), other.as_bytes())
    };
    assert!(fits(&answer("m", "[3,4e2]", usage)));
    assert!(!fits(&answer("m2", "[1,2]", usage)));
    assert!(!fits(&answer("m", "[1,2,3]", usage)));
    assert!(!fits(&answer("m", "\"AACAPwAAAEA=\"", usage)));
    assert!(!fits(&answer("m", "[1,2]", "")));
}

/// For any bytes: no panic, and all places lie inside.
#[test]
fn damaged_answers_are_no_panic() {
    let whole = format!(
        r#"{{"object":"list","data":[{0},{0}],"model":"m","usage":{{"prompt_tokens":2,"total_tokens":2}}}}"#,
        r#"{"object":"embedding","index":0,"embedding":[0.5,-1e-3]}"#
    );
    let whole = whole.replacen(
        r#""index":0,"embedding":[0.5,-1e-3]}]"#,
        r#""index":1,"embedding":[0.5,-1e-3]}]"#,
        1,
    );
    let mut random = Random(6);
    for _ in 0..20_000 {
        let mut text = whole.clone().into_bytes();
        for _ in 0..1 + random.below(3) {
            let at = random.below(text.len().max(2) - 1);
            match random.below(3) {
                0 => text[at] = random.pick(b"{}[]\",:\\0a "),
                1 if text.len() > 1 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        for count in 1..3 {
            if let Some(vectors) = Vectors::read(&text, count) {
                vectors.frame(&text, Tokens::default());
                assert!(vectors.alone(&text, count - 1, Tokens::default()).is_some());
            }
        }
    }
}
