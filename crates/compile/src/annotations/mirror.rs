//! `mirror-target-*`: the service that gets a copy of a share of the requests.

use tollgate_kinds::Ingress;

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        (SERVICE, Under::Both),
        (NAME, Under::Both),
        (PORT, Under::Both),
        (SHARE, Under::Both),
    ],
    read,
};

const SERVICE: &str = "mirror-target-service";
const NAME: &str = "mirror-target-fqdn";
const PORT: &str = "mirror-target-fqdn-port";
const SHARE: &str = "mirror-percentage";
/// Port of a service that is named by its full name.
const USUAL_PORT: u16 = 80;

/// Who gets copies, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenMirror {
    pub(crate) target: MirrorTarget,
    /// Of 100 requests, at most 100.
    pub(crate) percent: u32,
}

/// The service as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MirrorTarget {
    /// `mirror-target-fqdn` with its port.
    Named(String, u16),
    /// `mirror-target-service: [namespace/]service[:port]`.
    Service {
        /// `None` is the Ingress's own.
        namespace: Option<String>,
        service: String,
        /// `None` is the first one that the Service has.
        port: Option<u16>,
    },
}

impl MirrorTarget {
    /// The annotation that names it.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Named(..) => NAME,
            Self::Service { .. } => SERVICE,
        }
    }

    /// The Service's namespace, of a target that is one.
    pub(crate) fn namespace<'a>(&'a self, ingress: &'a Ingress) -> &'a str {
        match self {
            Self::Service {
                namespace: Some(namespace),
                ..
            } => namespace,
            Self::Service { .. } | Self::Named(..) => &ingress.metadata.namespace,
        }
    }
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let Some(target) = target(reader) else {
        for key in [PORT, SHARE] {
            if reader.has(key) {
                reader.note_key(key, "means nothing without a target: ignored");
            }
        }
        return;
    };
    let percent = match reader.number(SHARE) {
        None => 100,
        Some(share) => u32::try_from(share).unwrap_or_else(|_| {
            reader.note_key(SHARE, "expected 0 to 100: nothing is mirrored");
            0
        }),
    };
    features.mirror = Some(WrittenMirror {
        target,
        percent: percent.min(100),
    });
}

fn target(reader: &mut Reader<'_>) -> Option<MirrorTarget> {
    if let Some(name) = reader.text(NAME) {
        let port = reader.number(PORT).and_then(|port| {
            let usable = u16::try_from(port).ok().filter(|port| *port > 0);
            if usable.is_none() {
                reader.note_key(PORT, "expected a port: 80 is used");
            }
            usable
        });
        return Some(MirrorTarget::Named(name, port.unwrap_or(USUAL_PORT)));
    }
    let text = reader.text(SERVICE)?;
    let parsed = service(&text);
    if parsed.is_none() {
        reader.note_key(SERVICE, "expected [namespace/]service[:port]: ignored");
    }
    parsed
}

fn service(text: &str) -> Option<MirrorTarget> {
    let (namespace, rest) = match text.split_once('/') {
        Some((namespace, rest)) => (Some(namespace.to_owned()), rest),
        None => (None, text),
    };
    let (service, port) = match rest.split_once(':') {
        Some((service, port)) => (service, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?)),
        None => (rest, None),
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains('/');
    (is_name(service) && namespace.as_deref().is_none_or(is_name)).then(|| MirrorTarget::Service {
        namespace,
        service: service.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn of_service(namespace: Option<&str>, service: &str, port: Option<u16>) -> MirrorTarget {
        MirrorTarget::Service {
            namespace: namespace.map(str::to_owned),
            service: service.to_owned(),
            port,
        }
    }

    #[test]
    fn targets() {
        for (text, target) in [
            ("shadow", Some(of_service(None, "shadow", None))),
            (
                "other/shadow:8080",
                Some(of_service(Some("other"), "shadow", Some(8080))),
            ),
            ("shadow:0", None),
            ("shadow:http", None),
            ("/shadow", None),
            ("a/b/c", None),
            (":80", None),
        ] {
            let (features, notes) = read_from(&[("higress.io/mirror-target-service", text)]);
            assert_eq!(features.mirror.map(|mirror| mirror.target), target, "{text}");
            assert_eq!(notes.len(), usize::from(target.is_none()), "{text}");
        }
    }

    #[test]
    fn the_full_name_wins_and_has_a_usual_port() {
        for (port, number, noted) in [(None, 80, 0), (Some("8080"), 8080, 0), (Some("70000"), 80, 1)] {
            let mut entries = vec![
                ("higress.io/mirror-target-service", "shadow"),
                ("higress.io/mirror-target-fqdn", "shadow.dns"),
            ];
            entries.extend(port.map(|port| ("higress.io/mirror-target-fqdn-port", port)));
            let (features, notes) = read_from(&entries);
            let wanted = MirrorTarget::Named("shadow.dns".to_owned(), number);
            assert_eq!(features.mirror.map(|mirror| mirror.target), Some(wanted));
            assert_eq!(notes.len(), noted, "{notes:?}");
        }
    }

    #[test]
    fn shares() {
        for (text, percent, noted) in [
            ("5", 5, 0),
            ("0", 0, 0),
            ("250", 100, 0),
            ("-1", 0, 1),
            ("half", 100, 1),
        ] {
            let (features, notes) = read_from(&[
                ("higress.io/mirror-target-service", "shadow"),
                ("higress.io/mirror-percentage", text),
            ]);
            assert_eq!(
                features.mirror.map(|mirror| mirror.percent),
                Some(percent),
                "{text}"
            );
            assert_eq!(notes.len(), noted, "{text}: {notes:?}");
        }
        let (features, notes) = read_from(&[("higress.io/mirror-percentage", "5")]);
        assert_eq!((features.mirror, notes.len()), (None, 1));
    }
}
