//! `auth-tls-secret`, `ssl-cipher`, `tls-*-protocol-version`: what a host asks of its clients' handshakes.
//!
//! They count per host, not per route: the first Ingress of a host that says any of it decides.

use rustls::SupportedCipherSuite;
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::version::{TLS12, TLS13};

use super::reader::{Reader, list};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        (AUTHORITIES, Under::Both),
        (CIPHERS, Under::Both),
        (OLDEST, Under::Both),
        (NEWEST, Under::Both),
    ],
    read,
};

/// The Secret with the authorities of client certificates.
pub(crate) const AUTHORITIES: &str = "auth-tls-secret";
const CIPHERS: &str = "ssl-cipher";
const OLDEST: &str = "tls-min-protocol-version";
const NEWEST: &str = "tls-max-protocol-version";

/// What an Ingress asks of the handshakes of its hosts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DownstreamTls {
    /// Secret with the authorities of which one must vouch for a client: namespace (`None` is the Ingress's own) and name.
    pub(crate) authorities: Option<(Option<String>, String)>,
    /// Suites of TLS 1.2; empty is the usual ones. Those of TLS 1.3 are not chosen by anybody.
    pub(crate) suites: Vec<SupportedCipherSuite>,
    /// Never empty.
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

/// A row: the name that OpenSSL has for it, and the suite. Those of the list that are still considered safe.
const SUITES: &[(&str, SupportedCipherSuite)] = &[
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Versions from the oldest on, with the place of those that are too old to be spoken.
const VERSIONS: &[(&str, Option<&SupportedProtocolVersion>)] = &[
    ("TLSv1.0", None),
    ("TLSv1.1", None),
    ("TLSv1.2", Some(&TLS12)),
    ("TLSv1.3", Some(&TLS13)),
];

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let keys = [AUTHORITIES, CIPHERS, OLDEST, NEWEST];
    if !keys.iter().any(|key| reader.has(key)) {
        return;
    }
    features.downstream_tls = Some(DownstreamTls {
        authorities: reader.text(AUTHORITIES).map(|text| match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, text),
        }),
        suites: suites(reader),
        versions: versions(reader),
    });
}

fn suites(reader: &mut Reader<'_>) -> Vec<SupportedCipherSuite> {
    let mut chosen = Vec::new();
    let text = reader.text(CIPHERS).unwrap_or_default();
    for name in list(&text, ':') {
        match SUITES.iter().find(|(known, _)| *known == name) {
            Some((_, suite)) => chosen.push(*suite),
            None => reader.note_key(CIPHERS, format!("`{name}` is not spoken: it is left out")),
        }
    }
    if chosen.is_empty() && !text.is_empty() {
        reader.note_key(CIPHERS, "nothing of it is spoken: the usual suites are offered");
    }
    chosen
}

fn versions(reader: &mut Reader<'_>) -> Vec<&'static SupportedProtocolVersion> {
    let oldest = version(reader, OLDEST).unwrap_or(0);
    let newest = version(reader, NEWEST).unwrap_or(VERSIONS.len() - 1);
    let within = |oldest: usize, newest: usize| -> Vec<&'static SupportedProtocolVersion> {
        let range = VERSIONS.iter().take(newest + 1).skip(oldest);
        range.filter_map(|(_, version)| *version).collect()
    };
    let chosen = within(oldest, newest);
    if !chosen.is_empty() {
        return chosen;
    }
    let message = "no version of TLS from 1.2 on is left: both limits are ignored";
    reader.note_key(NEWEST, message);
    within(0, VERSIONS.len() - 1)
}

/// Its place in [`VERSIONS`].
fn version(reader: &mut Reader<'_>, key: &str) -> Option<usize> {
    let text = reader.text(key)?;
    let place = VERSIONS.iter().position(|(name, _)| *name == text);
    if place.is_none() {
        reader.note_key(key, "expected TLSv1.0, TLSv1.1, TLSv1.2 or TLSv1.3: ignored");
    }
    place
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    #[test]
    fn versions_between_limits() {
        let both = vec![&TLS12, &TLS13];
        for (oldest, newest, versions, noted) in [
            ("TLSv1.2", "TLSv1.3", both.clone(), 0),
            ("TLSv1.0", "TLSv1.2", vec![&TLS12], 0),
            ("TLSv1.3", "TLSv1.3", vec![&TLS13], 0),
            ("TLSv1.3", "TLSv1.2", both.clone(), 1),
            ("TLSv1.0", "TLSv1.1", both.clone(), 1),
            ("1.2", "TLS1.3", both, 2),
        ] {
            let (features, notes) = read_from(&[
                ("higress.io/tls-min-protocol-version", oldest),
                ("higress.io/tls-max-protocol-version", newest),
            ]);
            let asked = features.downstream_tls.unwrap();
            assert_eq!(
                (asked.versions, notes.len()),
                (versions, noted),
                "{oldest} {newest}: {notes:?}"
            );
        }
    }

    #[test]
    fn suites_by_the_names_of_openssl() {
        for (text, count, noted) in [
            ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", 2, 0),
            ("ECDHE-RSA-AES128-GCM-SHA256:RC4-SHA", 1, 1),
            ("ECDHE-RSA-AES128-GCM-SHA256,AES256-SHA", 0, 2),
        ] {
            let (features, notes) = read_from(&[("nginx.ingress.kubernetes.io/ssl-cipher", text)]);
            let asked = features.downstream_tls.unwrap();
            assert_eq!(
                (asked.suites.len(), notes.len()),
                (count, noted),
                "{text}: {notes:?}"
            );
        }
    }

    #[test]
    fn a_secret_has_the_namespace_that_is_written() {
        for (text, namespace) in [("cert", None), ("other/cert", Some("other".to_owned()))] {
            let (features, _) = read_from(&[("higress.io/auth-tls-secret", text)]);
            let authorities = features.downstream_tls.unwrap().authorities;
            assert_eq!(authorities, Some((namespace, "cert".to_owned())));
        }
        assert_eq!(read_from(&[]).0.downstream_tls, None);
    }
}
