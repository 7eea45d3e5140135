//! What a plain YAML scalar means: the rules of Go's yaml.v2, the version under `sigs.k8s.io/yaml`.
//!
//! YAML 1.1 with Go's number syntax: `yes` and `on` are true, `017` is fifteen, `1_000` is a thousand, `2024-01-02`
//! and `1:30` are text. Anything quoted is text; the caller sees to that.

use serde_json::{Number, Value};

/// The value of an untagged plain scalar. `Err` names a number that JSON cannot hold.
pub(crate) fn resolve(text: &str) -> Result<Value, &'static str> {
    if let Some(value) = word(text) {
        return value;
    }
    match text.as_bytes().first() {
        Some(b'.') => Ok(decimal(text).unwrap_or_else(|| Value::String(text.to_owned()))),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = text.replace('_', "");
            Ok(integer(&plain)
                .or_else(|| decimal(&plain))
                .unwrap_or_else(|| Value::String(text.to_owned())))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn word(text: &str) -> Option<Result<Value, &'static str>> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Ok(Value::Bool(true))
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Ok(Value::Bool(false))
        }
        ".nan" | ".NaN" | ".NAN" => Err("not-a-number has no JSON form"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" => {
            Err("infinity has no JSON form")
        }
        _ => return None,
    })
}

/// Go's `ParseInt` and `ParseUint` with base 0: a sign, then `0x`, `0o`, `0b`, a leading zero for octal, or decimal.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match negative {
        false => Some(Value::from(magnitude)),
        true => 0_i64.checked_sub_unsigned(magnitude).map(Value::from),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn decimal(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts_well = match unsigned.as_bytes() {
        [b'.', next, ..] => next.is_ascii_digit(),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    };
    let known_bytes = unsigned
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if !starts_well || !known_bytes {
        return None;
    }
    text.parse::<f64>().ok().and_then(float)
}

/// A float as JSON, without a fraction when it has none: Go prints `1e3` as `1000`. `None` for what overflows.
pub(crate) fn float(number: f64) -> Option<Value> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked in the same condition"
    )]
    if number.fract() == 0.0 && number.abs() < 9.2e18 {
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

/// A number as Go's `strconv` prints it into a string field: the shortest digits, without `.0`, with an exponent
/// from `1e+21` up and below `1e-4`.
pub fn number_as_go_prints(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let shortest = format!("{float:e}");
    let Some((mantissa, exponent)) = shortest.split_once('e') else {
        return shortest;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{float}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text_fields_look_as_in_go() {
        let cases = [
            (1.5, "1.5"),
            (1.1, "1.1"),
            (1e21, "1e+21"),
            (1.234e22, "1.234e+22"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5, "-2.5"),
            (123_456_789.25, "123456789.25"),
        ];
        for (number, printed) in cases {
            assert_eq!(number_as_go_prints(&Number::from_f64(number).unwrap()), printed);
        }
        assert_eq!(number_as_go_prints(&Number::from(443)), "443");
    }

    #[test]
    fn what_only_looks_like_a_number_is_text() {
        for text in [
            "1-2",
            "10.0.0.1",
            "1:30",
            "5s",
            "-",
            "+",
            ".",
            "0x",
            "0xZZ",
            "_1",
            "1e",
            "2024-01-02",
            "--1",
        ] {
            assert_eq!(resolve(text), Ok(Value::String(text.to_owned())), "{text}");
        }
    }
}
