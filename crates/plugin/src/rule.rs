//! The conditions of a plugin rule that depend on the request: domain and service.
//!
//! Route conditions are decided when the chain is compiled; these two are looked at per request.

/// A domain of a rule: exact, `*suffix`, `prefix*`, or `*`. Compared in lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainPattern {
    /// `*`
    Any,
    /// `a.com`
    Exact(Box<str>),
    /// `*.a.com`: the part after the star (does not match `a.com` itself).
    Suffix(Box<str>),
    /// `a.*`: the part before the star.
    Prefix(Box<str>),
}

impl DomainPattern {
    /// Reads a pattern as a `matchRules[].domain` entry writes it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lower = text.trim().to_ascii_lowercase();
        if lower == "*" {
            return Self::Any;
        }
        if let Some(suffix) = lower.strip_prefix('*') {
            return Self::Suffix(suffix.into());
        }
        match lower.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(lower.into()),
        }
    }

    /// Whether `host` (port already stripped) is meant.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let (host, lower) = (host.as_bytes(), u8::to_ascii_lowercase);
        let equal = |left: &[u8], right: &str| left.iter().map(lower).eq(right.bytes());
        match self {
            Self::Any => true,
            Self::Exact(name) => equal(host, name),
            Self::Suffix(suffix) => {
                host.len() >= suffix.len() && equal(&host[host.len() - suffix.len()..], suffix)
            }
            Self::Prefix(prefix) => host.len() >= prefix.len() && equal(&host[..prefix.len()], prefix),
        }
    }
}

/// A service of a rule: `fqdn` or `fqdn:port`, held against a cluster name `outbound|port|subset|fqdn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePattern {
    name: Box<str>,
    port: Option<Box<str>>,
}

impl ServicePattern {
    /// Reads a pattern as a `matchRules[].service` entry writes it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self {
                    name: name.into(),
                    port: Some(port.into()),
                }
            }
            _ => Self {
                name: text.into(),
                port: None,
            },
        }
    }

    /// Whether the cluster is meant.
    #[must_use]
    pub fn matches(&self, cluster_name: &str) -> bool {
        let mut fields = cluster_name.split('|');
        let (Some(_), Some(port), Some(_), Some(name), None) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            return false;
        };
        *self.name == *name && self.port.as_deref().is_none_or(|wanted| wanted == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        assert!(DomainPattern::parse("*.A.com").matches("x.a.COM"));
        assert!(!DomainPattern::parse("*.a.com").matches("a.com"));
        assert!(DomainPattern::parse("api.*").matches("api.b.org"));
        assert!(DomainPattern::parse("*").matches("anything"));
        assert!(!DomainPattern::parse("a.com").matches("b.com"));
    }

    #[test]
    fn services() {
        let cluster = "outbound|443||qwen.dns";
        assert!(ServicePattern::parse("qwen.dns").matches(cluster));
        assert!(ServicePattern::parse("qwen.dns:443").matches(cluster));
        assert!(!ServicePattern::parse("qwen.dns:80").matches(cluster));
        assert!(!ServicePattern::parse("qwen.dns").matches("qwen.dns"));
    }
}
