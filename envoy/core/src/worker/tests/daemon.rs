//! The simulated daemon: the edge API of `docs/edge-api.md`, in memory.

use std::collections::BTreeMap;

use crate::daemon::Request;

/// The state of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Mood {
    #[default]
    Works,
    /// Envoy does not know its cluster: calls cannot be made.
    Unknown,
    /// It does not answer, and Envoy reports that at the timeout.
    Hangs,
    /// It does not answer, and Envoy reports nothing.
    Silent,
    /// It sends invalid replies.
    Nonsense,
}

/// The cached answers, and the fills.
#[derive(Default)]
pub(super) struct Daemon {
    pub(super) mood: Mood,
    /// How often it has started, and the number of purges since.
    pub(super) starts: u64,
    pub(super) purges: u64,
    /// The purges since it has started, each with the number of purges by then.
    purged: Vec<(u64, What)>,
    /// An older daemon tells only its epoch, and refuses inserts after any purge.
    pub(super) is_old: bool,
    pub(super) entries: BTreeMap<String, Entry>,
    /// The names of fills, by path.
    pub(super) fills: BTreeMap<String, String>,
    /// The requests to it, in order, in the form of [`summary`].
    pub(super) heard: Vec<String>,
    /// How often the filter tried to call it.
    pub(super) calls: usize,
}

/// What is purged, by paths.
#[derive(Clone, Debug, PartialEq)]
enum What {
    All,
    Tenant(String),
    Entry(String),
    /// Told as an entry, but no insert is refused for it.
    Replaced(String),
}

impl What {
    fn covers(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => path.starts_with(&format!("/v1/entries/{tenant}/")),
            Self::Entry(entry) => path == entry,
            Self::Replaced(_) => false,
        }
    }
}

pub(super) struct Entry {
    pub(super) body: Vec<u8>,
    pub(super) content_type: String,
    pub(super) stored_at_ms: u64,
    /// `u64::MAX` is never.
    pub(super) expires_at_ms: u64,
}

/// A reply.
pub(super) struct Said {
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Option<Vec<u8>>,
}

impl Daemon {
    /// The reply to a call; nothing yet if that waits for a fill.
    pub(super) fn hear(
        &mut self,
        began_ms: u64,
        waits_for: &mut Option<String>,
        request: &Request,
        now_ms: u64,
    ) -> Option<Said> {
        match self.mood {
            Mood::Works => {}
            Mood::Nonsense => return Some(said("200", &[("server", "another program")])),
            Mood::Unknown | Mood::Hangs | Mood::Silent => return None,
        }
        let asked = summary(request);
        let fill = header(request, "x-reflex-fill-id");
        let path = request.path.trim_end_matches("/fill");
        // A lookup tells the one before it, as the daemon does.
        let before = self.epoch();
        let mut reply = match (request.method, header(request, "x-reflex-wait")) {
            ("GET", _) if path == "/v1/epoch" => said("200", &[]),
            ("GET", Some(wait)) => {
                let running = self.fills.get(path);
                let is_first = waits_for.is_none();
                if is_first {
                    *waits_for = running.cloned();
                }
                let wait_ms: u64 = wait.parse().expect("a number");
                let still = running.is_some() && running == waits_for.as_ref();
                let over = now_ms.abs_diff(began_ms) >= wait_ms;
                match (waits_for.is_some(), still) {
                    (true, true) if !over => return None,
                    (true, true) => self.look_up(path, now_ms, Some("collapsed"), Some("busy")),
                    (true, false) => self.look_up(path, now_ms, Some("collapsed"), None),
                    (false, _) => self.look_up(path, now_ms, None, None),
                }
            }
            ("GET", None) => {
                let miss = fill.map(|fill| match self.fills.get(path) {
                    Some(other) if other != fill => "busy",
                    _ => "leader",
                });
                let reply = self.look_up(path, now_ms, None, miss);
                if is(&reply, ("x-reflex-fill", "leader")) {
                    self.fills.insert(path.into(), fill.expect("a fill").into());
                }
                reply
            }
            ("PUT", _) => {
                self.end(path, fill);
                let known = header(request, "x-reflex-epoch");
                match known.is_none_or(|known| !self.was_purged(path, known)) {
                    true => {
                        self.keep(path, request, now_ms);
                        said("201", &[])
                    }
                    false => said("409", &[]),
                }
            }
            ("DELETE", _) => match self.end(path, fill) {
                true => said("204", &[]),
                false => said("404", &[]),
            },
            _ => panic!("{asked}"),
        };
        self.heard.push(asked);
        let epoch = match request.method {
            "GET" => before,
            _ => self.epoch(),
        };
        let known = header(request, "x-reflex-epoch");
        if let Some(known) = known.filter(|known| *known != epoch)
            && let Some(purged) = self.told_since(known)
        {
            reply.set("x-reflex-purged-since", Some(known));
            reply.set("x-reflex-purged", Some(&purged));
        }
        reply
            .headers
            .push(("x-reflex-epoch".into(), epoch.into_bytes()));
        Some(reply)
    }

