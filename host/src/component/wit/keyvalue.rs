//! `wasi:keyvalue/store` from the same cache, for components that were written against the standard.
//!
//! Every bucket that a component names is its own, within the namespace and the tenant of its
//! grant. It is still a cache: a value may be gone at any time, to make room or because it has
//! expired. Keys are kept as hashes only, so they cannot be listed.

use crate::component::bindings::keyvalue;
use crate::component::bindings::keyvalue::{Error, Host, HostBucket, KeyResponse};
use crate::component::wit::cache::{Reflex, ReflexCtxView};
use crate::grant;
use crate::grant::Tenants;
use crate::grant::ctx::{Named, ReflexCtx};
use reflex_llm::{Key, Tenant};
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut};

/// Longest name of a bucket, in bytes: as for files.
const BUCKET_BYTES_MAX: usize = 255;

/// An open bucket: its name.
#[derive(Debug)]
pub struct Bucket(String);

/// Adds `wasi:keyvalue/store@0.2.0-draft` to the linker of any host. `view` is that of
/// [`add_to_linker`](crate::component::wit::cache::add_to_linker), and the same grant holds for both.
///
/// Where the grant leaves the tenant to the guest, values belong to
/// [`Tenant::of_group`] of the namespace, since this interface knows no tenants. They live as long as
/// [`Grant::lifetimes`](crate::grant::Grant::lifetimes) says for entries without path and model.
///
/// # Errors
///
/// Fails only if the linker has that interface already.
pub fn add_keyvalue_to_linker<T: 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> ReflexCtxView<'_>,
) -> Result<()> {
    keyvalue::add_to_linker::<_, Reflex>(linker, view)
}

/// As [`add_keyvalue_to_linker`], in the manner of
/// [`add_to_linker_async`](crate::component::wit::cache::add_to_linker_async).
///
/// # Errors
///
/// Fails only if the linker has that interface already.
pub fn add_keyvalue_to_linker_async<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> ReflexCtxView<'_>,
) -> Result<()> {
    type Item = (Resource<Bucket>, String);
    type Set = (Resource<Bucket>, String, Vec<u8>);
    add_keyvalue_to_linker(linker, view)?;
    // In place of the blocking functions.
    linker.allow_shadowing(true);
    let mut interface = linker.instance("wasi:keyvalue/store@0.2.0-draft")?;
    interface.func_wrap_async(
        "[method]bucket.get",
        move |mut store: StoreContextMut<'_, T>, (bucket, key): Item| {
            Box::new(async move { Ok((view(store.data_mut()).get_async(bucket, key).await?,)) })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.exists",
        move |mut store: StoreContextMut<'_, T>, (bucket, key): Item| {
            Box::new(async move { Ok((view(store.data_mut()).exists_async(bucket, key).await?,)) })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.set",
        move |mut store: StoreContextMut<'_, T>, (bucket, key, value): Set| {
            Box::new(async move {
                let mut view = view(store.data_mut());
                Ok((view.set_async(&bucket, &key, &value).await?,))
            })
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.delete",
        move |mut store: StoreContextMut<'_, T>, (bucket, key): Item| {
            Box::new(
                async move { Ok((view(store.data_mut()).delete_async(&bucket, &key).await?,)) },
            )
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl ReflexCtx {
    fn item(&self, bucket: &Bucket, key: &str) -> Result<Key, Error> {
        self.check_length("key", key.len()).map_err(error)?;
        let tenant = match self.grant.tenants {
            Tenants::ChosenByGuest => Tenant::of_group(&self.grant.namespace),
            Tenants::Only(tenant) => tenant,
        };
        Ok(Key::for_item(&tenant, &bucket.0, key))
    }
}

impl ReflexCtxView<'_> {
    fn item(&self, bucket: &Resource<Bucket>, key: &str) -> Result<Result<Key, Error>> {
        Ok(self.ctx.item(self.table.get(bucket)?, key))
    }

    async fn get_async(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, Error>> {
        Ok(match self.item(&bucket, &key)? {
            Ok(key) => {
                let found = self.ctx.look_up_async(&key).await;
                Ok(found.map(|entry| entry.payload().to_vec()))
            }
            Err(error) => Err(error),
        })
    }

    async fn exists_async(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<bool, Error>> {
        Ok(match self.item(&bucket, &key)? {
            Ok(key) => Ok(self.ctx.looks_for_async(&key).await),
            Err(error) => Err(error),
        })
    }

    pub(crate) async fn set_async(
        &mut self,
        bucket: &Resource<Bucket>,
        key: &str,
        value: &[u8],
    ) -> Result<Result<(), Error>> {
        let set = self.put(bucket, key, value)?;
        Ok(self.ctx.settled_async(set).await)
    }

    pub(crate) async fn delete_async(
        &mut self,
        bucket: &Resource<Bucket>,
        key: &str,
    ) -> Result<Result<(), Error>> {
        let deleted = self.take_out(bucket, key)?;
        Ok(self.ctx.settled_async(deleted).await)
    }

    fn put(&self, bucket: &Resource<Bucket>, key: &str, value: &[u8]) -> Result<Result<(), Error>> {
        Ok(self.item(bucket, key)?.and_then(|key| {
            let since = self.ctx.begun(&key);
            let kept = self.ctx.keep(&Named::bare(key), &[], value, None, since);
            kept.map_err(error)
        }))
    }

    fn take_out(&self, bucket: &Resource<Bucket>, key: &str) -> Result<Result<(), Error>> {
        Ok(self.item(bucket, key)?.and_then(|key| {
            self.ctx.grant.check_write().map_err(error)?;
            self.ctx.forget(&key);
            Ok(())
        }))
    }
}

/// The same in the words of the standard.
fn error(error: grant::Error) -> Error {
    match error {
        grant::Error::Denied(_) => Error::AccessDenied,
        grant::Error::Invalid(text) | grant::Error::Unavailable(text) => Error::Other(text),
        grant::Error::Bypass(reason) => Error::Other(format!("not stored: {reason}")),
        grant::Error::TooLarge(most) => Error::Other(format!("longer than {most} bytes")),
        grant::Error::QuotaExceeded(of) => Error::Other(format!("quota exceeded: {of}")),
    }
}

impl Host for ReflexCtxView<'_> {
    fn open(&mut self, identifier: String) -> Result<Result<Resource<Bucket>, Error>> {
        if identifier.len() > BUCKET_BYTES_MAX {
            return Ok(Err(Error::NoSuchStore));
        }
        // A full table is the guest's doing, and an error that it can handle.
        let pushed = self.table.push(Bucket(identifier));
        Ok(pushed.map_err(|_| Error::Other("too many open buckets: drop some".into())))
    }
}

impl HostBucket for ReflexCtxView<'_> {
    fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, Error>> {
        let key = self.item(&bucket, &key)?;
        let found = key.map(|key| self.ctx.look_up(&key));
        Ok(found.map(|entry| entry.map(|entry| entry.payload().to_vec())))
    }

    fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), Error>> {
        let set = self.put(&bucket, &key, &value)?;
        Ok(self.ctx.settled(set))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<(), Error>> {
        let deleted = self.take_out(&bucket, &key)?;
        Ok(self.ctx.settled(deleted))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<bool, Error>> {
        let key = self.item(&bucket, &key)?;
        Ok(key.map(|key| self.ctx.looks_for(&key)))
    }

    fn list_keys(
        &mut self,
        _: Resource<Bucket>,
        _: Option<u64>,
    ) -> Result<Result<KeyResponse, Error>> {
        Ok(Err(Error::Other(
            "keys cannot be listed: they are kept as hashes only".into(),
        )))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}
