//! `destination`: the weighted services of a route whose backend is an McpBridge; `default-backend`: where requests
//! go while the first destination cannot serve them; `custom-http-errors`: whose errors it answers instead.

use http::StatusCode;
use tollgate_kinds::Ingress;

use super::reader::{Reader, list};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("destination", Under::Higress),
        ("default-backend", Under::Both),
        (REPLACED_ERRORS, Under::Both),
    ],
    read,
};

const REPLACED_ERRORS: &str = "custom-http-errors";

/// The whole annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// In the order written; never empty.
    pub(crate) destinations: Vec<WrittenDestination>,
    /// Sum of all weights as written.
    pub(crate) weight_sum: i64,
}

/// One line: `[<weight>%] <host>[:<port>] [<subset>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenDestination {
    pub(crate) weight: i64,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) subset: String,
}

/// `default-backend: [ns/]service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultBackend {
    /// `None` is the Ingress's own.
    pub(crate) namespace: Option<String>,
    pub(crate) service: String,
}

impl DefaultBackend {
    /// The Service's namespace.
    pub(crate) fn namespace<'a>(&'a self, ingress: &'a Ingress) -> &'a str {
        self.namespace.as_deref().unwrap_or(&ingress.metadata.namespace)
    }
}

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    if let Some(text) = reader.text("default-backend") {
        features.default_backend = Some(match text.split_once('/') {
            Some((namespace, service)) => DefaultBackend {
                namespace: Some(namespace.to_owned()),
                service: service.to_owned(),
            },
            None => DefaultBackend {
                namespace: None,
                service: text,
            },
        });
    }
    read_replaced_errors(reader, features);
    let Some(text) = reader.higress_text("destination") else {
        return;
    };
    match parse(&text) {
        Ok(written) => {
            if written.weight_sum != 100 {
                let message = format!(
                    "the weights add up to {}: they are scaled to 100",
                    written.weight_sum
                );
                reader.note_key("destination", message);
            }
            features.destination = Some(written);
        }
        Err(message) => reader.note_key(
            "destination",
            format!("{message}: the whole annotation is ignored"),
        ),
    }
}

fn read_replaced_errors(reader: &mut Reader<'_>, features: &mut Features) {
    let Some(text) = reader.text(REPLACED_ERRORS) else {
        return;
    };
    if features.default_backend.is_none() {
        reader.note_key(REPLACED_ERRORS, "means nothing without default-backend: ignored");
        return;
    }
    for word in list(&text, ',') {
        match word.parse::<StatusCode>() {
            Ok(status) if status.is_client_error() || status.is_server_error() => {
                features.replaced_errors.push(status);
            }
            _ => reader.note_key(
                REPLACED_ERRORS,
                format!("`{word}` is no status from 400 to 599: it is ignored"),
            ),
        }
    }
}

fn parse(text: &str) -> Result<Written, String> {
    let mut destinations = Vec::new();
    for line in list(text, '\n') {
        destinations.push(parse_line(line)?);
    }
    if destinations.is_empty() {
        return Err("no destination in it".to_owned());
    }
    let weight_sum = destinations
        .iter()
        .map(|destination: &WrittenDestination| destination.weight)
        .sum();
    Ok(Written {
        destinations,
        weight_sum,
    })
}

fn parse_line(line: &str) -> Result<WrittenDestination, String> {
    let mut words = line.split_whitespace().peekable();
    let mut weight = 100;
    if let Some(percent) = words.peek().and_then(|word| word.strip_suffix('%')) {
        weight = i64::from(
            percent
                .parse::<i32>()
                .map_err(|_| format!("`{percent}%` is not a weight"))?,
        );
        if weight < 0 {
            return Err(format!("`{percent}%` is a negative weight"));
        }
        words.next();
    }
    let address = words
        .next()
        .ok_or_else(|| format!("`{line}` has no service name"))?;
    // Names of Dubbo services hold colons of their own, so only a real port is cut off.
    let cut = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
    let (host, port) = match cut {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    };
    Ok(WrittenDestination {
        weight,
        host: host.to_owned(),
        port,
        subset: words.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn line(weight: i64, host: &str, port: Option<u16>, subset: &str) -> WrittenDestination {
        WrittenDestination {
            weight,
            host: host.to_owned(),
            port,
            subset: subset.to_owned(),
        }
    }

    #[test]
    fn weight_port_and_subset_are_optional() {
        let text =
            "70% a.dns:8080 v1\n\n  30%  providers:com.x.Demo:1.0.0:dev.DEFAULT-GROUP.public.nacos  \n";
        let (features, notes) = read_from(&[("higress.io/destination", text)]);
        assert_eq!(
            features.destination.unwrap().destinations,
            [
                line(70, "a.dns", Some(8080), "v1"),
                line(
                    30,
                    "providers:com.x.Demo:1.0.0:dev.DEFAULT-GROUP.public.nacos",
                    None,
                    ""
                )
            ]
        );
        assert_eq!(notes, []);
        let (features, _) = read_from(&[("higress.io/destination", "qwen.dns")]);
        assert_eq!(
            features.destination.unwrap().destinations,
            [line(100, "qwen.dns", None, "")]
        );
    }

    #[test]
    fn one_bad_line_discards_everything_and_says_why() {
        for (text, reason) in [
            ("50% a.dns\nmany% b.dns", "`many%` is not a weight"),
            ("50%", "`50%` has no service name"),
            ("-5% a.dns", "`-5%` is a negative weight"),
        ] {
            let (features, notes) = read_from(&[("higress.io/destination", text)]);
            assert_eq!(features.destination, None, "{text}");
            assert_eq!(
                notes[0].message,
                format!("{reason}: the whole annotation is ignored")
            );
        }
    }

    #[test]
    fn a_sum_other_than_100_is_told_and_kept() {
        let (features, notes) = read_from(&[("higress.io/destination", "50% a.dns\n70% b.dns")]);
        assert_eq!(features.destination.unwrap().weight_sum, 120);
        assert_eq!(
            notes[0].message,
            "the weights add up to 120: they are scaled to 100"
        );
    }

    #[test]
    fn default_backend_may_name_a_namespace() {
        let (features, _) = read_from(&[("nginx.ingress.kubernetes.io/default-backend", "infra/errors")]);
        let wanted = DefaultBackend {
            namespace: Some("infra".to_owned()),
            service: "errors".to_owned(),
        };
        assert_eq!(features.default_backend, Some(wanted));
    }
}