    pub(super) fn epoch(&self) -> String {
        format!("{}.{}", self.starts, self.purges)
    }

    /// Nothing is cached any more.
    pub(super) fn purge(&mut self) {
        self.purge_what(What::All);
    }

    /// A purge of its entry has begun, or of all of its tenant's, and has reached none of them yet.
    pub(super) fn begins_purge(&mut self, of_tenant: bool) {
        let path = self.path();
        let what = match of_tenant {
            true => What::Tenant(path.split('/').nth(3).expect("a tenant").to_owned()),
            false => What::Entry(path),
        };
        self.purges += 1;
        self.purged.push((self.purges, what));
    }

    /// Another edge has asked the provider anew for the entry that was asked for last.
    pub(super) fn replaced_elsewhere(&mut self, body: &str, now_ms: u64) {
        let path = self.path();
        self.filled_elsewhere(Some(body), now_ms);
        self.purges += 1;
        self.purged.push((self.purges, What::Replaced(path)));
    }

    /// The entry that was asked for last is removed, whether it is there or not; or all of its
    /// tenant's are.
    pub(super) fn remove(&mut self) {
        let path = self.path();
        self.purge_what(What::Entry(path));
    }

    pub(super) fn purge_tenant(&mut self) {
        let path = self.path();
        let tenant = path.split('/').nth(3).expect("a tenant").to_owned();
        self.purge_what(What::Tenant(tenant));
    }

    fn purge_what(&mut self, what: What) {
        self.purges += 1;
        self.entries.retain(|path, _| !what.covers(path));
        self.purged.push((self.purges, what));
    }

    /// The purges since an epoch; none if it is of another daemon.
    fn since(&self, epoch: &str) -> Option<Vec<&What>> {
        let (starts, purges) = epoch.split_once('.')?;
        let purges: u64 = purges.parse().ok()?;
        let newer = self.purged.iter().filter(|(at, _)| *at > purges);
        (starts == self.starts.to_string()).then(|| newer.map(|(_, what)| what).collect())
    }

    fn was_purged(&self, path: &str, epoch: &str) -> bool {
        match self.since(epoch) {
            None => true,
            Some(since) => since.iter().any(|what| self.is_old || what.covers(path)),
        }
    }

    fn told_since(&self, epoch: &str) -> Option<String> {
        let since = self.since(epoch).filter(|_| !self.is_old)?;
        let one = |what: &&What| match what {
            What::All => None,
            What::Tenant(tenant) => Some(format!("tenant={tenant}")),
            What::Entry(path) | What::Replaced(path) => {
                Some(format!("digest={}", path.rsplit('/').next()?))
            }
        };
        let told: Option<Vec<_>> = since.iter().map(one).collect();
        Some(told?.join(", "))
    }

    /// It is killed, and starts again: stored entries are still there, fills are not.
    pub(super) fn restart(&mut self) {
        self.starts += 1;
        self.purges = 0;
        self.purged.clear();
        self.fills.clear();
    }

    /// Another worker fetches every answer that is asked for by then.
    pub(super) fn fill_elsewhere(&mut self) {
        let path = self.path();
        self.fills.insert(path, "elsewhere".into());
    }

