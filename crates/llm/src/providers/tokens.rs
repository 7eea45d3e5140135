//! Which token a request uses (ai-proxy spec §6.1): at random, or always the same for one consumer where the vendor
//! keeps state.

/// Index of the token for a consumer: FNV-1a over its name, unsigned remainder.
#[must_use]
pub fn by_consumer(consumer: &str, count: usize) -> usize {
    let hash = consumer.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize % count.max(1)
}

/// Index of a random token out of `count`; 0 when there is none.
#[must_use]
pub fn at_random(count: usize) -> usize {
    if count < 2 { 0 } else { fastrand::usize(..count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_keep_their_token() {
        let goldens = [
            ("team-blue", 1),
            ("user-alice", 0),
            ("consumer1", 1),
            ("user-bob", 1),
            ("user-charlie", 1),
            ("test-consumer", 0),
        ];
        for (consumer, index) in goldens {
            assert_eq!(by_consumer(consumer, 3), index, "{consumer}");
        }
        assert_eq!(by_consumer("x", 0), 0);
    }

    #[test]
    fn random_stays_in_range() {
        assert_eq!(at_random(0), 0);
        assert!((0..50).all(|_| at_random(3) < 3));
    }
}
