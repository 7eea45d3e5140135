//! `--resolve HOST:PORT:ADDR[:PORT]`: connect elsewhere, keep name, SNI and certificate check.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One override. Parsed from `HOST:PORT:ADDR[:PORT]`; an IPv6 ADDR may stand in brackets and must when a port follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Lower-case name, without a trailing dot.
    pub host: String,
    /// Port as configured.
    pub port: u16,
    /// Where to connect instead.
    pub address: SocketAddr,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("--resolve {text:?}: {what}; expected HOST:PORT:ADDR[:PORT]");
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(port_text), Some(target)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("too few parts"));
        };
        let name = host.trim_end_matches('.');
        if name.is_empty() {
            return Err(wrong("the host is empty"));
        }
        let port = parse_port(port_text).ok_or_else(|| wrong(&format!("{port_text:?} is not a port")))?;
        let address = parse_target(target, port)
            .ok_or_else(|| wrong(&format!("{target:?} is not an address with an optional port")))?;
        Ok(Self {
            host: name.to_ascii_lowercase(),
            port,
            address,
        })
    }
}

/// 1 to 65535, digits only.
fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

fn parse_target(text: &str, default_port: u16) -> Option<SocketAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, tail) = rest.split_once(']')?;
        let ip = IpAddr::V6(address.parse().ok()?);
        let port = match tail.strip_prefix(':') {
            Some(port_text) => parse_port(port_text)?,
            None if tail.is_empty() => default_port,
            None => return None,
        };
        return Some(SocketAddr::new(ip, port));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, default_port));
    }
    let (address, port_text) = text.rsplit_once(':')?;
    let ip = IpAddr::V4(address.parse().ok()?);
    Some(SocketAddr::new(ip, parse_port(port_text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(text: &str) -> String {
        text.parse::<Override>().unwrap().address.to_string()
    }

    #[test]
    fn the_port_is_kept_unless_another_is_given() {
        assert_eq!(address_of("a.example:443:127.0.0.1"), "127.0.0.1:443");
        assert_eq!(address_of("a.example:443:127.0.0.1:8443"), "127.0.0.1:8443");
        assert_eq!(address_of("a.example:443:[::1]"), "[::1]:443");
        assert_eq!(address_of("a.example:443:[::1]:8443"), "[::1]:8443");
        assert_eq!(address_of("a.example:443:::1"), "[::1]:443");
        let parsed: Override = "A.Example.:443:127.0.0.1".parse().unwrap();
        assert_eq!(parsed.host, "a.example");
    }

    #[test]
    fn a_wrong_one_says_what_is_wrong() {
        for (text, what) in [
            ("a.example", "too few parts"),
            ("a.example:443", "too few parts"),
            (":443:127.0.0.1", "the host is empty"),
            ("a.example:http:127.0.0.1", "\"http\" is not a port"),
            ("a.example:0:127.0.0.1", "\"0\" is not a port"),
            ("a.example:+443:127.0.0.1", "\"+443\" is not a port"),
            ("a.example:443:b.example", "\"b.example\" is not an address"),
            ("a.example:443:127.0.0.1:0", "\"127.0.0.1:0\" is not an address"),
            ("a.example:443:127.0.0.1:99999", "is not an address"),
            ("a.example:443:[::1]8443", "is not an address"),
            ("a.example:443:", "\"\" is not an address"),
        ] {
            let message = text.parse::<Override>().unwrap_err();
            assert!(message.contains(what), "{text}: {message}");
            assert!(message.contains("HOST:PORT:ADDR[:PORT]"), "{message}");
        }
    }
}
