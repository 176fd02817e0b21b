//! Connections to the engine: one server, the master that sentinels name, or a cluster.
//!
//! Files of certificates and of the password are read for each connection: they may have been replaced, and
//! a token that has run out must not keep an edge away.

use super::address::{Address, Kind};
use redis::aio::{MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, FromRedisValue,
    RedisError, RedisResult, TlsCertificates, TlsMode,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{fmt, fs, io};

/// A password or a token.
const PASSWORD_BYTES_MAX: usize = 16 << 10;

/// The files that a connection needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// The password, or a token in its place.
    pub(crate) password: Option<PathBuf>,
    /// The CAs that are trusted in place of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// This edge's own certificate and its key.
    pub(crate) pair: Option<(PathBuf, PathBuf)>,
}

/// What those files hold.
#[derive(Clone, Default)]
struct Contents {
    password: Option<String>,
    certificates: Option<TlsCertificates>,
}

/// How to connect.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    address: Address,
    files: Files,
    /// Which server of several is tried next.
    next: Arc<AtomicUsize>,
}

/// A connection on which any number of commands are under way. A clone is the same.
#[derive(Clone)]
pub(super) enum Line {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failed {
    File(PathBuf, io::Error),
    Engine(RedisError),
}

impl Files {
    /// # Errors
    ///
    /// The file that cannot be used, and why.
    fn read(&self, has_tls: bool) -> Result<Contents, Failed> {
        let bytes =
            |path: &PathBuf| fs::read(path).map_err(|error| Failed::File(path.clone(), error));
        let password = self.password.as_ref().map(|path| {
            let text = String::from_utf8(bytes(path)?);
            let text = text.map_err(|_| "this is not UTF-8");
            let fits = |text: &String| text.len() <= PASSWORD_BYTES_MAX;
            let text = text.and_then(|text| match fits(&text) {
                true => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
                false => Err("this is longer than any password"),
            });
            text.map_err(|why| Failed::File(path.clone(), io::Error::other(why)))
        });
        let ca = self.ca.as_ref().map(bytes).transpose()?;
        let pair = self.pair.as_ref();
        let pair = pair.map(|(cert, key)| {
            Ok::<_, Failed>(ClientTlsConfig {
                client_cert: bytes(cert)?,
                client_key: bytes(key)?,
            })
        });
        let certificates = TlsCertificates {
            client_tls: pair.transpose()?,
            root_cert: ca,
        };
        Ok(Contents {
            password: password.transpose()?,
            certificates: has_tls.then_some(certificates),
        })
    }
}

impl Dialler {
    pub(super) fn new(address: Address, files: Files) -> Self {
        Self {
            address,
            files,
            next: Arc::default(),
        }
    }

    /// Whether what it needs can be read.
    ///
    /// # Errors
    ///
    /// A line that names the file.
    pub(super) fn check(&self) -> Result<(), String> {
        let contents = self.files.read(self.address.has_tls);
        let contents = contents.map_err(|error| error.to_string())?;
        for server in &self.address.servers {
            client(server, &contents).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn contents(&self) -> Result<Contents, Failed> {
        let (files, has_tls) = (self.files.clone(), self.address.has_tls);
        let read = tokio::task::spawn_blocking(move || files.read(has_tls));
        let failed = |error| Failed::File(PathBuf::new(), io::Error::other(error));
        read.await.map_err(failed)?
    }

    /// Connects. The caller bounds its time.
    pub(super) async fn line(&self) -> Result<Line, Failed> {
        let contents = self.contents().await?;
        if self.address.kind == Kind::Cluster {
            let cluster = self.cluster(&contents)?;
            return Ok(Line::Cluster(cluster.get_async_connection().await?));
        }
        // The deadlines are ours.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = self.client(&contents).await?;
        let line = client.get_multiplexed_async_connection_with_config(&config);
        Ok(Line::One(line.await?))
    }

    /// A connection for messages. The caller bounds its time.
    pub(super) async fn ear(&self) -> Result<PubSub, Failed> {
        let contents = self.contents().await?;
        let client = self.client(&contents).await?;
        Ok(client.get_async_pubsub().await?)
    }

    /// The server, the master, or the next node of a cluster: each node has all messages.
    async fn client(&self, contents: &Contents) -> Result<Client, Failed> {
        let servers = &self.address.servers;
        let at = self.next.fetch_add(1, Relaxed) % servers.len().max(1);
        let client = match &self.address.kind {
            Kind::One | Kind::Cluster => servers.get(at).map(|server| client(server, contents)),
            Kind::Sentinel(master, database) => {
                let mut sentinel = self.sentinel(master, *database, contents)?;
                Some(sentinel.async_get_client().await)
            }
        };
        let none = || io::Error::other("no server is named");
        Ok(client.ok_or_else(|| Failed::File(PathBuf::new(), none()))??)
    }

    fn sentinel(
        &self,
        master: &str,
        database: i64,
        contents: &Contents,
    ) -> RedisResult<SentinelClient> {
        let addresses = self.address.servers.iter().map(|info| info.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                .set_client_to_redis_db(database)
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
        let settings = self
            .address
            .servers
            .first()
            .map(ConnectionInfo::redis_settings);
        if let Some(user) = settings.and_then(|settings| settings.username()) {
            builder = builder.set_client_to_redis_username(user);
        }
        let password = contents.password.as_deref();
        let of_url = settings.and_then(|settings| settings.password());
        if let Some(password) = password.or(of_url) {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(certificates) = &contents.certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        builder.build()
    }

    fn cluster(&self, contents: &Contents) -> RedisResult<redis::cluster::ClusterClient> {
        let servers = self.address.servers.iter().cloned();
        let servers = servers.map(|server| with_password(server, contents));
        let mut builder = ClusterClientBuilder::new(servers)
            .tcp_settings(tcp())
            // A slot that has moved is found anew; a lost node costs a miss and no wait.
            .retries(2)
            .min_retry_wait(1)
            .max_retry_wait(50);
        if let Some(certificates) = &contents.certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
        }
        builder.build()
    }
}

fn client(server: &ConnectionInfo, contents: &Contents) -> RedisResult<Client> {
    let server = with_password(server.clone(), contents);
    match &contents.certificates {
        Some(certificates) => Client::build_with_tls(server, certificates.clone()),
        None => Client::open(server),
    }
}

fn with_password(server: ConnectionInfo, contents: &Contents) -> ConnectionInfo {
    let settings = server.redis_settings().clone().set_skip_set_lib_name();
    let settings = match &contents.password {
        Some(password) => settings.set_password(password),
        None => settings,
    };
    server.set_redis_settings(settings).set_tcp_settings(tcp())
}

/// Small commands go out at once.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

impl Line {
    /// Sends a command and waits for the reply.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(line) => command.query_async(line).await,
            Self::Cluster(line) => command.query_async(line).await,
        }
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self::Engine(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Engine(error) => error.fmt(f),
        }
    }
}
