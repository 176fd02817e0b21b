//! The admin token: a file that its owner alone can read. A program that can read the file may change the
//! cache and read its contents.
//!
//! The file is read for each request that needs it, so that an operator changes the token by writing the
//! file. The process keeps no copy.

use super::refusal::Refusal;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HeaderMap};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the file in the data folder.
pub(crate) const FILE_NAME: &str = "admin-token";

/// 256 random bits, as 64 digits.
const TOKEN_BYTES: usize = 32;
/// An operator's own token is not shorter, so that it cannot be guessed.
const TOKEN_CHARACTERS_MIN: usize = 32;
/// A longer file is another file.
const FILE_BYTES_MAX: u64 = 4096;

/// Only its owner may write the file, and others may not read it. A group may read it: Kubernetes mounts
/// secrets so.
const MODE_REFUSED: u32 = 0o027;
const MODE: u32 = 0o600;

/// Where the token is.
#[derive(Debug)]
pub(crate) struct AdminToken {
    path: PathBuf,
}

impl AdminToken {
    /// The token in this file, or in the data folder. Makes the file if it is missing.
    ///
    /// # Errors
    ///
    /// An operator's own file cannot be used. A file in the data folder is tried again with each request:
    /// the folder may not be there yet.
    pub(crate) fn prepare(file: Option<&Path>, data_dir: &Path) -> Result<Arc<Self>, String> {
        let token = Arc::new(Self {
            path: file.map_or_else(|| data_dir.join(FILE_NAME), Path::to_owned),
        });
        match (token.read_or_create(), file) {
            (Ok(_), _) => {}
            (Err(error), Some(_)) => return Err(format!("admin_token_file: {error}")),
            (Err(error), None) => {
                tracing::warn!(
                    error,
                    "no admin token: admin calls that need one are refused"
                );
            }
        }
        Ok(token)
    }

    /// Whether the request brings the token.
    ///
    /// # Errors
    ///
    /// 401 without a token or with a wrong one, 503 if the file cannot be used.
    pub(crate) async fn admit(self: &Arc<Self>, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = given(headers)?;
        let token = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || token.read_or_create());
        let expected = read
            .await
            .map_err(Refusal::failed)?
            .map_err(|error| Refusal::unavailable("token-file", error))?;
        // Comparing hashes takes the same time wherever the tokens differ.
        match blake3::hash(given.as_bytes()) == blake3::hash(expected.as_bytes()) {
            true => Ok(()),
            false => Err(unauthorized("the admin token is another one")),
        }
    }

    fn read_or_create(&self) -> Result<String, String> {
        let named = |error: String| format!("{}: {error}", self.path.display());
        let read = match read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(&self.path).map_err(|error| named(error.to_string()))?;
                tracing::info!(file = %self.path.display(), "made an admin token");
                read(&self.path)
            }
            read => read,
        };
        read.map_err(|error| named(error.to_string()))
    }
}

/// The token that a request brings.
fn given(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none());
    let (scheme, token) = value
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .ok_or_else(|| unauthorized("this needs the header `authorization: Bearer TOKEN`"))?;
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(token.trim()),
        false => Err(unauthorized("the admin token is a bearer token")),
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "token", message)
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & MODE_REFUSED != 0 {
        let why = format!("mode {mode:04o} lets others at the admin token; `chmod 600` it");
        return Err(io::Error::other(why));
    }
    let mut text = String::new();
    let most = FILE_BYTES_MAX + 1;
    file.take(most).read_to_string(&mut text)?;
    let token = text.trim();
    let fits = token.len() >= TOKEN_CHARACTERS_MIN && text.len() as u64 <= FILE_BYTES_MAX;
    if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = format!(
            "not one line of {TOKEN_CHARACTERS_MIN} or more visible characters; remove the file \
             to get a new token"
        );
        return Err(io::Error::other(why));
    }
    Ok(token.to_owned())
}

/// Written under another name and linked when it is whole: no reader finds half a token, and none is replaced.
fn create(path: &Path) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let made = write_new(&draft).and_then(|()| match fs::hard_link(&draft, path) {
        // Another process has just made one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    // It may not even be there.
    let _ = fs::remove_file(&draft);
    made
}

fn write_new(path: &Path) -> io::Result<()> {
    let mut random = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut token = String::with_capacity(2 * TOKEN_BYTES + 1);
    for byte in random {
        // Writing to a string does not fail.
        let _ = write!(token, "{byte:02x}");
    }
    token.push('\n');
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(path)?;
    // A file that was left behind keeps its mode.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.write_all(token.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearing(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().expect("a header");
        [(AUTHORIZATION, value)].into_iter().collect()
    }

    async fn check(token: &Arc<AdminToken>, headers: &HeaderMap, reason: Option<&str>) {
        let admitted = token.admit(headers).await;
        let refused = admitted.err().map(|refused| refused.into_parts().1);
        assert_eq!(refused, reason);
    }

    #[tokio::test]
    async fn a_token_is_made_once_for_its_owner_alone_and_read_again_when_it_changes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE_NAME);
        let token = AdminToken::prepare(None, dir.path()).expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let first = fs::read_to_string(&path).expect("readable");
        assert_eq!(first.trim().len(), 64);
        AdminToken::prepare(None, dir.path()).expect("there");
        assert_eq!(fs::read_to_string(&path).expect("readable"), first);
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);

        check(&token, &bearing(first.trim()), None).await;
        check(&token, &bearing(&first.trim()[1..]), Some("token")).await;
        check(&token, &bearing(""), Some("token")).await;
        check(&token, &HeaderMap::new(), Some("token")).await;
        let basic = [(AUTHORIZATION, "Basic eDp5".parse().expect("a header"))];
        check(&token, &basic.into_iter().collect(), Some("token")).await;
        let mut twice = bearing(first.trim());
        twice.append(AUTHORIZATION, "Bearer x".parse().expect("a header"));
        check(&token, &twice, Some("token")).await;

        let own = "an operator's own token".repeat(2).replace(' ', "-");
        fs::write(&path, &own).expect("written");
        check(&token, &bearing(first.trim()), Some("token")).await;
        check(&token, &bearing(&own), None).await;
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_or_that_holds_no_token_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE_NAME);
        let token = AdminToken::prepare(None, dir.path()).expect("made");
        let text = fs::read_to_string(&path).expect("readable");
        for (mode, refused) in [
            (0o604, true),
            (0o620, true),
            (0o602, true),
            (0o640, false),
            (0o400, false),
        ] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&path, mode).expect("ours");
            check(
                &token,
                &bearing(text.trim()),
                refused.then_some("token-file"),
            )
            .await;
            let own = AdminToken::prepare(Some(&path), dir.path());
            assert_eq!(own.is_err(), refused);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).expect("ours");
        for wrong in ["", "short", &"x".repeat(5000), &"two words ".repeat(8)] {
            fs::write(&path, wrong).expect("written");
            check(&token, &bearing(wrong.trim()), Some("token-file")).await;
        }
    }

    #[tokio::test]
    async fn without_a_folder_there_is_no_token_until_there_is_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let token = AdminToken::prepare(None, &data).expect("for later");
        assert!(AdminToken::prepare(Some(&data.join("own")), &data).is_err());
        check(&token, &bearing("x"), Some("token-file")).await;
        assert!(!data.exists(), "the store makes its folder");
        fs::create_dir(&data).expect("made");
        check(&token, &bearing("x"), Some("token")).await;
        assert!(data.join(FILE_NAME).exists());
    }
}