    /// The other worker is done: with an answer, or with none that may be kept.
    pub(super) fn filled_elsewhere(&mut self, body: Option<&str>, now_ms: u64) {
        let path = self.path();
        self.fills.remove(&path);
        if let Some(body) = body {
            let entry = Entry {
                body: body.as_bytes().to_vec(),
                content_type: "application/json".into(),
                stored_at_ms: now_ms,
                expires_at_ms: now_ms + 3_600_000,
            };
            self.entries.insert(path, entry);
        }
    }

    /// The one key of such tests: of the entry that was asked for last.
    fn path(&self) -> String {
        let of = |asked: &String| asked.split(' ').nth(1).map(str::to_owned);
        let paths = self.heard.iter().rev().filter_map(of);
        let mut entries = paths.filter(|path| path.starts_with("/v1/entries"));
        let path = entries.next().expect("a request has come");
        path.trim_end_matches("/fill").to_owned()
    }

    fn end(&mut self, path: &str, fill: Option<&str>) -> bool {
        let is_its = fill.is_some() && self.fills.get(path).map(String::as_str) == fill;
        is_its && self.fills.remove(path).is_some()
    }

    fn keep(&mut self, path: &str, request: &Request, now_ms: u64) {
        let answer = request.body.as_ref().expect("an answer");
        let ttl_seconds = match header(request, "x-reflex-ttl").expect("a life") {
            "never" => None,
            ttl => Some(ttl.parse::<u64>().expect("seconds")),
        };
        assert_ne!(ttl_seconds, Some(0), "that would store nothing");
        let age = header(request, "age").map_or(0, |age| age.parse().expect("seconds"));
        let content_type = answer
            .headers
            .iter()
            .find(|(name, _)| name == "content-type");
        let entry = Entry {
            body: answer.body.clone(),
            content_type: content_type.expect("a type").1.clone(),
            stored_at_ms: now_ms - age * 1000,
            expires_at_ms: ttl_seconds.map_or(u64::MAX, |ttl| now_ms + ttl * 1000),
        };
        let before = self.entries.insert(path.into(), entry);
        if before.is_some_and(|entry| now_ms < entry.expires_at_ms) {
            self.purges += 1;
            let replaced = What::Replaced(path.to_owned());
            self.purged.push((self.purges, replaced));
        }
    }

    fn look_up(&self, path: &str, now_ms: u64, hit: Option<&str>, miss: Option<&str>) -> Said {
        let entry = self.entries.get(path);
        let Some(entry) = entry.filter(|entry| now_ms < entry.expires_at_ms) else {
            let mut reply = said("404", &[]);
            reply.set("x-reflex-fill", miss);
            return reply;
        };
        let mut reply = said("200", &[("content-type", &entry.content_type)]);
        let age = now_ms.saturating_sub(entry.stored_at_ms) / 1000;
        let ttl = match entry.expires_at_ms {
            u64::MAX => None,
            at => Some(((at - now_ms) / 1000).to_string()),
        };
        let digest = path.rsplit('/').next();
        reply.set("age", Some(&age.to_string()));
        reply.set("x-reflex-ttl", ttl.as_deref());
        reply.set("x-reflex-entry", digest);
        reply.set("x-reflex-fill", hit);
        reply.body = Some(entry.body.clone());
        reply
    }
}

impl Said {
    fn set(&mut self, name: &str, value: Option<&str>) {
        let header = value.map(|value| (name.to_owned(), value.as_bytes().to_vec()));
        self.headers.extend(header);
    }
}

/// A call in one line: method, path, and which fill or wait it is about.
pub(super) fn summary(request: &Request) -> String {
    let mut line = format!("{} {}", request.method, request.path);
    for (name, short) in [("x-reflex-fill-id", "fill"), ("x-reflex-wait", "wait")] {
        if let Some(value) = header(request, name) {
            line += &format!(" {short}={value}");
        }
    }
    line
}

fn header<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let found = request.headers.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| value.as_str())
}

fn is(said: &Said, (name, value): (&str, &str)) -> bool {
    let same = |(other, is): &(String, Vec<u8>)| other == name && is == value.as_bytes();
    said.headers.iter().any(same)
}

fn said(status: &str, headers: &[(&str, &str)]) -> Said {
    let all = [(":status", status)];
    let all = all.iter().chain(headers);
    Said {
        headers: all
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        body: Some(Vec::new()),
    }
}
