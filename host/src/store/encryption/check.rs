//! Whether a data folder and the operator's keys go together. Changes nothing.

use super::super::disk::Disk;
use super::super::folder::{OpenError, SegmentName};
use super::super::format::{BLOCK_BYTES, Sealing, Superblock};
use super::EncryptionKeys;
use std::path::Path;

/// Checks a folder whose manifest says this of its records.
pub(crate) fn check(
    disk: &dyn Disk,
    (root, segments): (&Path, &Path),
    sealing: Sealing,
    keys: Option<&EncryptionKeys>,
) -> Result<(), OpenError> {
    let refused = |why: String| Err(OpenError::Key(root.to_owned(), why));
    let Some(keys) = keys else {
        return match sealing {
            Sealing::None => Ok(()),
            _ => refused("is encrypted, and no key is given (encryption_key_file)".into()),
        };
    };
    let names = disk
        .list(segments)
        .map_err(OpenError::io("read", segments))?;
    let mut ours = names.iter().filter(|name| is_segment(name.to_str()));
    match sealing {
        Sealing::None if !keys.reads_plain() && ours.next().is_some() => {
            return refused(format!(
                "is not encrypted, and a key is given; encrypt it by `reflex-edge store compact \
                 --encryption-key-file FILE {}`, or remove it for an empty cache",
                root.display()
            ));
        }
        Sealing::Underway if !keys.reads_plain() => {
            return refused(format!(
                "is encrypted in part; finish that by `reflex-edge store compact \
                 --encryption-key-file FILE {}`",
                root.display()
            ));
        }
        _ => {}
    }
    for name in names.iter().filter(|name| is_segment(name.to_str())) {
        let path = segments.join(name);
        let block = disk.read(&path, BLOCK_BYTES as u64);
        // A damaged one, or one that cannot be read, says nothing, and the segment is read without it.
        let superblock = block.ok().and_then(|it| Superblock::decode(&it).ok());
        let key = superblock.and_then(|superblock| superblock.key);
        if let Some(id) = key.filter(|id| !keys.has(id)) {
            return refused(format!(
                "is encrypted with the key {id}, which encryption_key_file does not have"
            ));
        }
    }
    Ok(())
}

fn is_segment(name: Option<&str>) -> bool {
    let parsed = name.map(SegmentName::parse);
    matches!(parsed, Some(SegmentName::Segment(_)))
}
