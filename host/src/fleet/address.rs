//! Where the fleet's engine is, as operators write it.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]            one server; rediss:// with TLS
//! redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE]      rediss+sentinel://
//! redis+cluster://[USER:PASSWORD@]HOST[:PORT],…                        rediss+cluster://
//! unix:///PATH
//! ```
//!
//! `valkey` means the same as `redis`.

use redis::{ConnectionInfo, IntoConnectionInfo as _};
use std::fmt;

/// Servers that one URL may name.
const SERVERS_MAX: usize = 64;

const SENTINEL_PORT: u16 = 26379;

/// What a URL says.
#[derive(Clone)]
pub(crate) struct Address {
    pub(super) kind: Kind,
    /// At least one; each with the credentials of the URL.
    pub(super) servers: Vec<ConnectionInfo>,
    pub(super) has_tls: bool,
}

/// Which servers those are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    One,
    /// Sentinels, the name of the master that they watch, and its database.
    Sentinel(String, i64),
    /// Some of the nodes.
    Cluster,
}

impl std::str::FromStr for Address {
    type Err = String;

    /// The message never holds the URL: it may have a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let has_tls = match base {
            "redis" | "valkey" | "unix" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(unknown()),
        };
        if rest.contains('#') || rest.contains('?') {
            return Err("a fleet's URL has neither `?` nor `#`: certificates have settings of their own, and are always checked".into());
        }
        if kind.is_empty() {
            let server = server(text)?;
            return Ok(Self {
                kind: Kind::One,
                servers: vec![server],
                has_tls,
            });
        }
        if base == "unix" {
            return Err(unknown());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        let (kind, port) = match kind {
            "cluster" if path.is_empty() => (Kind::Cluster, None),
            "cluster" => return Err("a cluster has one database, which has no number".into()),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, "0"));
                let database = database.parse::<i64>();
                let database =
                    database.map_err(|_| "the database is a number: …/MASTER/NUMBER".to_owned())?;
                if master.is_empty() {
                    return Err("the name of the master is missing: …/MASTER".into());
                }
                (Kind::Sentinel(master.into(), database), Some(SENTINEL_PORT))
            }
            _ => return Err(unknown()),
        };
        let servers: Vec<&str> = hosts.split(',').collect();
        if servers.len() > SERVERS_MAX {
            return Err(format!("more than {SERVERS_MAX} servers"));
        }
        let servers = servers.into_iter().map(|host| {
            let has_port = host
                .rsplit_once(':')
                .is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'));
            let port = port.filter(|_| !has_port);
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            server(&format!("{base}://{credentials}{host}{port}"))
        });
        Ok(Self {
            kind,
            servers: servers.collect::<Result<_, _>>()?,
            has_tls,
        })
    }
}

fn server(url: &str) -> Result<ConnectionInfo, String> {
    let info = url.into_connection_info();
    // The library's message says what is wrong and not what was written.
    info.map_err(|error| {
        let detail = error.detail().unwrap_or("it names no server");
        format!("not a URL of a server: {detail}")
    })
}

fn unknown() -> String {
    "a fleet's URL begins with redis://, rediss://, redis+sentinel://, rediss+sentinel://, \
     redis+cluster://, rediss+cluster:// or unix:///"
        .into()
}

impl Address {
    /// The password of the URL.
    pub(crate) fn password(&self) -> Option<&str> {
        let first = self.servers.first()?;
        first.redis_settings().password()
    }

    /// Whether connections are encrypted.
    pub(crate) fn has_tls(&self) -> bool {
        self.has_tls
    }
}

impl fmt::Debug for Address {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|info| info.addr().to_string());
        f.debug_struct("Address")
            .field("kind", &self.kind)
            .field("servers", &servers.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_what_they_mean() {
        let check = |url: &str, kind: Kind, servers: &[&str], has_tls: bool| {
            let address: Address = url.parse().expect(url);
            let found = address.servers.iter().map(|info| info.addr().to_string());
            assert_eq!(found.collect::<Vec<_>>(), servers, "{url}");
            assert_eq!((address.kind, address.has_tls), (kind, has_tls), "{url}");
        };
        let master = || Kind::Sentinel("main".into(), 0);
        check("redis://10.0.0.1", Kind::One, &["10.0.0.1:6379"], false);
        check("valkey://a:7000/3", Kind::One, &["a:7000"], false);
        check("rediss://u:p@a", Kind::One, &["a:6379"], true);
        check(
            "unix:///run/redis.sock",
            Kind::One,
            &["/run/redis.sock"],
            false,
        );
        check(
            "redis+sentinel://a,b:1/main",
            master(),
            &["a:26379", "b:1"],
            false,
        );
        check(
            "rediss+sentinel://[::1]/main/2",
            Kind::Sentinel("main".into(), 2),
            &["::1:26379"],
            true,
        );
        check(
            "redis+cluster://:p%40@a:1,b:2",
            Kind::Cluster,
            &["a:1", "b:2"],
            false,
        );
        let address: Address = "redis+cluster://:p%40@a:1,b:2".parse().expect("a URL");
        assert_eq!(address.password(), Some("p@"));
    }

    #[test]
    fn mistakes_are_named_and_show_no_password() {
        for url in [
            "",
            "10.0.0.1:6379",
            "http://u:secret@a",
            "redis://u:secret@",
            "redis://u:secret@a/x",
            "redis://u:secret@a:port",
            "redis://u:secret@a#insecure",
            "rediss://u:secret@a#insecure",
            "redis://u:secret@a?protocol=3",
            "redis+sentinel://u:secret@a",
            "redis+sentinel://u:secret@a/main/x",
            "redis+cluster://u:secret@a/1",
            "redis+ring://u:secret@a",
            "unix+cluster://u:secret@a",
        ] {
            let error = url.parse::<Address>().expect_err(url);
            assert!(!error.contains("secret") && !error.is_empty(), "{error}");
        }
        let address: Address = "redis://u:secret@a".parse().expect("a URL");
        assert!(!format!("{address:?}").contains("secret"));
    }
}
