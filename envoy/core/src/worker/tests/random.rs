//! Everything at once, in an order that a seed decides: requests, replies that are early, late or
//! lost, answers that are cut, clients that leave, purges, a daemon that dies, a clock that jumps.
//! After each step each client has only what it may have, and at the end no state is left.

use super::*;

const SEEDS: u64 = 120;
const STEPS: usize = 300;
const CLIENTS_MAX: usize = 25;

/// The kind of a run.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// Anything may happen.
    Rough,
    /// All clients ask for good answers and wait for them: then no request goes to the provider
    /// while another one fetches the same answer.
    Calm,
}

struct Game {
    play: Play,
    random: Random,
    weather: Weather,
    asked: BTreeMap<Id, Asked>,
    /// Requests whose body is still to come.
    sending: BTreeMap<Id, Ask>,
    /// By the number in the answer: the question, and the number of purges before it.
    fetched: Vec<(Ask, u64)>,
    purges: u64,
    /// The number of purges at this epoch of the daemon.
    epochs: BTreeMap<String, u64>,
    /// How many of them the worker knows.
    heard: u64,
}

/// What is known of a client.
struct Asked {
    ask: Ask,
    /// How many purges the worker knew of when it asked.
    heard: u64,
    /// Which answer the provider gives it.
    fetch: Option<usize>,
    /// How many parts of that have arrived.
    parts: usize,
    is_done: bool,
}

/// SplitMix64: a few lines, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn one<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let at = self.below(all.len().max(1) as u64) as usize;
        all.get(at).cloned()
    }
}

#[test]
fn whatever_happens_no_client_gets_anothers_answer_and_no_state_is_left() {
    for seed in 0..SEEDS {
        Game::new(seed, Weather::Rough).play();
    }
}

#[test]
fn in_calm_weather_one_request_at_a_time_goes_to_the_provider() {
    for seed in 0..SEEDS / 4 {
        Game::new(seed, Weather::Calm).play();
    }
}

impl Game {
    fn new(seed: u64, weather: Weather) -> Self {
        let configs = [
            r#""fill_wait_ms": 5000, "epoch_poll_ms": 20"#,
            r#""fill_wait_ms": 700, "hot_bytes_max": 3000, "ttl_seconds": 2"#,
            r#""daemon_cluster": "", "ttl_seconds": 5"#,
            r#""fill_wait_ms": 0, "hot_bytes_max": 0"#,
        ];
        let config = match weather {
            Weather::Rough => configs[(seed % 4) as usize],
            Weather::Calm => r#""fill_wait_ms": 86400000"#,
        };
        let mut game = Self {
            play: Play::with(config),
            random: Random(seed),
            weather,
            asked: BTreeMap::new(),
            sending: BTreeMap::new(),
            fetched: Vec::new(),
            purges: 0,
            epochs: BTreeMap::new(),
            heard: 0,
        };
        game.looks_at_epoch();
        game
    }

    fn play(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.ends();
    }

    fn step(&mut self) {
        let rough = self.weather == Weather::Rough;
        match self.random.below(100) {
            0..25 => self.asks(),
            25..30 => self.sends(),
            30..45 => {
                let tokens = self.tokens(|call| call.said.is_none());
                if let Some(token) = self.random.one(&tokens) {
                    self.play.arrives(token);
                }
            }
            45..60 => {
                let tokens = self.tokens(|call| call.said.is_some());
                if let Some(token) = self.random.one(&tokens) {
                    self.play.deliver(token);
                }
            }
            60..80 => self.answers(),
            80..88 => self.leaves(),
            88..94 => {
                self.play.now_ms += self.random.below(200);
                self.play.tick();
            }
            94 if rough => {
                let tokens = self.tokens(|_| true);
                if let Some(token) = self.random.one(&tokens) {
                    match self.random.below(2) {
                        0 => self.play.fails(token),
                        // The failure is never reported.
                        _ => drop(self.play.calls.remove(&token)),
                    }
                }
            }
            95 if rough => {
                let has_asked = self
                    .play
                    .daemon
                    .heard
                    .iter()
                    .any(|it| it.contains("/v1/entries"));
                match self.random.below(3) {
                    1 if has_asked => self.play.daemon.remove(),
                    2 if has_asked => self.play.daemon.purge_tenant(),
                    _ => {
                        self.purges += 1;
                        self.play.daemon.purge();
                    }
                }
                self.looks_at_epoch();
            }
            96 if rough && self.random.below(4) == 0 => {
                self.play.daemon.restart();
                self.looks_at_epoch();
            }
            97 if rough => {
                let moods = [Mood::Unknown, Mood::Hangs, Mood::Silent, Mood::Nonsense];
                let mood = self.random.one(&moods).expect("one");
                let is_well = self.play.daemon.mood == Mood::Works;
                self.play.daemon.mood = if is_well { mood } else { Mood::Works };
            }
            98 if rough => match self.random.below(4) {
                0 => self.play.now_ms -= self.random.below(20_000),
                1 => self.play.now_ms += self.random.below(20_000),
                _ => self.play.now_ms += self.random.below(1_000),
            },
            _ => {
                self.play.daemon.mood = Mood::Works;
                self.play.settle();
            }
        }
    }

