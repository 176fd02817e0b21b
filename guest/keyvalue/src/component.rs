//! The component: each call opens the bucket anew, so that an error affects one call only.

use crate::record::{Record, name_of};
use bindings::exports::reflex::cache::cache as exported;
use bindings::wasi::clocks0_2_0::wall_clock;
use bindings::wasi::keyvalue::store::{Bucket, open};
use exported::{Error, Guest, GuestEntry, InsertOptions, Limits, Name};
use reflex_llm::{Bypass, Head, Key, Policy, Tenant};

#[allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "reflex:keyvalue/cache-over-keyvalue",
        generate_all,
    });
    export!(Keyvalue with_types_in self);
    use super::Keyvalue;
}

struct Keyvalue;

/// Names of buckets that hosts offer, in the order in which they are tried.
const BUCKETS: [&str; 3] = ["reflex", "default", ""];

/// The life of an entry without one of its own, in seconds.
const TTL_SECONDS: u64 = 3600;

/// The same bounds as our own host's by default, in bytes.
const LIMITS: Limits = Limits {
    request_bytes_max: 1 << 20,
    entry_bytes_max: 16 << 20,
    metadata_bytes_max: 64 << 10,
    read_bytes_max: 1 << 20,
};

impl Guest for Keyvalue {
    type Entry = Record;

    fn get_limits() -> Limits {
        LIMITS
    }

    fn lookup(name: Name) -> Result<Option<exported::Entry>, Error> {
        Ok(find(&resolve(name)?)?.map(exported::Entry::new))
    }

    fn contains(name: Name) -> Result<bool, Error> {
        Ok(find(&resolve(name)?)?.is_some())
    }

    fn insert(
        name: Name,
        metadata: Vec<u8>,
        payload: Vec<u8>,
        options: InsertOptions,
    ) -> Result<(), Error> {
        let ttl_seconds = options.ttl_seconds.unwrap_or(TTL_SECONDS);
        if ttl_seconds == 0 {
            return Err(Error::Invalid("ttl-seconds: 0 would store nothing".into()));
        }
        for (length, most) in [
            (metadata.len(), LIMITS.metadata_bytes_max),
            (payload.len(), LIMITS.entry_bytes_max),
        ] {
            if length as u64 > most {
                return Err(Error::TooLarge(most));
            }
        }
        let name = resolve(name)?;
        let stored_at = wall_clock::now().seconds;
        let record = Record {
            stored_at,
            expires_at: stored_at.saturating_add(ttl_seconds),
            metadata,
            payload,
        };
        bucket()?
            .set(&name, &record.encode(&name))
            .map_err(unavailable)
    }

    fn remove(name: Name) -> Result<bool, Error> {
        let name = resolve(name)?;
        let was_there = find(&name)?.is_some();
        bucket()?.delete(&name).map_err(unavailable)?;
        Ok(was_there)
    }
}

impl GuestEntry for Record {
    fn metadata(&self) -> Vec<u8> {
        self.metadata.clone()
    }

    fn size(&self) -> u64 {
        self.payload.len() as u64
    }

    fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let clamp = |at: u64| {
            usize::try_from(at)
                .unwrap_or(usize::MAX)
                .min(self.payload.len())
        };
        let start = clamp(offset);
        let end = clamp(offset.saturating_add(length.min(LIMITS.read_bytes_max)));
        self.payload[start..end].to_vec()
    }

    fn age_seconds(&self) -> u64 {
        wall_clock::now().seconds.saturating_sub(self.stored_at)
    }

    fn ttl_seconds(&self) -> Option<u64> {
        let now = wall_clock::now().seconds;
        Some(self.expires_at.saturating_sub(now))
    }
}

/// The record under that name, if it may be served now.
fn find(name: &str) -> Result<Option<Record>, Error> {
    let Some(bytes) = bucket()?.get(name).map_err(unavailable)? else {
        return Ok(None);
    };
    let now = wall_clock::now().seconds;
    Ok(Record::decode(name, &bytes).filter(|record| now < record.expires_at))
}

fn bucket() -> Result<Bucket, Error> {
    let mut refused = None;
    for name in BUCKETS {
        match open(name) {
            Ok(bucket) => return Ok(bucket),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.map_or_else(|| Error::Unavailable("no bucket".into()), unavailable))
}

fn unavailable(error: impl std::fmt::Debug) -> Error {
    Error::Unavailable(format!("{error:?}"))
}

/// The key of the store for a name of the cache.
fn resolve(name: Name) -> Result<String, Error> {
    let key = match name {
        Name::Key(key) => Key {
            tenant: Tenant(bytes32(&key.tenant, "tenant")?),
            digest: bytes32(&key.digest, "digest")?,
        },
        Name::Prompt(prompt) => {
            check_length("prompt", prompt.text.len())?;
            let tenant = Tenant(bytes32(&prompt.tenant, "tenant")?);
            Key::for_prompt(&tenant, &prompt.text)
        }
        Name::Request(request) => {
            check_length("body", request.body.len())?;
            let headers: Vec<(&str, &[u8])> = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect();
            let head = Head {
                method: &request.method,
                upstream: &request.upstream,
                path: &request.path,
                headers: &headers,
            };
            let bypass = |reason: Bypass| Error::Bypass(reason.detail().into());
            let candidate = reflex_llm::candidate(&head, &Policy::default()).map_err(bypass)?;
            candidate
                .examine(&request.body)
                .map_err(bypass)?
                .exchange
                .key
        }
    };
    Ok(name_of(&key))
}

fn check_length(what: &str, length: usize) -> Result<(), Error> {
    let most = LIMITS.request_bytes_max;
    if length as u64 > most {
        let text = format!("{what}: {length} bytes, at most {most} are allowed");
        return Err(Error::Invalid(text));
    }
    Ok(())
}

fn bytes32(bytes: &[u8], what: &str) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| {
        let length = bytes.len();
        Error::Invalid(format!("{what}: {length} bytes, exactly 32 are needed"))
    })
}
