//! Users whose passwords are known as hashes only.
//!
//! A hash is made on a thread of its own kind, as many at once as there are cores: somebody who guesses passwords keeps
//! neither a worker busy nor those out who have been found right before.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::available_parallelism;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tokio::sync::Semaphore;

use super::config::Name;
use super::password::PasswordHash;
use crate::credentials::CredentialIndex;

/// Base64 with padding or without it.
pub(super) static LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longest password that is hashed, in bytes: what a hash costs grows with it.
const LONGEST: usize = 512;

/// How many hashes are made at once.
static SLOTS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, |cores| cores.get())));

/// All users of one config.
#[derive(Default)]
pub(super) struct Users {
    users: HashMap<Box<[u8]>, User>,
    /// What is hashed for a user whom nobody knows, so that the time does not tell.
    decoy: Option<Arc<PasswordHash>>,
    /// What was found right, as `user:password`.
    proven: Mutex<Proven>,
}

struct User {
    name: Name,
    hash: Arc<PasswordHash>,
}

/// Credentials that were found right; digests of them.
struct Proven(CredentialIndex<()>);

impl Default for Proven {
    fn default() -> Self {
        Self(CredentialIndex::with_capacity(0))
    }
}

impl Users {
    /// Adds a user; `false` where there is one of this name.
    pub(super) fn add(&mut self, user: &str, name: Name, hash: PasswordHash) -> bool {
        let hash = Arc::new(hash);
        self.decoy.get_or_insert_with(|| hash.clone());
        let user_name: Box<[u8]> = user.as_bytes().into();
        self.users.insert(user_name, User { name, hash }).is_none()
    }

    /// Whose credentials these are, as they stand behind `Basic `.
    pub(super) async fn find(&self, presented: &[u8]) -> Option<&Name> {
        let decoded = LENIENT.decode(presented).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (name, rest) = decoded.split_at(colon);
        let password = rest.get(1..).filter(|password| password.len() <= LONGEST)?;
        let user = self.users.get(name);
        if user.is_some() && self.proven(|proven| proven.0.get(&decoded).is_some()) {
            return user.map(|user| &user.name);
        }
        let hash = user.map(|user| &user.hash).or(self.decoy.as_ref())?.clone();
        let is_right = is_password(hash, password.to_vec()).await;
        let known = user.filter(|_| is_right)?;
        self.proven(|proven| proven.remember(&decoded, self.users.len()));
        Some(&known.name)
    }

    fn proven<T>(&self, with: impl FnOnce(&mut Proven) -> T) -> T {
        with(&mut self.proven.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Proven {
    fn remember(&mut self, credentials: &[u8], users: usize) {
        // Some hashes have more than one right password, as they look at the beginning only.
        if self.0.len() > 2 * users {
            *self = Self::default();
        }
        self.0.insert(credentials, ());
    }
}

async fn is_password(hash: Arc<PasswordHash>, password: Vec<u8>) -> bool {
    if hash.is_quick() {
        return hash.is_of(&password);
    }
    let Ok(slot) = SLOTS.acquire().await else {
        return false;
    };
    // The slot goes along: it is taken until the hash is made, also where the client has left.
    let made = tokio::task::spawn_blocking(move || {
        let is_right = hash.is_of(&password);
        drop(slot);
        is_right
    });
    made.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[tokio::test]
    async fn what_was_right_is_remembered_and_takes_no_more_than_its_room() {
        let mut users = Users::default();
        let hash =
            PasswordHash::parse("$2b$04$abcdefghijklmnopqrstuum2G75IXDN/xsgbNa/hCiPSKyIHQd70S").unwrap();
        assert!(users.add("u", None, hash));
        let known = |users: &Users| users.proven(|proven| proven.0.len());
        assert!(users.find(STANDARD.encode("u:wrong").as_bytes()).await.is_none());
        assert_eq!(known(&users), 0);
        // Right ones all of them, as bcrypt looks at the first 72 bytes only.
        for number in 0..8 {
            let credentials = STANDARD.encode(format!("u:{}{number}", "0123456789".repeat(8)));
            assert!(users.find(credentials.as_bytes()).await.is_some());
            assert!((1..=3).contains(&known(&users)), "{number}: {}", known(&users));
        }
        for (length, is_hashed) in [(LONGEST, true), (LONGEST + 1, false)] {
            let password: String = "0123456789".chars().cycle().take(length).collect();
            let found = users
                .find(STANDARD.encode(format!("u:{password}")).as_bytes())
                .await;
            assert_eq!(found.is_some(), is_hashed, "{length}");
        }
    }
}
