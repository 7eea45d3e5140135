//! Parameters of a request's query string or of a form, as Higress's plugins read them: the first of a name counts, names and
//! values are percent-decoded, a plus sign stays one.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use tollgate_body::Request;

/// The parameters in their order, decoded; they need not be text.
pub(crate) fn parameters(form: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let pairs = form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(end);
        (decoded(name), decoded(value.get(1..).unwrap_or_default()))
    })
}

/// The value of the first parameter with this name.
pub(crate) fn parameter<'a>(request: &'a Request, name: &str) -> Option<Cow<'a, [u8]>> {
    let query = request.uri().query()?;
    parameters(query.as_bytes())
        .find(|(found, _)| **found == *name.as_bytes())
        .map(|(_, value)| value)
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}

#[cfg(test)]
mod tests {
    use tollgate_body::Body;

    use super::*;

    #[test]
    fn the_first_of_a_name_counts_and_is_decoded() {
        let uri = "http://a/?x=%61%2Bb+c&x=2&&y&%7a=%FF";
        let request = http::Request::get(uri).body(Body::empty()).unwrap();
        assert_eq!(parameter(&request, "x").as_deref(), Some(&b"a+b+c"[..]));
        assert_eq!(parameter(&request, "y").as_deref(), Some(&b""[..]));
        assert_eq!(parameter(&request, "z").as_deref(), Some(&b"\xff"[..]));
        assert_eq!(parameter(&request, "X"), None);
    }
}
