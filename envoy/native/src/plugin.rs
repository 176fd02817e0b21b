//! One configuration of the module, which all workers share.

use crate::abi::{self, ConfigScheduler, EnvoyConfig, Level, Metric, log};
use crate::clock::{self, Told};
use crate::counts::Counts;
use crate::home::Home;
use crate::routes::KnownRoutes;
use crate::settings::Settings;
use crate::version;
use reflex_host::cache::L1;
use reflex_llm::Key;
use std::convert::Infallible;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Envoy's main thread, which makes configurations.
static MAIN: OnceLock<ThreadId> = OnceLock::new();

/// One configuration.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// The operator's settings.
    pub(crate) settings: Settings,
    /// The cache; none if Envoy only validates the configuration, and then there are no requests.
    pub(crate) home: Option<Arc<Home>>,
    /// Requests that were hits under these settings, and their keys.
    pub(crate) l1: Arc<L1<Key>>,
    /// What is known of routes.
    pub(crate) routes: KnownRoutes,
    /// For Envoy's statistics.
    pub(crate) counts: Counts,
    in_memory: Option<Metric>,
    scheduler: ConfigScheduler,
    disk: Mutex<Disk>,
}

/// What is known of the folder.
#[derive(Debug, Default)]
struct Disk {
    looked_at: Option<Instant>,
    /// Why it is not in use.
    trouble: Option<String>,
    /// The same as it was logged last.
    told: Option<String>,
}

/// Looking at the disk may take some milliseconds.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Upper bound of the main thread's wait for a cache to be closed: what waits is written in that time,
/// and a disk that hangs does not hang Envoy.
const CLOSING_MAX: Duration = Duration::from_secs(5);

impl Plugin {
    /// Reads a configuration, and opens its cache.
    ///
    /// # Errors
    ///
    /// What an operator has to fix, in one line.
    pub(crate) fn new(envoy: &mut EnvoyConfig<'_>, text: &[u8]) -> Result<Arc<Self>, String> {
        let _already = MAIN.set(thread::current().id());
        let settings = Settings::parse(text)?;
        if !settings.allow_untested_envoy {
            version::check()?;
        }
        let counts = Counts::new(envoy);
        let in_memory = envoy.define_gauge("reflex_memory_only", &["data_dir"]);
        let scheduler = envoy.scheduler();
        let routes = KnownRoutes::new(settings.filter.prove_routes);
        // Validation leaves no trace.
        let home = match abi::is_validation_mode() {
            true => None,
            false => Some(Home::of(&settings)?),
        };
        let l1 = match &home {
            Some(home) => L1::of(&home.cache, settings.l1_bytes_max),
            None => Arc::new(L1::new(0)),
        };
        let is_used = home.is_some();
        let plugin = Arc::new(Self {
            settings,
            home,
            l1,
            routes,
            counts,
            in_memory,
            scheduler,
            disk: Mutex::default(),
        });
        if is_used {
            let told: Weak<dyn Told> = Arc::downgrade(&plugin) as _;
            let begun = clock::begin(told);
            begun.map_err(|error| format!("a thread cannot be started: {error}"))?;
            plugin.tell();
        }
        Ok(plugin)
    }

    /// Hands the figures over to Envoy, and tells the log of the disk.
    pub(crate) fn hand_over(&self, envoy: &mut EnvoyConfig<'_>) {
        self.counts.hand_over(envoy);
        let folder = self.home.as_ref().and_then(|home| home.folder());
        let Some(folder) = folder.map(|folder| folder.display().to_string()) else {
            return;
        };
        let disk = &mut *self.disk();
        if let Some(gauge) = self.in_memory {
            envoy.set(gauge, &[&folder], disk.trouble.is_some().into());
        }
        if disk.told != disk.trouble {
            let line = match &disk.trouble {
                Some(why) => format!("reflex: {folder}: {why}; answers are in memory"),
                None => format!("reflex: {folder} is in use"),
            };
            log(Level::Warn, &line);
            disk.told.clone_from(&disk.trouble);
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Envoy has destroyed the configuration. Its last request may have ended just now on a worker,
    /// which must not wait for the disk. The main thread does: the process may be about to end.
    pub(crate) fn ends(self: Arc<Self>) {
        self.scheduler.end();
        let is_main = MAIN.get() == Some(&thread::current().id());
        let (open, closed) = mpsc::channel::<Infallible>();
        let thread = thread::Builder::new().name("reflex-closing".into());
        // Without a thread, the cache stays open until the process ends.
        let _lost = thread.spawn(move || {
            if let Some(home) = &self.home {
                home.leave();
            }
            drop(self);
            drop(open);
        });
        if is_main {
            // Nothing is sent: it ends when the thread does.
            let _ = closed.recv_timeout(CLOSING_MAX);
        }
    }
}

impl Told for Plugin {
    /// Looks at the disk, and has Envoy call [`hand_over`](Plugin::hand_over) soon. For threads that
    /// may wait.
    fn tell(&self) {
        if let Some(home) = &self.home {
            let mut disk = self.disk();
            let is_due = disk
                .looked_at
                .is_none_or(|at| at.elapsed() >= LOOKED_AT_EVERY);
            if is_due && home.folder().is_some() {
                disk.looked_at = Some(Instant::now());
                disk.trouble = home.cache.stats().trouble;
            }
        }
        self.scheduler.call();
    }
}
