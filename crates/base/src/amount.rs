//! `Amount`: money as an integer, so that sums are exact and the same in every order.

use std::fmt;

/// Parts of one unit of currency.
const PARTS: u64 = 1_000_000_000;
/// Decimal places of an amount.
const PLACES: usize = 9;

/// Money, in billionths of a unit of currency; sums saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Amount(pub u64);

impl Amount {
    /// Reads decimal text such as `2.5` or `1.4e-7`; `None` when it is none, negative, too large, or has more than nine
    /// decimal places that matter.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.trim().split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text.trim(), 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        let shift = i32::try_from(PLACES).ok()?.checked_sub(places)?;
        let number: u128 = digits
            .trim_start_matches('0')
            .parse()
            .or_else(|_| {
                let is_zero = digits.bytes().all(|byte| byte == b'0');
                is_zero.then_some(0).ok_or(())
            })
            .ok()?;
        let power = 10_u128.checked_pow(shift.unsigned_abs())?;
        let parts = if shift >= 0 {
            number.checked_mul(power)?
        } else if number.is_multiple_of(power) {
            number / power
        } else {
            return None;
        };
        // SQLite's integers are signed.
        u64::try_from(parts)
            .ok()
            .filter(|parts| i64::try_from(*parts).is_ok())
            .map(Self)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// As decimal text without needless zeros: `0.000015`, `12`.
impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / PARTS, self.0 % PARTS);
        if parts == 0 {
            return write!(formatter, "{whole}");
        }
        let fraction = format!("{parts:0PLACES$}");
        write!(formatter, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_read_exactly_and_printed_back() {
        for (text, parts, shown) in [
            ("0", 0, "0"),
            ("2.5", 2_500_000_000, "2.5"),
            (" 10 ", 10_000_000_000, "10"),
            ("0.000000001", 1, "0.000000001"),
            ("1e-7", 100, "0.0000001"),
            ("1.5E3", 1_500_000_000_000, "1500"),
            ("0.10000000000000", 100_000_000, "0.1"),
            (".5", 500_000_000, "0.5"),
        ] {
            assert_eq!(Amount::parse(text), Some(Amount(parts)), "{text}");
            assert_eq!(Amount(parts).to_string(), shown);
        }
        for bad in [
            "",
            "-1",
            "+1",
            "1,5",
            "a",
            "1.2.3",
            "0.0000000001",
            "1e999999999999",
            "1e30",
            "99999999999",
            "NaN",
            "1e",
            ".",
        ] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
    }
}
