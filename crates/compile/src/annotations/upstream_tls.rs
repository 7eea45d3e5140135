//! `backend-protocol` and `proxy-ssl-*`: protocol and TLS towards the services of an Ingress.
//!
//! They count per service and port, not per route: the first Ingress that says something about a service decides
//! for all. Unlike in Higress the certificate is verified unless `proxy-ssl-verify: "off"` says otherwise.

use tollgate_snapshot::UpstreamProtocol;

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("backend-protocol", Under::Both),
        ("proxy-ssl-secret", Under::Both),
        ("proxy-ssl-verify", Under::Both),
        ("proxy-ssl-name", Under::Both),
        ("proxy-ssl-server-name", Under::Both),
    ],
    read,
};

/// What an Ingress says about its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamTls {
    pub(crate) protocol: UpstreamProtocol,
    /// Whether TLS is spoken.
    pub(crate) tls: bool,
    /// Secret of the client certificate: namespace (`None` is the Ingress's own) and name.
    pub(crate) secret: Option<(Option<String>, String)>,
    /// Whether the certificate is verified.
    pub(crate) verify: bool,
    /// Server name to send and verify.
    pub(crate) server_name: Option<String>,
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    if !reader.has("backend-protocol") && !reader.has("proxy-ssl-secret") {
        return;
    }
    let written = reader.text("backend-protocol").unwrap_or_default();
    let (protocol, tls) = match written.to_ascii_uppercase().as_str() {
        "HTTP2" | "GRPC" => (UpstreamProtocol::Http2, false),
        "HTTPS" => (UpstreamProtocol::Http1, true),
        "GRPCS" => (UpstreamProtocol::Http2, true),
        other => {
            if other != "HTTP" && !other.is_empty() {
                reader.note_key(
                    "backend-protocol",
                    "expected HTTP, HTTP2, HTTPS, GRPC or GRPCS: HTTP is used",
                );
            }
            if reader.has("proxy-ssl-secret") {
                reader.note_key("proxy-ssl-secret", "has no effect while backend-protocol is HTTP");
            }
            return;
        }
    };
    let secret = reader
        .text("proxy-ssl-secret")
        .map(|text| match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, text),
        });
    let name = reader.text("proxy-ssl-name");
    let send = reader.switch("proxy-ssl-server-name").unwrap_or(false);
    features.upstream_tls = Some(UpstreamTls {
        protocol,
        tls: tls || secret.is_some(),
        secret,
        verify: reader.switch("proxy-ssl-verify").unwrap_or(true),
        server_name: name.filter(|_| send),
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn tls(entries: &[(&str, &str)]) -> Option<UpstreamTls> {
        read_from(entries).0.upstream_tls
    }

    #[test]
    fn protocols() {
        let of = |name: &str| {
            tls(&[("higress.io/backend-protocol", name)]).map(|tls| (tls.protocol, tls.tls, tls.verify))
        };
        assert_eq!(of("https"), Some((UpstreamProtocol::Http1, true, true)));
        assert_eq!(of("GRPCS"), Some((UpstreamProtocol::Http2, true, true)));
        assert_eq!(of("HTTP2"), Some((UpstreamProtocol::Http2, false, true)));
        assert_eq!(of("HTTP"), None);
        assert_eq!(of("FTP"), None);
        assert_eq!(tls(&[("higress.io/proxy-ssl-name", "a.com")]), None);
    }

    #[test]
    fn the_name_is_sent_only_when_switched_on() {
        let https = ("higress.io/backend-protocol", "HTTPS");
        let name = ("higress.io/proxy-ssl-name", "a.com");
        assert_eq!(tls(&[https, name]).unwrap().server_name, None);
        let on = tls(&[https, name, ("higress.io/proxy-ssl-server-name", "on")]);
        assert_eq!(on.unwrap().server_name.as_deref(), Some("a.com"));
        let (_, notes) = read_from(&[https, name, ("higress.io/proxy-ssl-server-name", "true")]);
        assert_eq!(notes[0].message, "expected `on` or `off`: ignored");
    }

    #[test]
    fn verification_is_on_unless_off() {
        let https = ("higress.io/backend-protocol", "HTTPS");
        assert!(
            !tls(&[https, ("higress.io/proxy-ssl-verify", "off")])
                .unwrap()
                .verify
        );
        assert!(
            tls(&[https, ("higress.io/proxy-ssl-verify", "never")])
                .unwrap()
                .verify
        );
    }

    #[test]
    fn a_secret_means_mutual_tls_even_without_https() {
        let found = tls(&[
            ("higress.io/backend-protocol", "GRPC"),
            ("higress.io/proxy-ssl-secret", "infra/client"),
        ]);
        let found = found.unwrap();
        assert!(found.tls);
        assert_eq!(
            found.secret,
            Some((Some("infra".to_owned()), "client".to_owned()))
        );
        let (features, notes) = read_from(&[("higress.io/proxy-ssl-secret", "client")]);
        assert_eq!(features.upstream_tls, None);
        assert_eq!(notes.len(), 1);
    }
}
