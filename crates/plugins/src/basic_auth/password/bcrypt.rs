//! bcrypt (Provos and Mazières, 1999): `$2b$COST$` with 22 letters of salt and 31 of hash.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use blowfish::Blowfish;

use super::is_same;

/// bcrypt's letters; what is left of the last one does not count.
static LETTERS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What is encrypted: the letters `OrpheanBeholderScryDoubt`.
const TEXT: [u32; 6] = [
    0x4f72_7068,
    0x6561_6e42,
    0x6568_6f6c,
    0x6465_7253,
    0x6372_7944,
    0x6f75_6274,
];
/// What of a password counts, in bytes, the zero at its end included.
const LONGEST: usize = 72;

/// One hash.
pub(super) struct Bcrypt {
    /// Number of rounds, as a power of two.
    cost: u32,
    salt: [u8; 16],
    hash: [u8; 23],
}

impl Bcrypt {
    /// Reads a hash; `None`: it is of another kind, `Some(None)`: it is not whole.
    pub(super) fn parse(text: &str) -> Option<Option<Self>> {
        let rest = ["$2a$", "$2b$", "$2y$"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))?;
        Some(Self::behind_prefix(rest))
    }

    fn behind_prefix(rest: &str) -> Option<Self> {
        let (cost, letters) = rest.split_once('$')?;
        let (salt, hash) = letters.split_at_checked(22)?;
        let salt = LETTERS.decode(salt).ok()?.try_into().ok()?;
        let hash = LETTERS.decode(hash).ok()?.try_into().ok()?;
        let cost = cost.parse().ok().filter(|cost| (4..=31).contains(cost))?;
        Some(Self { cost, salt, hash })
    }

    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let mut key: Vec<u8> = password.iter().copied().take(LONGEST).collect();
        if key.len() < LONGEST {
            key.push(0);
        }
        let mut state = Blowfish::bc_init_state();
        state.salted_expand_key(&self.salt, &key);
        for _ in 0..1_u64 << self.cost {
            state.bc_expand_key(&key);
            state.bc_expand_key(&self.salt);
        }
        let mut made = Vec::with_capacity(24);
        for pair in TEXT.chunks_exact(2) {
            let mut block = [pair[0], pair[1]];
            for _ in 0..64 {
                block = state.bc_encrypt(block);
            }
            made.extend(block.iter().flat_map(|half| half.to_be_bytes()));
        }
        made.truncate(self.hash.len());
        is_same(&self.hash, &made)
    }
}
