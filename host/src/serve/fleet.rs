//! The daemon's part in a fleet, from its settings.

use super::config::{Config, FleetSettings};
use crate::cache::Cache;
use crate::fleet::{Address, Files, Fleet, FleetOptions, Secret};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// For telling the others that this daemon ends.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(1);

/// 128 random bits have no fewer characters, whatever they are written in.
const SECRET_BYTES_MIN: usize = 16;
/// A longer file is another file.
const SECRET_BYTES_MAX: u64 = 4096;

/// Others may not read the file. A group may: Kubernetes mounts secrets so.
const MODE_REFUSED: u32 = 0o007;

/// Takes part in the fleet that the configuration names, if it names one.
///
/// # Errors
///
/// A line that names the setting or the file, and what is wrong.
pub(super) async fn join(config: &Config, cache: &Cache) -> Result<Option<Arc<Fleet>>, String> {
    let Some(settings) = &config.fleet else {
        return Ok(None);
    };
    let options = options(settings, config)?;
    let fleet = Fleet::join(options, cache).await;
    fleet.map(Some).map_err(|error| format!("fleet: {error}"))
}

/// Tells the others that this daemon ends.
pub(super) async fn leave(fleet: Option<Arc<Fleet>>) {
    if let Some(fleet) = fleet {
        // Without it, they wait for this daemon's acknowledgement of purges for two minutes.
        let _ = tokio::time::timeout(LEAVE_TIME_MAX, fleet.leave()).await;
    }
}

fn options(settings: &FleetSettings, config: &Config) -> Result<FleetOptions, String> {
    let address: Address = settings
        .url
        .parse()
        .map_err(|why| format!("fleet: {why}"))?;
    let file = |path: &Path| {
        let read = read_secret(path);
        read.map_err(|why| format!("fleet_secret_file: {}: {why}", path.display()))
    };
    let secret = match &settings.secret_file {
        Some(path) => file(path)?,
        None => {
            tracing::warn!(
                "without fleet_secret_file, everything that may write to the fleet's engine can \
                 write answers"
            );
            // A token in a file is another one tomorrow.
            address.password().unwrap_or_default().as_bytes().to_vec()
        }
    };
    Ok(FleetOptions {
        secret: Secret::of(&secret),
        address,
        files: Files {
            password: settings.password_file.clone(),
            ca: settings.ca.clone(),
            pair: settings.pair.clone(),
        },
        prefix: settings.prefix.clone(),
        wait_max: settings.wait_max,
        unheard_max: settings.unheard_max,
        data_dir: config.cache.data_dir.clone(),
    })
}

fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & MODE_REFUSED != 0 {
        let why = format!("mode {mode:04o} lets others read the secret; `chmod 600` it");
        return Err(io::Error::other(why));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    let secret = bytes.trim_ascii();
    if secret.len() < SECRET_BYTES_MIN || bytes.len() as u64 > SECRET_BYTES_MAX {
        let why = format!("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} characters");
        return Err(io::Error::other(why));
    }
    Ok(secret.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    fn a_secret_is_long_and_for_few_eyes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let check = |text: &str, mode, secret: Option<&str>| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
            let read = read_secret(&path).ok();
            assert_eq!(
                read.as_deref(),
                secret.map(str::as_bytes),
                "{text} {mode:o}"
            );
        };
        check("0123456789abcdef\n", 0o600, Some("0123456789abcdef"));
        check("0123456789abcdef", 0o440, Some("0123456789abcdef"));
        check("0123456789abcdef", 0o644, None);
        check("0123456789abcde\n", 0o600, None);
        check(&"x".repeat(5000), 0o600, None);
    }
}
