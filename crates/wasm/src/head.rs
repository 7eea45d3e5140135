//! The head of a request or response as a proxy-wasm header map: pseudo-headers first, then the fields in order.
//!
//! Names are in lower case whatever a module writes; `host` means `:authority`. A value that could split the head is
//! not written: the Rust SDK panics on any status but 0 here, so such a write is logged and otherwise ignored. The same
//! goes for what a head that is full takes no more.

use std::borrow::Cow;

use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, request, response};

use crate::limits::Room;

/// A header map.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    Request(request::Parts),
    Response(response::Parts),
    /// Trailers, or the headers of an answer to a call: no pseudo-headers.
    Plain(HeaderMap),
}

impl Head {
    pub(crate) fn fields(&self) -> &HeaderMap {
        match self {
            Self::Request(parts) => &parts.headers,
            Self::Response(parts) => &parts.headers,
            Self::Plain(fields) => fields,
        }
    }

    pub(crate) fn fields_mut(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(parts) => &mut parts.headers,
            Self::Response(parts) => &mut parts.headers,
            Self::Plain(fields) => fields,
        }
    }

    /// Number of pairs, pseudo-headers included.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.fields().len() + self.pseudo().len()).unwrap_or(u32::MAX)
    }

    /// The first value of a name, which may be written in any case.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        if name.first() == Some(&b':') || name.eq_ignore_ascii_case(b"host") {
            return self.pseudo_value(name);
        }
        // A known name is found without being made first.
        let text = std::str::from_utf8(name).ok()?;
        let found = self.fields().get(text);
        found.map(|value| Cow::Borrowed(value.as_bytes()))
    }

    /// All pairs.
    pub(crate) fn pairs(&self) -> Vec<(&[u8], Cow<'_, [u8]>)> {
        let mut pairs: Vec<(&[u8], Cow<'_, [u8]>)> = Vec::with_capacity(self.fields().len() + 4);
        for name in self.pseudo() {
            if let Some(value) = self.pseudo_value(name) {
                pairs.push((name, value));
            }
        }
        let fields = self.fields().iter();
        pairs.extend(fields.map(|(name, value)| (name.as_str().as_bytes(), Cow::Borrowed(value.as_bytes()))));
        pairs
    }

    /// Adds a value. False: the head is full.
    pub(crate) fn add(&mut self, room: Room, name: &[u8], value: &[u8]) -> bool {
        if self.set_pseudo(name, value) {
            return true;
        }
        let Some((name, value)) = field(name, value) else {
            return true;
        };
        let fields = self.fields_mut();
        fields.len() < room.fields
            && has_room(room, fields, &name, &value)
            && fields.try_append(name, value).is_ok()
    }

    /// Makes this the only value. False: the head is full.
    pub(crate) fn replace(&mut self, room: Room, name: &[u8], value: &[u8]) -> bool {
        if self.set_pseudo(name, value) {
            return true;
        }
        let Some((name, value)) = field(name, value) else {
            return true;
        };
        let fields = self.fields_mut();
        (fields.len() < room.fields || fields.contains_key(&name))
            && has_room(room, fields, &name, &value)
            && fields.try_insert(name, value).is_ok()
    }

    /// Takes all values away. What a head cannot be without stays.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        if let Ok(name) = HeaderName::from_bytes(name) {
            self.fields_mut().remove(name);
        }
    }

    /// Replaces the whole map. False: not all of it had room.
    pub(crate) fn set_all<'p>(
        &mut self,
        room: Room,
        pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    ) -> bool {
        self.fields_mut().clear();
        let mut had_room = true;
        for (name, value) in pairs {
            had_room &= self.add(room, name, value);
        }
        had_room
    }

    fn pseudo(&self) -> &'static [&'static [u8]] {
        match self {
            Self::Request(_) => &[b":authority", b":path", b":method", b":scheme"],
            Self::Response(_) => &[b":status"],
            Self::Plain(_) => &[],
        }
    }

    fn pseudo_value(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Request(parts) => request_value(parts, name).map(|text| Cow::Borrowed(text.as_bytes())),
            Self::Response(parts) if name == b":status" => {
                Some(Cow::Owned(parts.status.as_str().as_bytes().to_vec()))
            }
            Self::Response(_) | Self::Plain(_) => None,
        }
    }

    /// True when the name belongs to the start of the message, whether or not the value could be used.
    fn set_pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        let is_host = name.eq_ignore_ascii_case(b"host");
        if name.first() != Some(&b':') && !(is_host && matches!(self, Self::Request(_))) {
            return false;
        }
        let done = match self {
            Self::Request(parts) => set_request(parts, name, value),
            Self::Response(parts) if name == b":status" => {
                let status = StatusCode::from_bytes(value).ok();
                status.map(|status| parts.status = status)
            }
            Self::Response(_) | Self::Plain(_) => None,
        };
        if done.is_none() {
            refused(name);
        }
        true
    }
}

