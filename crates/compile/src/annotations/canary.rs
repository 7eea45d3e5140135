//! `canary*`: marks an Ingress as a variant of another one, by a header, a cookie or a weight.
//!
//! The first of header value, header pattern, cookie and weight that is set is used. A variant whose pattern cannot
//! be compiled stays a canary and takes no requests: falling back to "plain Ingress" would hand it the stable
//! branch's requests.

use tollgate_snapshot::route::TextMatch;

use super::reader::Reader;
use super::{Features, Group, Under, whole};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("canary", Under::Both),
        ("canary-by-header", Under::Both),
        ("canary-by-header-value", Under::Both),
        ("canary-by-header-pattern", Under::Both),
        ("canary-by-cookie", Under::Both),
        ("canary-weight", Under::Both),
        ("canary-weight-total", Under::Both),
    ],
    read,
};

/// An Ingress that is a variant of another.
#[derive(Debug, Clone)]
pub(crate) struct Canary {
    /// `None`: its condition could not be read, so it gets nothing.
    pub(crate) variant: Option<Variant>,
}

/// Which requests it gets.
#[derive(Debug, Clone)]
pub(crate) enum Variant {
    /// Those with this header.
    Header(Box<str>, TextMatch),
    /// A share of the stable branch's.
    Weight {
        /// Its own weight, at least 0.
        weight: i64,
        /// What the weight is a share of, at least 1.
        total: i64,
    },
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    if reader.flag("canary") != Some(true) {
        return;
    }
    let variant = match condition(reader) {
        Ok(variant) => Some(variant),
        Err((key, message)) => {
            reader.note_key(key, format!("{message}: the canary gets no requests"));
            None
        }
    };
    features.canary = Some(Canary { variant });
}

fn condition(reader: &mut Reader<'_>) -> Result<Variant, (&'static str, String)> {
    let header = reader.text("canary-by-header");
    let value = reader.text("canary-by-header-value");
    let pattern = reader.text("canary-by-header-pattern");
    let cookie = reader.text("canary-by-cookie");
    if let Some(header) = header {
        let name = header.to_ascii_lowercase().into_boxed_str();
        let text_match = if let Some(value) = value {
            let pattern = whole(&format!("always|{value}"));
            TextMatch::Regex(pattern.map_err(|message| ("canary-by-header-value", message))?)
        } else if let Some(pattern) = pattern {
            let anywhere = whole(&format!(".*{pattern}.*"));
            TextMatch::Regex(anywhere.map_err(|message| ("canary-by-header-pattern", message))?)
        } else {
            TextMatch::Exact("always".into())
        };
        return Ok(Variant::Header(name, text_match));
    }
    if value.is_some() || pattern.is_some() {
        let key = match value.is_some() {
            true => "canary-by-header-value",
            false => "canary-by-header-pattern",
        };
        return Err((key, "needs canary-by-header".to_owned()));
    }
    if let Some(cookie) = cookie {
        let pattern = whole(&format!(r"(.*?;\s*)?({cookie}=always)(;.*)?"));
        let pattern = pattern.map_err(|message| ("canary-by-cookie", message))?;
        return Ok(Variant::Header("cookie".into(), TextMatch::Regex(pattern)));
    }
    let weight = reader.number("canary-weight").unwrap_or(0);
    if weight < 0 {
        return Err(("canary-weight", "must not be negative".to_owned()));
    }
    let total = reader
        .number("canary-weight-total")
        .filter(|total| *total > 0)
        .unwrap_or(100);
    Ok(Variant::Weight { weight, total })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn variant(entries: &[(&str, &str)]) -> Option<Variant> {
        let prefixed: Vec<(String, &str)> = entries
            .iter()
            .map(|(key, value)| (format!("higress.io/{key}"), *value))
            .collect();
        let mut all: Vec<(&str, &str)> = prefixed
            .iter()
            .map(|(key, value)| (key.as_str(), *value))
            .collect();
        all.push(("higress.io/canary", "true"));
        read_from(&all).0.canary.unwrap().variant
    }

    fn accepts(variant: Option<Variant>, header: &str, value: &str) -> bool {
        match variant.unwrap() {
            Variant::Header(name, text_match) => *name == *header && text_match.matches(value),
            Variant::Weight { .. } => panic!("a weight"),
        }
    }

    #[test]
    fn header_alone_with_value_with_pattern_and_cookie() {
        let alone = [("canary-by-header", "X-V")];
        assert!(accepts(variant(&alone), "x-v", "always"));
        assert!(!accepts(variant(&alone), "x-v", "never"));
        let value = [
            ("canary-by-header", "X-V"),
            ("canary-by-header-value", "v[12]"),
            ("canary-weight", "5"),
        ];
        assert!(accepts(variant(&value), "x-v", "v2") && accepts(variant(&value), "x-v", "always"));
        assert!(!accepts(variant(&value), "x-v", "v3") && !accepts(variant(&value), "x-v", "xv2"));
        let pattern = [("canary-by-header", "X-V"), ("canary-by-header-pattern", "beta")];
        assert!(accepts(variant(&pattern), "x-v", "a-beta-b"));
        let cookie = [("canary-by-cookie", "user")];
        assert!(accepts(variant(&cookie), "cookie", "a=1; user=always;b=2"));
        assert!(!accepts(variant(&cookie), "cookie", "superuser=always2"));
    }

    #[test]
    fn a_pattern_that_does_not_compile_takes_no_requests() {
        assert!(variant(&[("canary-by-header", "x"), ("canary-by-header-value", "a(")]).is_none());
        assert!(variant(&[("canary-by-header-value", "a")]).is_none());
        assert!(variant(&[("canary-weight", "-1")]).is_none());
    }

    #[test]
    fn any_other_value_is_a_plain_ingress() {
        assert!(read_from(&[("higress.io/canary", "false")]).0.canary.is_none());
        assert!(
            read_from(&[("higress.io/canary-weight", "10")])
                .0
                .canary
                .is_none()
        );
        assert!(matches!(
            variant(&[("canary-weight", "10")]),
            Some(Variant::Weight {
                weight: 10,
                total: 100
            })
        ));
    }
}
