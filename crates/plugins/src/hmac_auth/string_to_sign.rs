//! The text that client and gateway sign: the request's head line by line, then its path with all parameters in order
//! (plugins spec §14).

use std::collections::BTreeMap;

use http::HeaderName;
use tollgate_body::Request;

use super::{SIGNATURE, SIGNATURE_HEADERS};
use crate::query::parameters;
use crate::signing::{signed_header, text};

/// Headers that are always signed, by their values alone.
const FIXED: [&str; 5] = [":method", "accept", "content-md5", "content-type", "date"];

/// How a parameter without a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StringToSign {
    /// `name`, as Higress's page says.
    Documented,
    /// `name=`, as Higress does.
    EveryEqualsSign,
}

/// What the text is made of.
pub(super) struct Parts<'r> {
    head: Vec<u8>,
    path: &'r str,
    /// The first value of each name; those of the query before those of a form.
    parameters: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'r> Parts<'r> {
    /// The parts of a request and its form, which is empty where there is none.
    ///
    /// # Errors
    /// A signed header that stands in the request more than once.
    pub(super) fn of(request: &'r Request, form: &[u8]) -> Result<Self, String> {
        let value = |name: &str| signed_header(request, name).map_err(|_| name.to_owned());
        let mut head = Vec::new();
        for name in FIXED {
            head.extend_from_slice(value(name)?.unwrap_or_default());
            head.push(b'\n');
        }
        let mut listed: Vec<String> = listed(request).collect();
        listed.sort();
        for name in &listed {
            head.extend_from_slice(name.as_bytes());
            head.push(b':');
            head.extend_from_slice(value(name)?.unwrap_or_default());
            head.push(b'\n');
        }
        let mut all = BTreeMap::new();
        let query = request.uri().query().unwrap_or_default();
        for (name, value) in parameters(query.as_bytes()).chain(parameters(form)) {
            all.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Ok(Self {
            head,
            path: request.uri().path(),
            parameters: all,
        })
    }

    pub(super) fn string(&self, kind: StringToSign) -> Vec<u8> {
        let mut out = self.head.clone();
        out.extend_from_slice(self.path.as_bytes());
        for (number, (name, value)) in self.parameters.iter().enumerate() {
            out.push(if number == 0 { b'?' } else { b'&' });
            out.extend_from_slice(name);
            if !value.is_empty() || kind == StringToSign::EveryEqualsSign {
                out.push(b'=');
                out.extend_from_slice(value);
            }
        }
        out
    }
}

/// The headers that the client has signed besides the fixed ones, in lower case.
fn listed(request: &Request) -> impl Iterator<Item = String> {
    let names = text(request, SIGNATURE_HEADERS.as_str()).split(',');
    names
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && *name != SIGNATURE.as_str() && *name != SIGNATURE_HEADERS.as_str())
        .filter(|name| !FIXED.contains(&name.as_str()))
}

/// Whether the client has signed this header.
pub(super) fn is_listed(request: &Request, name: &HeaderName) -> bool {
    listed(request).any(|listed| listed == name.as_str())
}
