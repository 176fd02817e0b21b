//! The only file that names `ring`: AES-256-GCM, random bytes, and keys that leave memory.

use super::super::format::TAG_BYTES;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use zeroize::Zeroize;

/// Which part of a record. Each has a nonce of its own under the record's key, which seals nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Metadata,
    Payload,
}

impl Part {
    fn nonce(self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[0] = self as u8;
        Nonce::assume_unique_for_key(bytes)
    }
}

/// The key of one record.
pub(super) struct RecordKey(LessSafeKey);

impl RecordKey {
    /// Always there in a build with `ring`.
    pub(super) fn new(key: &[u8; 32]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    pub(super) fn seal(
        &self,
        part: Part,
        bound: &[u8],
        bytes: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let nonce = part.nonce();
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(bound), bytes);
        tag.ok()?.as_ref().try_into().ok()
    }

    /// Whether the tag is right. If it is not, nothing of the bytes may be used.
    pub(super) fn open(
        &self,
        part: Part,
        bound: &[u8],
        tag: &[u8; TAG_BYTES],
        bytes: &mut [u8],
    ) -> bool {
        let (nonce, bound) = (part.nonce(), Aad::from(bound));
        let opened = self
            .0
            .open_in_place_separate_tag(nonce, bound, (*tag).into(), bytes, 0..);
        opened.is_ok()
    }
}

/// Random bytes of the operating system.
pub(super) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let filled = SystemRandom::new().fill(bytes);
    filled.map_err(|_| io::Error::other("the system gives no random bytes"))
}

pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.zeroize();
}
