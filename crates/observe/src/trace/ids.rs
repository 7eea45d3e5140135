//! Ids of traces and spans: random, never all zero.

use std::fmt;

/// 128 bits; a trace that came with 64 keeps the upper half zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

impl TraceId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// From 16 or 32 hexadecimal digits; `None` for anything else and for zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_sized = matches!(text.len(), 16 | 32);
        let digits = is_sized && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
        (number != 0).then_some(Self(number))
    }

    /// Big-endian.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Its hexadecimal digits.
    pub(crate) fn hex(self) -> [u8; 32] {
        let mut digits = [b'0'; 32];
        write_hex(&self.bytes(), &mut digits);
        digits
    }
}

impl SpanId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    /// From 16 hexadecimal digits; `None` for anything else and for zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits)?;
        (number != 0).then_some(Self(number))
    }

    /// Big-endian.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Its hexadecimal digits.
    pub(crate) fn hex(self) -> [u8; 16] {
        let mut digits = [b'0'; 16];
        write_hex(&self.bytes(), &mut digits);
        digits
    }
}

fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_text() {
        for _ in 0..100 {
            let (trace, span) = (TraceId::random(), SpanId::random());
            assert_eq!(trace.hex(), trace.to_string().as_bytes());
            assert_eq!(span.hex(), span.to_string().as_bytes());
        }
    }
}