fn request_value<'p>(parts: &'p request::Parts, name: &[u8]) -> Option<&'p str> {
    match name {
        b":path" => Some(parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)),
        b":method" => Some(parts.method.as_str()),
        b":scheme" => Some(parts.uri.scheme_str().unwrap_or("http")),
        b":authority" => authority(parts),
        name if name.eq_ignore_ascii_case(b"host") => authority(parts),
        _ => None,
    }
}

fn authority(parts: &request::Parts) -> Option<&str> {
    let host = || parts.headers.get(HOST).and_then(|value| value.to_str().ok());
    parts.uri.authority().map(Authority::as_str).or_else(host)
}

fn set_request(parts: &mut request::Parts, name: &[u8], value: &[u8]) -> Option<()> {
    if name == b":method" {
        parts.method = Method::from_bytes(value).ok()?;
        return Some(());
    }
    let mut uri = parts.uri.clone().into_parts();
    match name {
        b":path" => uri.path_and_query = Some(PathAndQuery::try_from(value).ok()?),
        b":scheme" => uri.scheme = Some(Scheme::try_from(value).ok()?),
        _ if name == b":authority" || name.eq_ignore_ascii_case(b"host") => {
            uri.authority = Some(Authority::try_from(value).ok()?);
            uri.scheme.get_or_insert(Scheme::HTTP);
        }
        _ => return None,
    }
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    parts.uri = Uri::from_parts(uri).ok()?;
    Some(())
}

fn field(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let made = HeaderName::from_bytes(name)
        .ok()
        .zip(HeaderValue::from_bytes(value).ok());
    if made.is_none() {
        refused(name);
    }
    made
}

/// What a value takes the place of counts as well.
fn has_room(room: Room, fields: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> bool {
    let sizes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum::<usize>() + name.as_str().len() + value.len() <= room.bytes
}

fn refused(name: &[u8]) {
    tracing::warn!(header = %name.escape_ascii(), "a module wrote a header that cannot be sent: ignored");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Head {
        let request = http::Request::builder()
            .uri("http://a.com:80/p?q=1")
            .header("x-a", "1")
            .body(())
            .unwrap();
        Head::Request(request.into_parts().0)
    }

    fn text(head: &Head, name: &str) -> Option<String> {
        head.get(name.as_bytes())
            .map(|value| String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn names_of_any_case_are_one_field() {
        let mut head = request();
        head.add(Room::default(), b"X-A", b"2");
        head.replace(Room::default(), b"Content-Type", b"a");
        head.replace(Room::default(), b"content-type", b"b");
        assert_eq!(text(&head, "Content-Type").unwrap(), "b");
        let fields: Vec<_> = head.fields().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(fields, ["x-a", "x-a", "content-type"]);
        head.remove(b"X-a");
        assert_eq!(text(&head, "x-a"), None);
    }

    #[test]
    fn the_start_of_a_request_is_read_and_written_by_pseudo_headers() {
        let mut head = request();
        for (name, value) in [
            (":path", "/p?q=1"),
            (":authority", "a.com:80"),
            (":scheme", "http"),
            ("Host", "a.com:80"),
        ] {
            assert_eq!(text(&head, name).as_deref(), Some(value), "{name}");
        }
        head.replace(Room::default(), b":path", b"/other");
        head.replace(Room::default(), b":method", b"POST");
        head.replace(Room::default(), b"Host", b"b.org");
        head.replace(Room::default(), b":path", b"not a path\r\n");
        let Head::Request(parts) = &head else { panic!() };
        assert_eq!(parts.uri.to_string(), "http://b.org/other");
        assert_eq!(parts.method, Method::POST);
        assert!(!parts.headers.contains_key(HOST));
        assert_eq!(head.count(), 5);
        assert_eq!(head.pairs().len(), 5);
    }

    #[test]
    fn a_value_that_splits_the_head_is_not_written() {
        let mut head = request();
        head.replace(Room::default(), b"x-a", b"1\r\nx-b: 2");
        head.add(Room::default(), b"bad name", b"1");
        assert_eq!(text(&head, "x-a").unwrap(), "1");
        assert_eq!(head.fields().len(), 1);
    }

    #[test]
    fn a_whole_map_is_replaced_in_order() {
        let response = http::Response::builder()
            .status(200)
            .header("a", "1")
            .body(())
            .unwrap();
        let mut head = Head::Response(response.into_parts().0);
        let pairs: [(&[u8], &[u8]); 3] = [(b":status", b"404"), (b"b", b"1"), (b"b", b"2")];
        head.set_all(Room::default(), pairs.into_iter());
        let written: Vec<_> = head
            .pairs()
            .into_iter()
            .map(|(name, value)| (name.to_vec(), value.into_owned()))
            .collect();
        let expected = pairs.map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(written, expected);
        head.replace(Room::default(), b":status", b"9999");
        assert_eq!(text(&head, ":status").unwrap(), "404");
    }
}
