//! `request-header-control-*` and `response-header-control-*`: add, update, remove.
//!
//! One `key value` pair a line, either side in quotes if it likes; `remove` is a comma list.

use http::{HeaderName, HeaderValue};
use tollgate_snapshot::policy::HeaderEdits;

use super::reader::{Reader, list};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("request-header-control-add", Under::Higress),
        ("request-header-control-update", Under::Higress),
        ("request-header-control-remove", Under::Higress),
        ("response-header-control-add", Under::Higress),
        ("response-header-control-update", Under::Higress),
        ("response-header-control-remove", Under::Higress),
    ],
    read,
};

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    features.headers.request = edits(reader, "request");
    features.headers.response = edits(reader, "response");
}

fn edits(reader: &mut Reader<'_>, direction: &str) -> HeaderEdits {
    HeaderEdits {
        add: pairs(reader, &format!("{direction}-header-control-add")),
        set: pairs(reader, &format!("{direction}-header-control-update")),
        remove: names(reader, &format!("{direction}-header-control-remove")),
    }
}

fn pairs(reader: &mut Reader<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let text = reader.higress_text(key).unwrap_or_default();
    for line in list(&text, '\n') {
        let Some((name, value)) = line.split_once(char::is_whitespace) else {
            reader.note_key(key, "a line needs a header and a value: the line is ignored");
            continue;
        };
        let parsed = HeaderName::from_bytes(unquoted(name).as_bytes())
            .ok()
            .zip(HeaderValue::from_str(unquoted(value.trim())).ok());
        let Some((name, value)) = parsed else {
            reader.note_key(key, "a line is no valid header: the line is ignored");
            continue;
        };
        // The last of equal names wins.
        pairs.retain(|(earlier, _)| *earlier != name);
        pairs.push((name, value));
    }
    pairs
}

fn names(reader: &mut Reader<'_>, key: &str) -> Vec<HeaderName> {
    let text = reader.higress_text(key).unwrap_or_default();
    let mut names = Vec::new();
    for name in list(&text, ',') {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => names.push(name),
            Err(_) => reader.note_key(key, "holds what is no header name: it is ignored"),
        }
    }
    names
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;

    #[test]
    fn lines_quotes_and_duplicates() {
        let (features, notes) = read_from(&[
            (
                "higress.io/request-header-control-add",
                "X-A 1\n\"X-B\"   'two words'\n\nx-a 3\nalone\nb@d v\n",
            ),
            ("higress.io/request-header-control-update", "user-agent a b"),
            (
                "higress.io/response-header-control-remove",
                "server, , x-powered-by",
            ),
        ]);
        let edits = &features.headers.request;
        let added: Vec<_> = edits
            .add
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(added, [("x-b", "two words"), ("x-a", "3")]);
        assert_eq!(edits.set[0].1, "a b");
        let removed: Vec<_> = features
            .headers
            .response
            .remove
            .iter()
            .map(|name| name.as_str())
            .collect();
        assert_eq!(removed, ["server", "x-powered-by"]);
        assert_eq!(notes.len(), 2);
    }
}
