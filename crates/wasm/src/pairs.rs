//! Proxy-wasm's encoding of a list of pairs: header maps, call headers, host lists, maps among properties.
//!
//! A count, then the lengths of every key and value, all as little-endian u32; then each key and value with a zero
//! byte behind it.

/// Largest list that a module may hand over, in bytes.
const LIMIT_BYTES: usize = 1024 * 1024;
/// Most pairs that a module may hand over.
const LIMIT_PAIRS: usize = 1024;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Writes the pairs; nothing at all for none.
pub(crate) fn encode<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])> + Clone) -> Vec<u8> {
    let count = pairs.clone().count();
    if count == 0 {
        return Vec::new();
    }
    let size: usize = pairs
        .clone()
        .map(|(key, value)| key.len() + value.len() + 10)
        .sum();
    let mut out = Vec::with_capacity(size + 4);
    put(&mut out, count);
    for (key, value) in pairs.clone() {
        put(&mut out, key.len());
        put(&mut out, value.len());
    }
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

fn put(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// Reads pairs. Anything malformed or over the limits is an empty list, as in Envoy.
pub(crate) fn decode(bytes: &[u8]) -> Vec<Pair> {
    if bytes.len() > LIMIT_BYTES {
        return Vec::new();
    }
    read(bytes).unwrap_or_default()
}

fn read(bytes: &[u8]) -> Option<Vec<Pair>> {
    let (count, mut lengths) = number(bytes)?;
    if count > LIMIT_PAIRS {
        return None;
    }
    let mut data = lengths.get(count * 8..)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (key_length, rest) = number(lengths)?;
        let (value_length, rest) = number(rest)?;
        lengths = rest;
        let key = piece(&mut data, key_length)?;
        pairs.push((key, piece(&mut data, value_length)?));
    }
    data.is_empty().then_some(pairs)
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*head)).ok()?, rest))
}

/// The next bytes and the zero behind them.
fn piece(data: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (text, rest) = data.split_at_checked(length)?;
    *data = rest.strip_prefix(&[0])?;
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pairs: &[(&str, &str)]) -> Vec<u8> {
        encode(
            pairs
                .iter()
                .map(|(key, value)| (key.as_bytes(), value.as_bytes())),
        )
    }

    #[test]
    fn pairs_come_back_in_order_with_duplicates_and_empty_values() {
        let bytes = encoded(&[(":path", "/"), ("a", ""), ("a", "2")]);
        assert_eq!(bytes[..12], [3, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0]);
        let expected = [(":path", "/"), ("a", ""), ("a", "2")];
        let expected = expected.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(decode(&bytes), expected);
        assert_eq!(encoded(&[]), b"");
    }

    #[test]
    fn what_is_malformed_is_empty() {
        let good = encoded(&[("key", "value")]);
        let mut trailing = good.clone();
        trailing.push(0);
        let mut unterminated = good.clone();
        *unterminated.last_mut().unwrap() = 1;
        let mut lying = good.clone();
        lying[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut crowded = good.clone();
        crowded[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for bad in [
            &trailing[..],
            &unterminated,
            &lying,
            &crowded,
            &good[..9],
            &[0, 0, 0],
            &[],
        ] {
            assert_eq!(decode(bad), [], "{bad:?}");
        }
        assert_eq!(decode(&[0, 0, 0, 0]), []);
    }
}
