//! Opens and seals records: what readers and the writer of one data folder share.

use super::super::format::{
    ENVELOPE_BYTES, Envelope, HEADER_BYTES, Header, KeyId, Kind, SALT_BYTES, Salt, Seal, StoreId,
    TAG_BYTES, open_record,
};
use super::super::hash::KeyState;
use super::aead::{self, Part, RecordKey};
use super::{EncryptionKeys, Wiped};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

/// The operator's keys and the tenants' secrets of one data folder.
pub(crate) struct Vault {
    store: StoreId,
    roots: papaya::HashMap<KeyId, Wiped>,
    /// The id of the key that seals.
    first: AtomicU64,
    secrets: papaya::HashMap<[u8; 32], Wiped, KeyState>,
    /// The secret of tenants without one of their own.
    common: RwLock<Option<Wiped>>,
    /// Whether records that are not sealed are read, while they are converted.
    reads_plain: bool,
}

/// Why a record could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    /// It differs from the written one, or lies elsewhere.
    Damaged,
    /// The secret of its tenant is forgotten.
    Forgotten,
}

/// The sealed parts of a record.
pub(crate) struct Sealed {
    /// With the envelope before it.
    pub(crate) metadata: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// A record that lies somewhere.
#[derive(Clone, Copy)]
struct Found<'a> {
    header: Header,
    head: &'a [u8; HEADER_BYTES],
    envelope: Envelope,
    /// Sealed.
    metadata: &'a [u8],
}

impl Vault {
    /// `reads_plain`: the folder has records that are not sealed yet.
    pub(crate) fn new(store: StoreId, keys: &EncryptionKeys, reads_plain: bool) -> Self {
        let vault = Self {
            store,
            roots: papaya::HashMap::new(),
            first: AtomicU64::new(0),
            secrets: papaya::HashMap::with_hasher(KeyState::new()),
            common: RwLock::default(),
            reads_plain,
        };
        vault.set_keys(keys);
        vault
    }

    /// Uses these keys from now on, and no others.
    pub(crate) fn set_keys(&self, keys: &EncryptionKeys) {
        let roots = self.roots.pin();
        for key in keys.each() {
            roots.insert(key.id, key.root.clone());
        }
        roots.retain(|id, _| keys.has(id));
        let first = u64::from_le_bytes(keys.first().0);
        self.first.store(first, Relaxed);
    }

    /// The key that seals.
    pub(crate) fn first(&self) -> KeyId {
        KeyId(self.first.load(Relaxed).to_le_bytes())
    }

    /// A new secret for a tenant, or for all that have none of their own. It is known once it is
    /// [kept](Self::keep).
    pub(super) fn new_secret() -> io::Result<[u8; 32]> {
        let mut secret = [0; 32];
        aead::random(&mut secret).map(|()| secret)
    }

    /// Makes a secret known; `None` is the common one.
    pub(super) fn keep(&self, tenant: Option<&[u8; 32]>, secret: [u8; 32]) {
        match tenant {
            Some(tenant) => {
                self.secrets.pin().insert(*tenant, Wiped(secret));
            }
            None => *self.common() = Some(Wiped(secret)),
        }
    }

    pub(super) fn forget(&self, tenant: Option<&[u8; 32]>) {
        match tenant {
            Some(tenant) => {
                self.secrets.pin().remove(tenant);
            }
            None => *self.common() = None,
        }
    }

    /// To write it.
    pub(super) fn secret(&self, tenant: Option<&[u8; 32]>) -> Option<[u8; 32]> {
        match tenant {
            Some(tenant) => self.secrets.pin().get(tenant).map(|secret| secret.0),
            None => self.common().as_ref().map(|secret| secret.0),
        }
    }

    fn common(&self) -> std::sync::RwLockWriteGuard<'_, Option<Wiped>> {
        self.common.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a record for its place. The header counts the envelope, and its checksum does not matter.
    pub(crate) fn seal(
        &self,
        header: &Header,
        (metadata, payload): (&[u8], &[u8]),
        key: KeyId,
        (segment, offset): (u64, u64),
    ) -> io::Result<Sealed> {
        let failed = || io::Error::other("a record could not be sealed");
        let mut salt = [0; SALT_BYTES];
        aead::random(&mut salt)?;
        let record_key = self.record_key(header, &key, &salt);
        let record_key = record_key.map_err(|_| failed())?;
        let bound = header.bound_to(&self.store, segment, offset);
        let mut payload = payload.to_vec();
        let payload_tag = record_key.seal(Part::Payload, &bound, &mut payload);
        let mut sealed = Vec::with_capacity(ENVELOPE_BYTES + metadata.len());
        sealed.resize(ENVELOPE_BYTES, 0);
        sealed.extend_from_slice(metadata);
        let metadata_tag = record_key.seal(Part::Metadata, &bound, &mut sealed[ENVELOPE_BYTES..]);
        let envelope = Envelope {
            key,
            salt,
            metadata_tag: metadata_tag.ok_or_else(failed)?,
            payload_tag: payload_tag.ok_or_else(failed)?,
        };
        sealed[..ENVELOPE_BYTES].copy_from_slice(&envelope.encode());
        Ok(Sealed {
            metadata: sealed,
            payload,
        })
    }

