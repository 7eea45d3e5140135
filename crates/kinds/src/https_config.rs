//! The key `cert` of the ConfigMap `higress-https`: certificates for hosts whose Ingress names none, and who issues
//! them.

use serde::Deserialize;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;
use crate::mcp_bridge::MaskedText;

/// The only issuer that Higress knows.
pub const LETS_ENCRYPT: &str = "letsencrypt";

/// Certificates by host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpsConfig {
    /// Whether certificates are issued; default true.
    pub automatic_https: bool,
    /// Whether a credential steps in for a Secret that an Ingress names but that does not exist; default false.
    pub fallback_for_invalid_secret: bool,
    /// Days before its end that a certificate is renewed, 1 to 89; default 30.
    pub renew_before_days: i32,
    /// Which Secret is for which host; the first that covers the host counts.
    pub credential_config: Vec<Credential>,
    /// Accounts at issuers.
    pub acme_issuer: Vec<AcmeIssuer>,
    /// Free text.
    pub version: String,
}

impl Default for HttpsConfig {
    fn default() -> Self {
        Self {
            automatic_https: true,
            fallback_for_invalid_secret: false,
            renew_before_days: 30,
            credential_config: Vec::new(),
            acme_issuer: Vec::new(),
            version: String::new(),
        }
    }
}

/// A Secret and the hosts it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Credential {
    /// Hosts, possibly `*.example.com`.
    pub domains: Vec<String>,
    /// `letsencrypt`, or empty for a Secret that somebody else fills.
    pub tls_issuer: String,
    /// `[namespace/]name`; without a namespace, the system namespace.
    pub tls_secret: String,
    /// Secret with a CA for client certificates.
    #[serde(rename = "cacertSecret")]
    pub ca_cert_secret: String,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct AcmeIssuer {
    /// `letsencrypt`.
    pub name: String,
    /// Contact.
    pub email: String,
    /// Key id, for other issuers.
    pub ak: MaskedText,
    /// Key, for other issuers.
    pub sk: MaskedText,
}

impl HttpsConfig {
    /// Reads the key `cert`; `None` when it is missing or wrong, since the whole document is then ignored.
    pub fn read(config_map: &ConfigMap) -> (Option<Self>, Vec<Diagnostic>) {
        let Some(mut text) = Embedded::new(config_map, "cert") else {
            return (None, Vec::new());
        };
        let config: Option<Self> = text.section("");
        if let Some((field, message)) = config.as_ref().and_then(Self::fault) {
            text.report(&field, &format!("{message}; the whole document is ignored"));
        }
        let usable = config.filter(|_| text.diagnostics.is_empty());
        (usable, text.diagnostics)
    }

    fn fault(&self) -> Option<(String, String)> {
        let wrong = |field: String, message: &str| Some((field, message.to_owned()));
        if self.automatic_https && self.acme_issuer.is_empty() {
            return wrong("acmeIssuer".to_owned(), "automatic HTTPS needs an issuer");
        }
        for (index, issuer) in self.acme_issuer.iter().enumerate() {
            if issuer.name != LETS_ENCRYPT {
                return wrong(format!("acmeIssuer[{index}].name"), "must be letsencrypt");
            }
            if self.automatic_https && !is_email(&issuer.email) {
                return wrong(format!("acmeIssuer[{index}].email"), "must be an e-mail address");
            }
        }
        for (index, credential) in self.credential_config.iter().enumerate() {
            let field = |name: &str| format!("credentialConfig[{index}].{name}");
            if credential.domains.is_empty() {
                return wrong(field("domains"), "must not be empty");
            }
            if credential.tls_secret.is_empty() || credential.tls_secret.matches('/').count() > 1 {
                return wrong(field("tlsSecret"), "must be a name or namespace/name");
            }
            match credential.tls_issuer.as_str() {
                "" => {}
                LETS_ENCRYPT if credential.domains.len() == 1 => {}
                LETS_ENCRYPT => return wrong(field("domains"), "letsencrypt takes exactly one host"),
                _ => return wrong(field("tlsIssuer"), "must be letsencrypt or empty"),
            }
        }
        if !(1..90).contains(&self.renew_before_days) {
            return wrong("renewBeforeDays".to_owned(), "must be from 1 to 89");
        }
        None
    }

    /// The Secret for a host, as `[namespace/]name`: of the first credential with a domain that covers the host.
    pub fn secret_for(&self, host: &str) -> Option<&str> {
        let covers = |domain: &String| is_subset(&host.to_ascii_lowercase(), &domain.to_ascii_lowercase());
        let credential = self
            .credential_config
            .iter()
            .find(|credential| credential.domains.iter().any(covers))?;
        Some(&credential.tls_secret)
    }
}

/// Whether every name that `host` stands for is one that `domain` stands for; both may begin with `*`.
fn is_subset(host: &str, domain: &str) -> bool {
    match domain.strip_prefix('*') {
        Some(suffix) => host.strip_prefix('*').unwrap_or(host).ends_with(suffix),
        None => host == domain,
    }
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.contains('.') && !host.contains('@') && !text.contains(char::is_whitespace)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_names_below_it_and_narrower_wildcards() {
        for (host, domain) in [
            ("a.foo.com", "*.foo.com"),
            ("a.b.foo.com", "*.foo.com"),
            ("*.b.foo.com", "*.foo.com"),
            ("*.foo.com", "*.foo.com"),
            ("foo.com", "foo.com"),
            ("anything", "*"),
            ("*", "*"),
        ] {
            assert!(is_subset(host, domain), "{host} {domain}");
        }
        for (host, domain) in [
            ("foo.com", "*.foo.com"),
            ("*.foo.com", "a.foo.com"),
            ("*", "*.foo.com"),
            ("barfoo.com", "foo.com"),
        ] {
            assert!(!is_subset(host, domain), "{host} {domain}");
        }
    }
}
