//! The hashes of `crypt(3)` that stretch a digest: MD5 (`$1$`, and `$apr1$` of Apache's) and SHA-2 (`$5$`, `$6$`; Drepper,
//! "Unix crypt using SHA-256 and SHA-512").

use aws_lc_rs::digest;
use md5::{Digest, Md5};

use super::is_same;

const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DEFAULT_ROUNDS: u32 = 5000;
const MD5_ROUNDS: u32 = 1000;

/// One hash.
pub(super) struct Crypt {
    kind: &'static Kind,
    rounds: u32,
    salt: Box<[u8]>,
    /// As it is written.
    hash: Box<[u8]>,
}

struct Kind {
    prefix: &'static str,
    is_md5: bool,
    longest_salt: usize,
    /// Letters of the hash.
    length: usize,
    digest: fn(&[&[u8]]) -> Vec<u8>,
}

static KINDS: [Kind; 4] = [
    Kind {
        prefix: "$1$",
        is_md5: true,
        longest_salt: 8,
        length: 22,
        digest: md5,
    },
    Kind {
        prefix: "$apr1$",
        is_md5: true,
        longest_salt: 8,
        length: 22,
        digest: md5,
    },
    Kind {
        prefix: "$5$",
        is_md5: false,
        longest_salt: 16,
        length: 43,
        digest: |parts| sha2(&digest::SHA256, parts),
    },
    Kind {
        prefix: "$6$",
        is_md5: false,
        longest_salt: 16,
        length: 86,
        digest: |parts| sha2(&digest::SHA512, parts),
    },
];

fn md5(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Md5::new();
    parts.iter().for_each(|part| context.update(part));
    context.finalize().to_vec()
}

fn sha2(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

impl Crypt {
    /// Reads a hash; `None`: it is of another kind, `Some(None)`: it is not whole.
    pub(super) fn parse(text: &str) -> Option<Option<Self>> {
        let found = |kind: &'static Kind| Some((kind, text.strip_prefix(kind.prefix)?));
        let (kind, rest) = KINDS.iter().find_map(found)?;
        Some(Self::behind_prefix(kind, rest))
    }

    fn behind_prefix(kind: &'static Kind, rest: &str) -> Option<Self> {
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(given) if !kind.is_md5 => {
                let (number, rest) = given.split_once('$')?;
                (number.parse::<u32>().ok()?.clamp(1000, 999_999_999), rest)
            }
            _ if kind.is_md5 => (MD5_ROUNDS, rest),
            _ => (DEFAULT_ROUNDS, rest),
        };
        let (salt, hash) = rest.split_once('$')?;
        let salt = salt.as_bytes();
        let is_whole = hash.len() == kind.length && hash.bytes().all(|byte| LETTERS.contains(&byte));
        is_whole.then(|| Self {
            kind,
            rounds,
            salt: salt.get(..kind.longest_salt).unwrap_or(salt).into(),
            hash: hash.as_bytes().into(),
        })
    }

    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let made = match self.kind.is_md5 {
            true => letters_of_md5(&self.md5(password)),
            false => letters_of_sha2(&self.sha2(password)),
        };
        is_same(&self.hash, &made)
    }

    fn md5(&self, key: &[u8]) -> Vec<u8> {
        let digest = self.kind.digest;
        let inner = digest(&[key, &self.salt, key]);
        let mut text = [key, self.kind.prefix.as_bytes(), &self.salt].concat();
        text.extend(inner.iter().cycle().take(key.len()));
        let first = key.first().copied().unwrap_or_default();
        text.extend(bits(key.len()).map(|bit| if bit { 0 } else { first }));
        self.stretched(digest(&[&text]), key, &self.salt)
    }

    fn sha2(&self, key: &[u8]) -> Vec<u8> {
        let digest = self.kind.digest;
        let inner = digest(&[key, &self.salt, key]);
        let mut text = [key, &self.salt].concat();
        text.extend(inner.iter().cycle().take(key.len()));
        for bit in bits(key.len()) {
            text.extend_from_slice(if bit { &inner } else { key });
        }
        let start = digest(&[&text]);
        let of_keys = digest(&[&key.repeat(key.len())]);
        let times = 16 + usize::from(start.first().copied().unwrap_or_default());
        let of_salts = digest(&[&self.salt.repeat(times)]);
        let sequence = |digest: &[u8], length: usize| -> Vec<u8> {
            digest.iter().copied().cycle().take(length).collect()
        };
        let (keys, salts) = (
            sequence(&of_keys, key.len()),
            sequence(&of_salts, self.salt.len()),
        );
        self.stretched(start, &keys, &salts)
    }

    /// The rounds that make it slow.
    fn stretched(&self, start: Vec<u8>, key: &[u8], salt: &[u8]) -> Vec<u8> {
        let mut last = start;
        for round in 0..self.rounds {
            let (front, back) = if round % 2 == 1 {
                (key, &*last)
            } else {
                (&*last, key)
            };
            let salt = if round % 3 == 0 { &[] } else { salt };
            let middle = if round % 7 == 0 { &[] } else { key };
            last = (self.kind.digest)(&[front, salt, middle, back]);
        }
        last
    }
}

/// The bits of a length, the lowest first, up to the highest one that is set.
fn bits(length: usize) -> impl Iterator<Item = bool> {
    std::iter::successors(Some(length), |rest| Some(rest >> 1))
        .take_while(|rest| *rest > 0)
        .map(|rest| rest & 1 == 1)
}

/// Bytes of a digest, three by three, the first one highest, as four letters each.
fn letters(digest: &[u8], triples: impl Iterator<Item = [usize; 3]>, out: &mut Vec<u8>) {
    let byte = |index: usize| u32::from(digest.get(index).copied().unwrap_or_default());
    for [high, middle, low] in triples {
        push(byte(high) << 16 | byte(middle) << 8 | byte(low), 4, out);
    }
}

fn push(bits: u32, count: usize, out: &mut Vec<u8>) {
    let mut rest = bits;
    for _ in 0..count {
        out.push(LETTERS[(rest & 63) as usize]);
        rest >>= 6;
    }
}

fn letters_of_md5(digest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(22);
    let triples = (0..5).map(|first| [first, first + 6, if first == 4 { 5 } else { first + 12 }]);
    letters(digest, triples, &mut out);
    push(digest.get(11).copied().unwrap_or_default().into(), 2, &mut out);
    out
}

/// Each triple takes one byte of every third of the digest; which comes first goes round.
fn letters_of_sha2(digest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(86);
    let third = digest.len() / 3;
    let turn = if digest.len() == 64 { 1 } else { 2 };
    let triples = (0..third).map(|first| {
        let mut triple = [first, first + third, first + 2 * third];
        triple.rotate_left(first * turn % 3);
        triple
    });
    letters(digest, triples, &mut out);
    let rest = digest.get(3 * third..).unwrap_or_default();
    let bits = rest
        .iter()
        .rev()
        .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    push(bits, rest.len() + 1, &mut out);
    out
}