    /// The record of a key at a place, as it would be in memory. `None`: it is not sealed and may be read
    /// as it is.
    pub(crate) fn open(
        &self,
        key: &[u8; 32],
        record: &[u8],
        salt: Salt,
        place: (u64, u64),
    ) -> Result<Option<Bytes>, Unopened> {
        let Some(found) = self.find(key, record, salt, place.1)? else {
            return Ok(None);
        };
        let payload = record.get(found.header.shape().payload());
        let payload = payload.ok_or(Unopened::Damaged)?;
        let metadata_end = HEADER_BYTES + found.metadata.len();
        let mut opened = Vec::with_capacity(metadata_end + payload.len());
        self.open_parts(&found, place, Some(payload), &mut opened)?;
        Ok(Some(opened.into()))
    }

    /// As [`open`](Self::open), of the header and the metadata, which are all that `bytes` has: puts them
    /// in their place and returns the header that goes with them. The payload is not looked at.
    pub(crate) fn open_head(
        &self,
        key: &[u8; 32],
        bytes: &mut Vec<u8>,
        salt: Salt,
        place: (u64, u64),
    ) -> Result<Header, Unopened> {
        let Some(found) = self.find(key, bytes, salt, place.1)? else {
            let header = Header::decode(bytes, salt, place.1);
            return header.map_err(|_| Unopened::Damaged);
        };
        let header = Header {
            seal: Seal::None,
            metadata_bytes: found.metadata.len() as u32,
            ..found.header
        };
        let mut opened = Vec::with_capacity(bytes.len());
        self.open_parts(&found, place, None, &mut opened)?;
        *bytes = opened;
        Ok(header)
    }

    fn find<'a>(
        &self,
        key: &[u8; 32],
        record: &'a [u8],
        salt: Salt,
        offset: u64,
    ) -> Result<Option<Found<'a>>, Unopened> {
        let header = Header::decode(record, salt, offset).map_err(|_| Unopened::Damaged)?;
        if header.kind != Kind::Entry || header.key != *key {
            return Err(Unopened::Damaged);
        }
        if header.seal == Seal::None {
            // Such a record can be written without a key.
            return match self.reads_plain {
                true => Ok(None),
                false => Err(Unopened::Damaged),
            };
        }
        let parts = record
            .first_chunk()
            .zip(record.get(header.shape().metadata()));
        let found = parts.and_then(|(head, metadata)| {
            let envelope = Envelope::decode(metadata)?;
            Some(Found {
                header,
                head,
                envelope,
                metadata: &metadata[ENVELOPE_BYTES..],
            })
        });
        found.map(Some).ok_or(Unopened::Damaged)
    }

    /// Appends what is opened to `opened`. After an error, nothing in there may be used.
    fn open_parts(
        &self,
        found: &Found<'_>,
        (segment, offset): (u64, u64),
        payload: Option<&[u8]>,
        opened: &mut Vec<u8>,
    ) -> Result<(), Unopened> {
        let Found {
            header, envelope, ..
        } = found;
        let record_key = self.record_key(header, &envelope.key, &envelope.salt)?;
        let bound = header.bound_to(&self.store, segment, offset);
        let open = |part, tag: &[u8; TAG_BYTES], bytes: &mut [u8]| {
            let is_right = record_key.open(part, &bound, tag, bytes);
            is_right.then_some(()).ok_or(Unopened::Damaged)
        };
        opened.extend_from_slice(&open_record(found.head, found.metadata.len() as u32));
        opened.extend_from_slice(found.metadata);
        open(
            Part::Metadata,
            &envelope.metadata_tag,
            &mut opened[HEADER_BYTES..],
        )?;
        if let Some(payload) = payload {
            let begin = opened.len();
            opened.extend_from_slice(payload);
            open(Part::Payload, &envelope.payload_tag, &mut opened[begin..])?;
        }
        Ok(())
    }

    fn record_key(
        &self,
        header: &Header,
        key: &KeyId,
        salt: &[u8; SALT_BYTES],
    ) -> Result<RecordKey, Unopened> {
        let tenant_key = self.tenant_key(header, key)?;
        let mut record_key = *blake3::keyed_hash(&tenant_key.0, salt).as_bytes();
        let made = RecordKey::new(&record_key);
        aead::wipe(&mut record_key);
        made.ok_or(Unopened::Damaged)
    }

    fn tenant_key(&self, header: &Header, key: &KeyId) -> Result<Wiped, Unopened> {
        let mut input = [0; 64];
        input[..32].copy_from_slice(&header.tenant);
        {
            let secrets = self.secrets.pin();
            let secret = match header.seal {
                Seal::Own => secrets.get(&header.tenant).map(|secret| &secret.0),
                Seal::None | Seal::Common => None,
            };
            match secret {
                Some(secret) => input[32..].copy_from_slice(secret),
                None if header.seal == Seal::Common => {
                    let common = self.common.read().unwrap_or_else(PoisonError::into_inner);
                    let secret = common.as_ref().ok_or(Unopened::Forgotten)?;
                    input[32..].copy_from_slice(&secret.0);
                }
                None => return Err(Unopened::Forgotten),
            }
        }
        let roots = self.roots.pin();
        let root = roots.get(key).ok_or(Unopened::Damaged);
        let tenant_key = root.map(|root| Wiped(*blake3::keyed_hash(&root.0, &input).as_bytes()));
        aead::wipe(&mut input);
        tenant_key
    }
}

impl fmt::Debug for Vault {
    /// Without keys and secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("first", &self.first())
            .finish_non_exhaustive()
    }
}
