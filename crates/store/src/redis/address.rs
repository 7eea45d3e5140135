//! Which Redis: a URL of the command line, or a service of the configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tollgate_base::Secret;

use crate::place::{Tls, Trust};

/// How long one command may take unless a config says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;

/// Where a Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Port `1` of the configuration's service `0` (`redis.static`).
    Service(String, u16),
    /// One server, or any node of a cluster.
    Servers {
        /// Hosts and ports, at least one.
        nodes: Vec<(String, u16)>,
        /// How they speak TLS, if they do.
        tls: Option<Tls>,
        /// What they are.
        kind: Kind,
    },
}

/// What the servers of an address are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A server; it may turn out to be a node of a cluster.
    Server,
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels that know the master of this name.
    Sentinels(String),
}

/// A Redis and how to use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Where it is.
    pub address: Address,
    /// User of an ACL; empty: the default one.
    pub username: String,
    /// Password; empty: none.
    pub password: Secret,
    /// Number of the database.
    pub database: i64,
    /// Longest that a request waits for one command.
    pub timeout: Duration,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, master) = match self {
            Self::Service(name, port) => return write!(formatter, "{name}:{port}"),
            Self::Servers { nodes, kind, .. } => (nodes, kind),
        };
        for (index, (host, port)) in nodes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(formatter, "{comma}[{host}]:{port}")?,
                false => write!(formatter, "{comma}{host}:{port}")?,
            }
        }
        match master {
            Kind::Sentinels(name) => write!(formatter, "/{name}"),
            Kind::Server | Kind::Cluster => Ok(()),
        }
    }
}

/// Of `--redis`: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]`; `rediss` for TLS; `redis+cluster://` and several hosts
/// with commas between them; `redis+sentinel://…/MASTER[/DB]`. User and password percent-encoded. With TLS
/// `?ca=FILE`, the PEM bundle that is believed in place of the system's roots, and `?verify=off`.
impl FromStr for Settings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{what}; expected redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://…[?ca=FILE], redis+cluster://HOST,HOST… or redis+sentinel://HOST,HOST…/MASTER[/DB]"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        // A password may hold a question mark only as %3F.
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (family, form) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match family {
            "redis" => None,
            "rediss" => Some(Tls::default()),
            _ => return Err(wrong("unknown scheme")),
        };
        let tls = with_query(tls, query).map_err(|what| wrong(&what))?;
        let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (username, password) = credentials.split_once(':').unwrap_or(("", credentials));
        let decoded = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded
                .map(|text| text.into_owned())
                .map_err(|_| wrong("user or password is no text"))
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (kind, database) = match form {
            "" => (Kind::Server, path),
            "cluster" => (Kind::Cluster, path),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(wrong("no name of a master"));
                }
                (Kind::Sentinels(master.to_owned()), database)
            }
            _ => return Err(wrong("unknown scheme")),
        };
        let port = match kind {
            Kind::Sentinels(_) => SENTINEL_PORT,
            Kind::Server | Kind::Cluster => DEFAULT_PORT,
        };
        let nodes: Option<Vec<_>> = hosts.split(',').map(|host| node(host, port)).collect();
        let nodes = nodes.ok_or_else(|| wrong("no host, or a port that is none"))?;
        if nodes.len() > 1 && kind == Kind::Server {
            return Err(wrong("several hosts"));
        }
        let database = match database {
            "" => 0,
            digits => digits.parse().map_err(|_| wrong("the database is no number"))?,
        };
        Ok(Self {
            address: Address::Servers { nodes, tls, kind },
            username: decoded(username)?,
            password: Secret::new(decoded(password)?),
            database,
            timeout: DEFAULT_TIMEOUT,
        })
    }
}

/// What stands behind the question mark.
fn with_query(mut tls: Option<Tls>, query: &str) -> Result<Option<Tls>, String> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some(tls) = &mut tls else {
            return Err("?ca and ?verify need rediss".to_owned());
        };
        tls.trust = match pair.split_once('=') {
            Some(("verify", "off")) => Trust::Anybody,
            Some(("ca", file)) => {
                let file = percent_decode_str(file).decode_utf8_lossy().into_owned();
                let pem = std::fs::read(&file).map_err(|cause| format!("?ca: {file}: {cause}"))?;
                Trust::Bundle(pem.into())
            }
            _ => return Err("?ca=FILE or ?verify=off is all that may stand behind".to_owned()),
        };
    }
    Ok(tls)
}

fn node(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']')?;
            (host, tail.strip_prefix(':').or(tail.is_empty().then_some(""))?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = match port {
        "" => default_port,
        digits => digits.parse().ok().filter(|port| *port != 0)?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let read = |text: &str| text.parse::<Settings>();
        let plain = read("redis://redis.internal").unwrap();
        assert_eq!(plain.address.to_string(), "redis.internal:6379");
        assert_eq!((plain.database, plain.username.as_str()), (0, ""));
        let full = read("rediss://ann:p%40ss@10.0.0.1:7000/3").unwrap();
        assert_eq!(full.password.expose(), "p@ss");
        assert_eq!((full.username.as_str(), full.database), ("ann", 3));
        let tls = |settings: &Settings| match &settings.address {
            Address::Servers { tls, .. } => tls.as_ref().map(|tls| tls.trust.clone()),
            Address::Service(..) => None,
        };
        assert_eq!((tls(&plain), tls(&full)), (None, Some(Trust::System)));
        let unverified = read("rediss+cluster://a,b?verify=off").unwrap();
        assert_eq!(tls(&unverified), Some(Trust::Anybody));
        let own = read(&format!(
            "rediss://a/3?ca={}",
            file!().rsplit('/').next().unwrap()
        ))
        .unwrap_err();
        assert!(own.starts_with("?ca: address.rs: "), "{own}");
        let only_password = read("redis://:secret@a").unwrap();
        assert_eq!(
            (only_password.username.as_str(), only_password.password.expose()),
            ("", "secret")
        );
        let cluster = read("redis+cluster://a:1,b:2,[::1]:3").unwrap();
        assert_eq!(cluster.address.to_string(), "a:1,b:2,[::1]:3");
        let sentinel = read("redis+sentinel://:p@a,b:5/mymaster/2").unwrap();
        assert_eq!(sentinel.address.to_string(), "a:26379,b:5/mymaster");
        assert_eq!(sentinel.database, 2);
        assert!(!format!("{sentinel:?}").contains("\"p\""));
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong_and_nothing_secret() {
        for (text, what) in [
            ("localhost:6379", "no scheme"),
            ("http://a", "unknown scheme"),
            ("redis+x://a", "unknown scheme"),
            ("redis://", "no host"),
            ("redis://a:b", "a port that is none"),
            ("redis://a:0", "a port that is none"),
            ("redis://a,b", "several hosts"),
            ("redis://a/x", "the database is no number"),
            ("redis+sentinel://a", "no name of a master"),
            ("redis://:hunter2@a/x", "the database"),
            ("redis://:hunter2@a?verify=off", "need rediss"),
            ("rediss://:hunter2@a?verify=on", "is all that may stand behind"),
            ("rediss://:hunter2@a?ca=/nowhere/ca.pem", "?ca: /nowhere/ca.pem: "),
        ] {
            let message = text.parse::<Settings>().unwrap_err();
            assert!(message.contains(what), "{text}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
