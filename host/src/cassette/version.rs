//! The version of a cassette's files.

/// The version of the format that this program writes.
pub(super) const VERSION: u32 = 1;

/// Checks the version of a file.
///
/// # Errors
///
/// It is another one than this program writes.
pub(super) fn check_version(version: u32) -> Result<(), String> {
    match version {
        VERSION => Ok(()),
        other => Err(format!(
            "its version is {other}, and this program knows {VERSION}"
        )),
    }
}
