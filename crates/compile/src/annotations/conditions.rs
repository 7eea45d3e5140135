//! `match-method` and `{exact,prefix,regex}-match-{header,pseudo-header,query}-NAME`: what a route asks of a request
//! besides host and path.

use http::Method;
use tollgate_snapshot::route::TextMatch;

use super::reader::{HIGRESS, Note, Reader};
use super::{Features, Group, Under, whole};

pub(super) const GROUP: Group = Group {
    keys: &[("match-method", Under::Higress)],
    read,
};

const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// How a value is compared, in the order in which two conditions on one name beat each other.
const COMPARISONS: [&str; 3] = ["exact", "prefix", "regex"];

/// Conditions of one Ingress; all must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    /// Any of these; empty means every method.
    pub(crate) methods: Vec<Method>,
    /// Lower-case names; a pseudo-header's begins with `:`.
    pub(crate) headers: Vec<(Box<str>, TextMatch)>,
    pub(crate) queries: Vec<(Box<str>, TextMatch)>,
    /// Everything above as written, sorted: two Ingresses with equal keys claim the same requests.
    pub(crate) key: String,
}

impl Conditions {
    /// Length of the methods joined by `|`: the shorter of two comes first.
    pub(crate) fn methods_length(&self) -> usize {
        let names: usize = self.methods.iter().map(|method| method.as_str().len()).sum();
        names + self.methods.len().saturating_sub(1)
    }
}

/// Whether a key without prefix is one of the open-ended ones.
pub(super) fn is_condition(key: &str) -> bool {
    split(key).is_some()
}

/// Comparison, sort and name of a condition's key.
fn split(key: &str) -> Option<(&'static str, Sort, &str)> {
    let comparison = COMPARISONS
        .iter()
        .find(|comparison| key.starts_with(*comparison))?;
    let rest = key.strip_prefix(comparison)?.strip_prefix("-match-")?;
    let sorts = [
        ("pseudo-header-", Sort::PseudoHeader),
        ("header-", Sort::Header),
        ("query-", Sort::Query),
    ];
    let (name, sort) = sorts
        .iter()
        .find_map(|(prefix, sort)| Some((rest.strip_prefix(prefix)?, *sort)))?;
    (!name.is_empty()).then_some((comparison, sort, name))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Header,
    PseudoHeader,
    Query,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let mut conditions = Conditions::default();
    let mut keys = Vec::new();
    if let Some(text) = reader.higress_text("match-method") {
        keys.push(format!("match-method={text}"));
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let known = METHODS
                .iter()
                .find(|method| method.as_str().eq_ignore_ascii_case(word));
            match known {
                Some(method) if conditions.methods.contains(method) => {}
                Some(method) => conditions.methods.push(method.clone()),
                None => reader.note_key("match-method", "holds an unknown method: it is ignored"),
            }
        }
    }
    for wanted in COMPARISONS {
        for (full, value) in reader.entries() {
            let Some((comparison, sort, name)) = full.strip_prefix(HIGRESS).and_then(split) else {
                continue;
            };
            if comparison != wanted {
                continue;
            }
            keys.push(format!("{full}={value}"));
            if let Err(message) = add(&mut conditions, comparison, sort, name, value) {
                features.unroutable = Some(Note {
                    key: full.to_owned(),
                    message,
                });
            }
        }
    }
    keys.sort_unstable();
    conditions.key = keys.join("\n");
    features.conditions = conditions;
}

fn add(
    conditions: &mut Conditions,
    comparison: &str,
    sort: Sort,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let text_match = match comparison {
        "exact" => TextMatch::Exact(value.into()),
        "prefix" => TextMatch::Prefix(value.into()),
        _ => TextMatch::Regex(whole(value)?),
    };
    let (list, name) = match sort {
        Sort::Query => (&mut conditions.queries, name.to_owned()),
        Sort::Header => (&mut conditions.headers, name.to_ascii_lowercase()),
        Sort::PseudoHeader => (&mut conditions.headers, format!(":{}", name.to_ascii_lowercase())),
    };
    if !list.iter().any(|(earlier, _)| **earlier == *name) {
        list.push((name.into(), text_match));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    #[test]
    fn methods_are_upper_cased_and_unknown_ones_dropped() {
        let (features, notes) = read_from(&[("higress.io/match-method", "post GET fetch Post")]);
        assert_eq!(features.conditions.methods, [Method::POST, Method::GET]);
        assert_eq!(features.conditions.methods_length(), "POST|GET".len());
        assert_eq!(notes.len(), 1);
        assert_eq!(
            read_from(&[("higress.io/match-method", "x")])
                .0
                .conditions
                .methods,
            [] as [Method; 0]
        );
    }

    #[test]
    fn exact_beats_prefix_beats_regex_on_one_name() {
        let (features, _) = read_from(&[
            ("higress.io/regex-match-header-X-A", "a+"),
            ("higress.io/prefix-match-header-x-a", "a"),
            ("higress.io/exact-match-header-X-A", "aa"),
            ("higress.io/prefix-match-pseudo-header-authority", "api."),
            ("higress.io/regex-match-query-Name", "b+"),
            ("nginx.ingress.kubernetes.io/exact-match-header-y", "1"),
        ]);
        let headers = &features.conditions.headers;
        assert_eq!(headers.len(), 2);
        assert!(
            headers
                .iter()
                .any(|(name, text)| &**name == "x-a" && matches!(text, TextMatch::Exact(_)))
        );
        assert!(headers.iter().any(|(name, _)| &**name == ":authority"));
        assert_eq!(&*features.conditions.queries[0].0, "Name");
    }

    #[test]
    fn a_condition_that_cannot_be_read_takes_the_routes_along() {
        let (features, _) = read_from(&[("higress.io/regex-match-header-a", "a(")]);
        let note = features.unroutable.unwrap();
        assert_eq!(note.key, "higress.io/regex-match-header-a");
        assert_eq!(note.message, "invalid regular expression: unclosed group");
    }

    #[test]
    fn the_key_does_not_depend_on_the_order() {
        let one = [
            ("higress.io/exact-match-header-a", "1"),
            ("higress.io/exact-match-header-b", "2"),
        ];
        let other = [one[1], one[0]];
        assert_eq!(
            read_from(&one).0.conditions.key,
            read_from(&other).0.conditions.key
        );
        let third = [("higress.io/exact-match-header-a", "2")];
        assert_ne!(
            read_from(&one).0.conditions.key,
            read_from(&third).0.conditions.key
        );
    }
}
