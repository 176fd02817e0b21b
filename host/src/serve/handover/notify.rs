//! Tells systemd that this process is the service's main one by now; sd_notify(3). Without that, systemd would
//! take the end of the old process for the end of the service. The unit needs `NotifyAccess=all`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;

const VARIABLE: &str = "NOTIFY_SOCKET";

/// Does nothing without systemd.
pub(super) fn is_main() {
    let Some(socket) = std::env::var_os(VARIABLE) else {
        return;
    };
    let told = tell(&socket, &format!("MAINPID={}\nREADY=1", std::process::id()));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd does not learn which process is the main one");
    }
}

fn tell(socket: &OsStr, what: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    match socket.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => {
            use std::os::linux::net::SocketAddrExt as _;
            use std::os::unix::net::SocketAddr;
            let address = SocketAddr::from_abstract_name(name)?;
            sender.send_to_addr(what.as_bytes(), &address)?;
        }
        _ => {
            sender.send_to(what.as_bytes(), socket)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_wherever_it_listens() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("a socket");
        tell(path.as_os_str(), "MAINPID=1").expect("sent");
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).expect("received");
        assert_eq!(&bytes[..length], b"MAINPID=1");
        drop(listener);
        assert!(tell(path.as_os_str(), "MAINPID=1").is_err());
        assert!(tell(OsStr::new("@reflex-edge of no test"), "MAINPID=1").is_err());
    }
}
