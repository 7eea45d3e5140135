//! `app-root`, `temporal-redirect`, `permanent-redirect*`, `ssl-redirect`, `force-ssl-redirect`.
//!
//! Temporal beats permanent beats TLS. The TLS redirect is for requests that came in the clear only: an unconditional
//! one, as Higress writes it, could send a client in circles.

use http::StatusCode;
use tollgate_snapshot::policy::Redirect;

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("app-root", Under::Both),
        ("temporal-redirect", Under::Both),
        ("permanent-redirect", Under::Both),
        ("permanent-redirect-code", Under::Both),
        ("ssl-redirect", Under::Both),
        ("force-ssl-redirect", Under::Both),
    ],
    read,
};

/// Redirects of one Ingress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redirects {
    /// Where `/` of its hosts is sent.
    pub(crate) app_root: Option<Redirect>,
    /// Answers every request of its routes.
    pub(crate) always: Option<Redirect>,
    /// Answers requests that came in the clear.
    pub(crate) plain: Option<Redirect>,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let redirects = &mut features.redirects;
    if let Some(path) = reader.text("app-root") {
        match path.starts_with('/') {
            true => redirects.app_root = Some(app_root(&path)),
            false => reader.note_key("app-root", "expected a path that begins with `/`: ignored"),
        }
    }
    let tls = [reader.flag("ssl-redirect"), reader.flag("force-ssl-redirect")].contains(&Some(true));
    redirects.plain = tls.then(|| Redirect {
        status: StatusCode::PERMANENT_REDIRECT,
        scheme: Some("https".into()),
        authority: None,
        path: None,
    });
    let temporal = reader.text("temporal-redirect");
    if temporal.is_none() && reader.has("temporal-redirect") {
        // Higress stops reading here, the permanent redirect with it.
        return;
    }
    if let Some(url) = temporal {
        redirects.always = target(&url, StatusCode::FOUND);
        if redirects.always.is_some() {
            return;
        }
        reader.note_key("temporal-redirect", "expected an http or https URL: ignored");
    }
    let Some(url) = reader.text("permanent-redirect") else {
        return;
    };
    redirects.always = target(&url, permanent_status(reader));
    if redirects.always.is_none() {
        reader.note_key("permanent-redirect", "expected an http or https URL: ignored");
    }
}

fn permanent_status(reader: &mut Reader<'_>) -> StatusCode {
    let Some(code) = reader.number("permanent-redirect-code") else {
        return StatusCode::MOVED_PERMANENTLY;
    };
    let status = u16::try_from(code)
        .ok()
        .filter(|code| (300..=308).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok());
    status.unwrap_or_else(|| {
        reader.note_key("permanent-redirect-code", "expected 300 to 308: 301 is used");
        StatusCode::MOVED_PERMANENTLY
    })
}

fn app_root(path: &str) -> Redirect {
    Redirect {
        status: StatusCode::FOUND,
        scheme: None,
        authority: None,
        path: Some(path.into()),
    }
}

/// Scheme, authority and path of the target; its own query is dropped, as the request's is kept.
fn target(url: &str, status: StatusCode) -> Option<Redirect> {
    let (scheme, rest) = url.split_once(':')?;
    if !(scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")) {
        return None;
    }
    let rest = rest.strip_prefix("//")?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let authority: http::uri::Authority = authority.parse().ok()?;
    let path = tail.split(['?', '#']).next().unwrap_or_default();
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    Some(Redirect {
        status,
        scheme: Some(scheme.to_ascii_lowercase().into()),
        authority: Some(authority.as_str().into()),
        path: (!path.is_empty()).then(|| path.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn parts(redirect: Option<Redirect>) -> (u16, String) {
        let redirect = redirect.unwrap();
        let text = format!(
            "{}://{}{}",
            redirect.scheme.unwrap_or_default(),
            redirect.authority.unwrap_or_default(),
            redirect.path.unwrap_or_default()
        );
        (redirect.status.as_u16(), text)
    }

    #[test]
    fn temporal_beats_permanent() {
        let (features, _) = read_from(&[
            ("higress.io/temporal-redirect", "http://bar.com"),
            ("higress.io/permanent-redirect", "http://foo.com"),
        ]);
        assert_eq!(
            parts(features.redirects.always),
            (302, "http://bar.com".to_owned())
        );
        let (features, notes) = read_from(&[
            ("higress.io/temporal-redirect", "ftp://bar.com"),
            (
                "higress.io/permanent-redirect",
                "HTTPS://foo.com:8443/x?dropped=1",
            ),
            ("higress.io/permanent-redirect-code", "308"),
        ]);
        assert_eq!(
            parts(features.redirects.always),
            (308, "https://foo.com:8443/x".to_owned())
        );
        assert_eq!(notes[0].key, "higress.io/temporal-redirect");
    }

    #[test]
    fn an_empty_temporal_redirect_switches_the_permanent_one_off() {
        let (features, notes) = read_from(&[
            ("higress.io/temporal-redirect", ""),
            ("higress.io/permanent-redirect", "http://foo.com"),
        ]);
        assert!(features.redirects.always.is_none());
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_code_out_of_range_is_301() {
        let (features, notes) = read_from(&[
            ("higress.io/permanent-redirect", "http://foo.com"),
            ("higress.io/permanent-redirect-code", "200"),
        ]);
        assert_eq!(parts(features.redirects.always).0, 301);
        assert_eq!(notes[0].message, "expected 300 to 308: 301 is used");
    }

    #[test]
    fn both_tls_redirects_are_one() {
        for key in [
            "higress.io/ssl-redirect",
            "nginx.ingress.kubernetes.io/force-ssl-redirect",
        ] {
            let (features, _) = read_from(&[(key, "true")]);
            let plain = features.redirects.plain.unwrap();
            assert_eq!((plain.status.as_u16(), plain.authority), (308, None));
        }
    }

    #[test]
    fn an_app_root_is_a_path() {
        let (features, _) = read_from(&[("higress.io/app-root", "/foo")]);
        assert_eq!(features.redirects.app_root.unwrap().path.as_deref(), Some("/foo"));
        let (features, notes) = read_from(&[("higress.io/app-root", "foo")]);
        assert!(features.redirects.app_root.is_none() && notes.len() == 1);
    }
}
