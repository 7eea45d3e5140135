//! Hashes of passwords as `htpasswd` and `/etc/shadow` have them (plugins spec §6). Compared in constant time.
//!
//! Old kinds are for existing files; new ones should be bcrypt.

mod bcrypt;
mod crypt;

#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use base64::Engine;

use super::users::LENIENT;
use bcrypt::Bcrypt;
use crypt::Crypt;

/// The hash of one password; never shown.
pub(super) struct PasswordHash(Kind);

enum Kind {
    /// `{PLAIN}`: the password itself.
    Plain(Box<[u8]>),
    /// `{SHA}` and `{SSHA}`: of the password and what is behind it.
    Sha1 { digest: [u8; 20], salt: Box<[u8]> },
    /// `$1$`, `$apr1$`, `$5$` and `$6$`.
    Crypt(Crypt),
    /// `$2a$`, `$2b$` and `$2y$`.
    Bcrypt(Bcrypt),
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// Reads a hash.
    ///
    /// # Errors
    /// What is wrong with it; never the hash.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const CUT: &str = "the hash is not whole";
        let kind = if let Some(password) = text.strip_prefix("{PLAIN}") {
            Kind::Plain(password.as_bytes().into())
        } else if let Some(encoded) = text.strip_prefix("{SHA}") {
            let decoded = LENIENT.decode(encoded).map_err(|_| CUT)?;
            Kind::Sha1 {
                digest: decoded.try_into().map_err(|_| CUT)?,
                salt: Box::default(),
            }
        } else if let Some(encoded) = text.strip_prefix("{SSHA}") {
            let decoded = LENIENT.decode(encoded).map_err(|_| CUT)?;
            let (digest, salt) = decoded.split_first_chunk().ok_or(CUT)?;
            Kind::Sha1 {
                digest: *digest,
                salt: salt.into(),
            }
        } else if let Some(parsed) = Crypt::parse(text) {
            Kind::Crypt(parsed.ok_or(CUT)?)
        } else if let Some(parsed) = Bcrypt::parse(text) {
            Kind::Bcrypt(parsed.ok_or(CUT)?)
        } else {
            return Err(
                "is no hash of a kind that is known: bcrypt ($2b$), $6$, $5$, $apr1$, $1$, {SSHA}, {SHA}, {PLAIN}",
            );
        };
        Ok(Self(kind))
    }

    /// Whether the hash is made so quickly that nobody need wait for it.
    pub(super) fn is_quick(&self) -> bool {
        matches!(self.0, Kind::Plain(_) | Kind::Sha1 { .. })
    }

    /// Whether it is this password's.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Plain(right) => is_same(right, password),
            Kind::Sha1 { digest, salt } => {
                let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                context.update(password);
                context.update(salt);
                is_same(digest, context.finish().as_ref())
            }
            Kind::Crypt(crypt) => crypt.is_of(password),
            Kind::Bcrypt(bcrypt) => bcrypt.is_of(password),
        }
    }
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}
