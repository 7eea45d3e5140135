//! The mock's one source of variety: FNV-1a over the request, so that equal questions get equal answers.
//! Nothing here is for security.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits, fed piece by piece; the checksum that `/echo` reports for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl Fnv {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// The value so far.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The checksum of a whole text or body.
#[must_use]
pub fn fnv(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.write(bytes);
    hash.value()
}

/// Spreads a hash over all its bits; successive calls make a sequence.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A hash in the form of a UUID, the shape of DashScope's request ids.
pub(crate) fn uuid(hash: u64) -> String {
    let (high, low) = (mix(hash), mix(!hash));
    format!(
        "{:08x}-{:04x}-9{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}

/// A hash as 24 letters and digits, the shape of the ids of OpenAI and Anthropic.
pub(crate) fn short_id(hash: u64) -> String {
    format!("{:016x}{:08x}", mix(hash), mix(!hash) >> 32)
}

/// What vendors call a request, for the header `x-request-id`.
pub(crate) fn request_id(hash: u64) -> String {
    format!("req_{}", short_id(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_has_the_published_vectors() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn ids_have_their_shapes() {
        let id = uuid(7);
        assert_eq!(
            id.split('-').map(str::len).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12],
            "{id}"
        );
        assert_eq!(short_id(7).len(), 24);
        assert_ne!(uuid(7), uuid(8));
    }
}