    fn asks(&mut self) {
        if self.asked.len() == CLIENTS_MAX {
            return;
        }
        let prompt = ["one", "two", "three"][self.random.below(3) as usize];
        let mut ask = Ask::chat(prompt);
        if self.random.below(4) == 0 {
            ask = ask.by("sk-b");
        }
        if self.random.below(4) == 0 {
            ask = ask.at("gateway");
        }
        if self.random.below(3) == 0 {
            ask = ask.streamed();
        }
        if self.weather == Weather::Rough {
            ask = match self.random.below(16) {
                0 => ask.with("cache-control", "no-cache"),
                1 => ask.with("cache-control", "max-age=1"),
                2 => ask.with("cache-control", "min-fresh=1"),
                3 => ask.with("cache-control", "only-if-cached"),
                4 => ask.with("cache-control", "no-store"),
                5 => ask.with("x-reflex-ttl", "0"),
                6 => ask.with("x-reflex-ttl", "1"),
                7 => ask.with("cache-control", "min-fresh=100000"),
                _ => ask,
            };
        }
        let heard = self.heard;
        let id = self.play.begins(&ask);
        let asked = Asked {
            ask: ask.clone(),
            heard,
            fetch: None,
            parts: 0,
            is_done: false,
        };
        self.asked.insert(id, asked);
        if self.play.worker.reads(id) {
            self.sending.insert(id, ask);
            if self.random.below(5) > 0 {
                self.sends_all(id);
            }
        }
    }

    /// The rest of some request arrives.
    fn sends(&mut self) {
        let ids: Vec<Id> = self.sending.keys().copied().collect();
        if let Some(id) = self.random.one(&ids) {
            match self.random.below(4) {
                0 if self.weather == Weather::Rough => {
                    self.sending.remove(&id);
                    self.play.on(id, Event::NoBody(Bypass::BodyTooLarge));
                }
                _ => self.sends_all(id),
            }
        }
    }

    fn sends_all(&mut self, id: Id) {
        if let Some(ask) = self.sending.remove(&id) {
            // It is looked up only now.
            self.asked.get_mut(&id).expect("asked").heard = self.heard;
            self.play.on(id, Event::Body(ask.body.as_bytes()));
        }
    }

    /// Some answer of the provider goes on.
    fn answers(&mut self) {
        let is_due = |(_, asked): &(&Id, &Asked)| asked.fetch.is_some() && !asked.is_done;
        let ids: Vec<Id> = self
            .asked
            .iter()
            .filter(is_due)
            .map(|(id, _)| *id)
            .collect();
        let Some(id) = self.random.one(&ids) else {
            return;
        };
        let asked = self.asked.get_mut(&id).expect("asked");
        let text = text(&asked.ask, asked.fetch.expect("fetched"));
        let is_stream = asked.ask.body.contains("stream");
        let accident = match self.weather {
            Weather::Rough => self.random.below(20),
            Weather::Calm => 20,
        };
        let part = asked.parts;
        asked.parts += 1;
        let [first, second] = match is_stream {
            true => sse(&text),
            false => {
                let whole = json(&text);
                let (first, second) = whole.split_at(whole.len() / 2);
                [first.into(), second.into()]
            }
        };
        let content_type = ["application/json", "text/event-stream"][usize::from(is_stream)];
        match part {
            0 if accident == 0 => self.play.head(id, 503, content_type),
            0 => self.play.head(id, 200, content_type),
            1 if accident == 0 && self.play.worker.records(id) => {
                self.play.on(id, Event::Unread);
            }
            1 if accident == 2 && self.play.worker.records(id) => {
                self.play.on(id, Event::Broken);
            }
            1 if accident == 1 => self.play.chunk(id, &first, true),
            1 => self.play.chunk(id, &first, false),
            2 => self.play.chunk(id, &second, false),
            _ => {
                self.asked.get_mut(&id).expect("asked").is_done = true;
                self.play.chunk(id, "", true);
            }
        }
    }

    /// A client goes; clients whose answers are whole always go.
    fn leaves(&mut self) {
        let ids: Vec<Id> = self.asked.keys().copied().collect();
        if let Some(id) = self.random.one(&ids) {
            let answered = matches!(self.play.seen(id), Saw::Ours(..)) || self.asked[&id].is_done;
            if answered || self.random.below(3) == 0 {
                self.gone(id);
            }
        }
        for id in ids {
            if self.asked.get(&id).is_some_and(|asked| asked.is_done) {
                self.gone(id);
            }
        }
    }

