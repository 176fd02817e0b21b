//! The commands that the fleet uses, each within a deadline of ours, on one connection that is replaced when
//! it fails.
//!
//! ```text
//! command ─► line ─► reply │ late, refused, broken ─► the line goes
//!              └ none: not connected ─► keep: dials ─► line
//! ```
//!
//! The library has deadlines of its own. Some of its ways have none (redis-rs #1953), and a connection may
//! be stale without telling (#2277): so a line that has not answered for a second is dropped.

use super::dial::{Dialler, Line};
use redis::aio::PubSub;
use redis::{Cmd, FromRedisValue, RedisError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How long a command may take. Longer than any lookup waits: a late answer is still of use.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// For a name's address, TCP, TLS and credentials, and for a cluster's topology.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Between two attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Why a command has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no connection.
    NotConnected,
    /// No reply within [`ANSWER_TIME_MAX`].
    Late,
    /// The connection broke.
    Broken,
    /// The engine refuses, or its reply is none to this command.
    Refused,
}

impl Trouble {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::NotConnected => "not connected",
            Self::Late => "late",
            Self::Broken => "the connection broke",
            Self::Refused => "refused",
        }
    }
}

/// See the module.
pub(super) struct Client {
    dialler: Dialler,
    /// The line and its number; none while there is no connection.
    line: Mutex<(u64, Option<Line>)>,
    wanted: Notify,
    /// There is another line.
    pub(super) connected: Notify,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// In place of whatever is there, for so many milliseconds.
    Over(u64),
    /// Only where nothing is, for so many milliseconds.
    New(u64),
    /// In place of whatever is there, without an end.
    Lasting,
}

impl Client {
    pub(super) fn new(dialler: Dialler) -> Self {
        Self {
            dialler,
            line: Mutex::new((0, None)),
            wanted: Notify::new(),
            connected: Notify::new(),
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.ask(&get(name), None).await
    }

    /// The same on the line of that number, and on no later one.
    pub(super) async fn get_on(&self, number: u64, name: &str) -> Result<Option<Vec<u8>>, Trouble> {
        self.ask(&get(name), Some(number)).await
    }

    /// Whether it was written.
    pub(super) async fn set(&self, name: &str, bytes: &[u8], how: Write) -> Result<bool, Trouble> {
        let mut command = redis::cmd("SET");
        command.arg(name).arg(bytes);
        if let Write::Over(ms) | Write::New(ms) = how {
            command.arg("PX").arg(ms.max(1));
        }
        if let Write::New(_) = how {
            command.arg("NX");
        }
        let said: Option<String> = self.ask(&command, None).await?;
        Ok(said.is_some())
    }

    /// Writes a value in place of whatever is there, for so many milliseconds, and returns what was there.
    pub(super) async fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        ms: u64,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let mut command = redis::cmd("SET");
        command.arg(name).arg(bytes).arg("PX").arg(ms.max(1));
        command.arg("GET");
        self.ask(&command, None).await
    }

    pub(super) async fn del(&self, name: &str) -> Result<(), Trouble> {
        let mut command = redis::cmd("DEL");
        command.arg(name);
        self.ask::<i64>(&command, None).await.map(drop)
    }

    pub(super) async fn publish(&self, channel: &str, bytes: &[u8]) -> Result<(), Trouble> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(bytes);
        self.ask::<i64>(&command, None).await.map(drop)
    }

    /// The reply to a command, on the line of the wanted number if there is one.
    async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        wanted: Option<u64>,
    ) -> Result<T, Trouble> {
        let (number, line) = {
            let line = self.lock();
            (line.0, line.1.clone())
        };
        if wanted.is_some_and(|wanted| wanted != number) {
            return Err(Trouble::NotConnected);
        }
        let Some(mut line) = line else {
            self.wanted.notify_one();
            return Err(Trouble::NotConnected);
        };
        let trouble = match timeout(ANSWER_TIME_MAX, line.ask(command)).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => trouble_of(&error),
            Err(_) => Trouble::Late,
        };
        if trouble != Trouble::Refused {
            self.hang_up(number);
        }
        Err(trouble)
    }

    /// Drops the line of that number, and has another one dialled.
    fn hang_up(&self, number: u64) {
        let mut line = self.lock();
        if line.0 == number {
            line.1 = None;
            self.wanted.notify_one();
        }
    }

    /// The number of the present line, or of the last one.
    pub(super) fn number(&self) -> u64 {
        self.lock().0
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().1.is_some()
    }

    /// Keeps a connection for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut pause = RETRY_MIN;
        let mut has_told = false;
        let mut connected: Option<Instant> = None;
        loop {
            if self.is_connected() {
                self.wanted.notified().await;
                continue;
            }
            // An engine that takes connections and refuses what they ask, as a replica does, is dialled each
            // second.
            if let Some(at) = connected {
                sleep(RETRY_MAX.saturating_sub(at.elapsed())).await;
            }
            let failed = match timeout(CONNECT_TIME_MAX, self.dialler.line()).await {
                Ok(Ok(line)) => {
                    let mut current = self.lock();
                    *current = (current.0 + 1, Some(line));
                    drop(current);
                    self.connected.notify_one();
                    // Once for each change, and not for each connection.
                    if connected.replace(Instant::now()).is_none() || has_told {
                        tracing::info!("connected to the fleet's engine");
                    }
                    (pause, has_told) = (RETRY_MIN, false);
                    continue;
                }
                Ok(Err(failed)) => failed.to_string(),
                Err(_) => "connecting took too long".to_owned(),
            };
            if !std::mem::replace(&mut has_told, true) {
                tracing::warn!(why = %failed, "no connection to the fleet's engine: it is tried again");
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// A connection for the messages of a channel.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) async fn listen(&self, channel: &str) -> Result<PubSub, String> {
        let listening = async {
            let mut ear = self
                .dialler
                .ear()
                .await
                .map_err(|error| error.to_string())?;
            let subscribed = ear.subscribe(channel).await;
            subscribed.map_err(|error| error.to_string())?;
            Ok::<_, String>(ear)
        };
        match timeout(CONNECT_TIME_MAX, listening).await {
            Ok(listening) => listening,
            Err(_) => Err("connecting took too long".into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Option<Line>)> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn get(name: &str) -> Cmd {
    let mut command = redis::cmd("GET");
    command.arg(name);
    command
}

fn trouble_of(error: &RedisError) -> Trouble {
    // After a failover, the old master refuses writes, and a new connection finds the new one. A credential
    // may have been replaced.
    const ANEW: [&str; 5] = ["READONLY", "MASTERDOWN", "NOAUTH", "WRONGPASS", "LOADING"];
    let is_anew = error.code().is_some_and(|code| ANEW.contains(&code));
    match error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || is_anew
    {
        true => Trouble::Broken,
        false => Trouble::Refused,
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("dialler", &self.dialler)
            .finish_non_exhaustive()
    }
}
