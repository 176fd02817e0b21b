//! A CA of a test, and certificates that it signs: made with the program `openssl`.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::tls::Pair;

/// Signs what a test asks for.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issued: Cell<u32>,
}

/// From when to when certificates are valid, as `openssl ca` reads it.
const VALID: [&str; 2] = ["20200101000000Z", "20490101000000Z"];
const EXPIRED: [&str; 2] = ["20200101000000Z", "20210101000000Z"];

impl Authority {
    /// A CA that only this test knows. None without `openssl`, and the test is to be skipped.
    ///
    /// # Panics
    ///
    /// If `openssl` fails.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            reflex_skip::skip("certificates", "`openssl` is missing: install it");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display();
        let config = format!(
            "[ca]\ndefault_ca = all\n[all]\ndatabase = {path}/index.txt\nnew_certs_dir = {path}\n\
             rand_serial = yes\ndefault_md = sha256\npolicy = any\nunique_subject = no\n\
             [any]\ncommonName = optional\norganizationName = optional\n"
        );
        fs::write(folder.path().join("ca.cnf"), config).expect("a configuration");
        fs::write(folder.path().join("index.txt"), "").expect("a database");
        let this = Self {
            folder,
            issued: Cell::new(0),
        };
        let mut command = this.request("ca.key");
        command.args(["-x509", "-days", "7300", "-subj", "/CN=CA of a test"]);
        command.arg("-out").arg(this.ca());
        run(&mut command);
        Some(this)
    }

    /// The file of its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate for a subject, such as `/CN=a`, with these alternative names, such as
    /// `DNS:localhost,IP:127.0.0.1`, or without.
    pub fn sign(&self, subject: &str, names: &str) -> Pair {
        self.signed(subject, names, VALID)
    }

    /// The same, expired.
    pub fn sign_expired(&self, subject: &str, names: &str) -> Pair {
        self.signed(subject, names, EXPIRED)
    }

    /// A certificate for a server on this machine.
    pub fn sign_server(&self) -> Pair {
        self.sign("/CN=server", SERVER)
    }

    fn signed(&self, subject: &str, names: &str, [from, to]: [&str; 2]) -> Pair {
        let number = self.issued.get();
        self.issued.set(number + 1);
        let name = |ending: &str| format!("{number}.{ending}");
        let pair = Pair {
            cert: self.file(&name("pem")),
            key: self.file(&name("key")),
        };
        let asked = self.file(&name("csr"));
        let mut command = self.request(&name("key"));
        command.args(["-subj", subject, "-out"]).arg(&asked);
        run(&mut command);
        let extensions = match names {
            "" => "basicConstraints = CA:FALSE\n".to_owned(),
            names => format!("basicConstraints = CA:FALSE\nsubjectAltName = {names}\n"),
        };
        let file = self.file(&name("cnf"));
        fs::write(&file, extensions).expect("a file");
        let mut command = Command::new("openssl");
        command.args(["ca", "-batch", "-notext", "-config"]);
        command.arg(self.file("ca.cnf"));
        command.arg("-cert").arg(self.ca());
        command.arg("-keyfile").arg(self.file("ca.key"));
        command.args(["-startdate", from, "-enddate", to]);
        command.arg("-extfile").arg(file);
        command.arg("-in").arg(asked).arg("-out").arg(&pair.cert);
        run(&mut command);
        pair
    }

    fn request(&self, key: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(["req", "-new", "-utf8", "-newkey", "ec", "-pkeyopt"]);
        command.args(["ec_paramgen_curve:P-256", "-nodes", "-keyout"]);
        command.arg(self.file(key));
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The names of a server on this machine.
pub const SERVER: &str = "DNS:localhost,IP:127.0.0.1";

fn run(command: &mut Command) {
    let output = command.output().expect("openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Puts a certificate and its key in the place of others, each at once, one after the other.
///
/// # Panics
///
/// If a file cannot be written.
pub fn replace(place: &Pair, by: &Pair) {
    put(&by.cert, &place.cert);
    put(&by.key, &place.key);
}

/// Puts a copy of a file in the place of another, at once.
///
/// # Panics
///
/// If it cannot be written.
pub fn put(file: &Path, place: &Path) {
    let beside = place.with_extension("new");
    fs::copy(file, &beside).expect("a copy");
    fs::rename(&beside, place).expect("a file in its place");
}
