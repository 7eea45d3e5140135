//! Secrets that requests may present, found in constant time, and how a recognised consumer is passed on.
//!
//! Only salted digests are kept, so that neither a lookup's time nor a dump of memory tells a secret. One hash and one
//! comparison a lookup, however many there are.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, rand};
use http::HeaderValue;
use tollgate_base::ConfigError;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

/// Secrets and what each of them stands for.
pub(crate) struct CredentialIndex<T> {
    salt: [u8; 16],
    entries: HashMap<Digest, T, BuildHasherDefault<FirstBytes>>,
    /// Length of the longest one: what is longer need not be hashed.
    longest: usize,
}

impl<T> CredentialIndex<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut salt = [0; 16];
        if rand::fill(&mut salt).is_err() {
            // Without randomness the digests are unsalted, which still compares in constant time.
            salt = [0; 16];
        }
        Self {
            salt,
            entries: HashMap::with_capacity_and_hasher(capacity, BuildHasherDefault::default()),
            longest: 0,
        }
    }

    /// Adds a secret; `false` when it is there already.
    pub(crate) fn insert(&mut self, secret: &[u8], value: T) -> bool {
        use std::collections::hash_map::Entry;
        self.longest = self.longest.max(secret.len());
        match self.entries.entry(self.digest(secret)) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(value);
                true
            }
        }
    }

    /// How many secrets there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What a presented value stands for.
    pub(crate) fn get(&self, presented: &[u8]) -> Option<&T> {
        if presented.len() > self.longest {
            return None;
        }
        self.entries.get(&self.digest(presented))
    }

    fn digest(&self, secret: &[u8]) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.salt);
        context.update(secret);
        let mut whole = Digest([0; 32]);
        for (into, from) in whole.0.iter_mut().zip(context.finish().as_ref()) {
            *into = *from;
        }
        whole
    }
}

/// Compared in constant time.
#[derive(Clone, Copy)]
struct Digest([u8; 32]);

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Digest {}

impl std::hash::Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// A digest is as good as random: its first bytes are its hash.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A consumer's name, if it can be told in a header.
pub(crate) fn consumer_name(name: &str) -> Result<Arc<str>, ConfigError> {
    match HeaderValue::from_str(name).or_else(|_| HeaderValue::from_bytes(name.as_bytes())) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err(ConfigError::new("name", "cannot be sent in a header")),
    }
}

/// Notes who asks: in the record, and in `X-Mse-Consumer` for the plugins and services behind. The first one that an
/// exchange is recognised as stays, as Higress's readers see it.
pub(crate) fn recognised(exchange: &Exchange, request: &mut Request, consumer: &Arc<str>) {
    let mut known = exchange.record.consumer.borrow_mut();
    let name = known.get_or_insert_with(|| consumer.clone());
    if let Ok(value) = HeaderValue::from_bytes(name.as_bytes()) {
        request.headers_mut().insert(X_MSE_CONSUMER, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_by_itself_only() {
        let mut index = CredentialIndex::with_capacity(2);
        assert!(index.insert("schlüssel".as_bytes(), 1));
        assert!(!index.insert("schlüssel".as_bytes(), 2));
        assert!(index.insert(b"b", 2));
        assert_eq!(index.get("schlüssel".as_bytes()), Some(&1));
        assert_eq!(index.get(b"b"), Some(&2));
        for wrong in [&b""[..], b"B", b"b ", &[b'b'; 8192]] {
            assert_eq!(index.get(wrong), None);
        }
    }
}