    fn gone(&mut self, id: Id) {
        self.asked.remove(&id);
        self.sending.remove(&id);
        self.play.leaves(id);
    }

    fn tokens(&self, which: impl Fn(&Call) -> bool) -> Vec<u32> {
        let calls = self.play.calls.iter();
        calls
            .filter(|(_, call)| which(call))
            .map(|(token, _)| *token)
            .collect()
    }

    fn looks_at_epoch(&mut self) {
        self.epochs.insert(self.play.daemon.epoch(), self.purges);
    }

    /// The number of purges at an epoch. Replacements make epochs of their own.
    fn purges_at(&self, epoch: &str) -> u64 {
        let parts = |epoch: &str| {
            let (starts, count) = epoch.split_once('.').expect("two parts");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            (number(starts), number(count))
        };
        let (starts, count) = parts(epoch);
        let noted = self
            .epochs
            .iter()
            .map(|(epoch, purges)| (parts(epoch), *purges));
        let earlier = noted.filter(|((of, at), _)| *of == starts && *at <= count);
        earlier.max().expect("the start is noted").1
    }

    /// Each client has only what it may have.
    fn check(&mut self) {
        let epoch = self.play.worker.shared().epoch().map(ToString::to_string);
        if let Some(epoch) = epoch {
            let heard = self.purges_at(&epoch);
            assert!(heard >= self.heard, "what is known of purges is forgotten");
            self.heard = heard;
        }
        for (id, asked) in &mut self.asked {
            let wants = |what: &str| asked.ask.headers.iter().any(|(_, value)| value == what);
            match &self.play.clients[id].saw {
                Saw::Held => {}
                Saw::Provider if asked.fetch.is_some() => {}
                Saw::Provider => {
                    let is_bypass = asked
                        .ask
                        .headers
                        .iter()
                        .any(|(_, value)| value == "no-store");
                    let unread = self.play.worker.marks(*id);
                    assert!(
                        !wants("only-if-cached") || unread,
                        "never asks the provider"
                    );
                    assert!(!is_bypass || unread);
                    asked.fetch = Some(self.fetched.len());
                    self.fetched.push((asked.ask.clone(), self.purges));
                }
                Saw::Ours(Status::Absent, _) => assert!(wants("only-if-cached")),
                Saw::Ours(status, body) => {
                    let number = body.split('#').nth(1).expect("a number");
                    let (other, purges) = &self.fetched[number.parse::<usize>().expect("digits")];
                    let same = other.cluster == asked.ask.cluster
                        && other.headers[0] == asked.ask.headers[0]
                        && other.body == asked.ask.body;
                    assert!(same, "another one's answer");
                    assert!(*purges >= asked.heard, "from before a purge");
                    assert!(!wants("no-cache") && !wants("no-store"), "{status:?}");
                    // An answer whose client wants it kept nowhere is served to no other client.
                    let kept = other.headers.iter().all(|(_, value)| value != "0");
                    assert!(kept, "not to be kept");
                }
            }
        }
        assert_eq!(self.play.worker.exchanges(), self.asked.len());
        assert!(self.play.worker.shared().flights.len() <= self.asked.len());
        if self.weather == Weather::Calm {
            self.no_request_is_beside_another();
        }
    }

    fn no_request_is_beside_another(&self) {
        let mut keys = Vec::new();
        for asked in self.asked.values() {
            if asked.fetch.is_some() && !asked.is_done {
                let Ask { cluster, body, .. } = &asked.ask;
                keys.push((cluster, body, &asked.ask.headers[0].1));
            }
        }
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    /// No request is held forever, the worker learns of the last purge, and no state is left.
    fn ends(mut self) {
        let ids: Vec<Id> = self.sending.keys().copied().collect();
        for id in ids {
            self.sends_all(id);
        }
        if self.weather == Weather::Rough {
            self.play.passes(12_000);
            self.check();
            for id in self.asked.keys() {
                assert_ne!(self.play.seen(*id), &Saw::Held);
            }
        }
        self.play.daemon.mood = Mood::Works;
        self.play.passes(5_000);
        self.check();
        if self.play.worker.config().daemon_cluster.is_some() {
            let epoch = self.play.daemon.epoch();
            let known = self.play.worker.shared().epoch();
            assert_eq!(known.map(|epoch| &**epoch), Some(&*epoch));
        }
        self.play.ends();
    }
}

/// The provider's text: the question, and the number of the answer.
fn text(ask: &Ask, number: usize) -> String {
    format!("{} {} #{number}#", ask.cluster, ask.headers[0].1)
}
