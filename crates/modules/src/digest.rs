//! SHA-256 in lower-case hexadecimal.

use aws_lc_rs::digest::{SHA256, digest};

/// Of `bytes`.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
