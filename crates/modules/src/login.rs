//! Credentials of registries: what a `kubernetes.io/dockerconfigjson` Secret holds, and whom they may be told.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tollgate_base::Secret;

/// Logins by registry host.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Logins(Vec<(String, Secret)>);

impl fmt::Debug for Logins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self.0.iter().map(|(host, _)| host.as_str()).collect();
        write!(formatter, "Logins({hosts:?})")
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Logins {
    /// Reads a Secret's `.dockerconfigjson`.
    ///
    /// # Errors
    /// What is wrong with it; never its content.
    pub fn from_docker_config(json: &[u8]) -> Result<Self, String> {
        let config: DockerConfig = serde_json::from_slice(json).map_err(|cause| {
            format!(
                ".dockerconfigjson, line {} column {}",
                cause.line(),
                cause.column()
            )
        })?;
        let mut logins = Vec::new();
        for (server, entry) in config.auths {
            let named = server.split_once("://").map_or(&*server, |parts| parts.1);
            let host = named.split('/').next().unwrap_or_default().to_ascii_lowercase();
            let basic = match entry.auth.is_empty() {
                true => BASE64_STANDARD.encode(format!("{}:{}", entry.username, entry.password)),
                false if BASE64_STANDARD.decode(&entry.auth).is_ok() => entry.auth,
                false => return Err(format!(".dockerconfigjson: auth of {host} is not base64")),
            };
            logins.push((host, Secret::new(basic)));
        }
        logins.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(Self(logins))
    }

    /// What `Authorization: Basic` carries for `host`.
    pub(crate) fn basic(&self, host: &str) -> Option<&Secret> {
        let wanted = host.to_ascii_lowercase();
        let found = self
            .0
            .iter()
            .find(|login| login.0 == wanted || is_docker_hub(&login.0, &wanted));
        found.map(|login| &login.1)
    }
}

/// Docker's own registry has three names.
fn is_docker_hub(left: &str, right: &str) -> bool {
    let is_one = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    is_one(left) && is_one(right)
}

/// Whether a login for `registry` may be told to `server`, which the registry named as its token service: the same
/// host, or one of the same domain.
pub(crate) fn may_be_told(registry: &str, server: &str) -> bool {
    let bare = |host: &str| {
        host.rsplit_once(':')
            .map_or(host, |parts| parts.0)
            .to_ascii_lowercase()
    };
    let (registry, server) = (bare(registry), bare(server));
    if registry == server {
        return true;
    }
    let is_address = |host: &str| host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[');
    if is_address(&registry) || is_address(&server) {
        return false;
    }
    domain(&registry).is_some_and(|own| domain(&server) == Some(own))
}

/// The part of a name that its owner has registered: two labels, three below what countries give out (`com.cn`, `co.uk`).
fn domain(host: &str) -> Option<&str> {
    let mut labels = host.rsplit('.');
    let (top, second) = (labels.next()?, labels.next()?);
    let is_shared = top.len() == 2 && second.len() <= 3;
    let own = match is_shared {
        true => top.len() + second.len() + labels.next()?.len() + 2,
        false => top.len() + second.len() + 1,
    };
    host.get(host.len() - own..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_by_host() {
        let json = br#"{"auths":{"https://R.example/v1/":{"auth":"dTpw"},"s.example:5000":{"username":"a","password":"b"},
            "https://index.docker.io/v1/":{"auth":"aDpo"}}}"#;
        let logins = Logins::from_docker_config(json).unwrap();
        let basic = |host: &str| logins.basic(host).map(Secret::expose);
        assert_eq!(basic("r.example"), Some("dTpw"));
        assert_eq!(basic("s.example:5000"), Some("YTpi"));
        assert_eq!(basic("registry-1.docker.io"), Some("aDpo"));
        assert_eq!(basic("t.example"), None);
        assert!(!format!("{logins:?}").contains("dTpw"));
    }

    #[test]
    fn a_bad_secret_is_told_without_its_content() {
        let fault = Logins::from_docker_config(b"{\"auths\":{\"h\":{\"auth\":\"s3cret!\"}}}").unwrap_err();
        assert_eq!(fault, ".dockerconfigjson: auth of h is not base64");
        let fault = Logins::from_docker_config(b"s3cret").unwrap_err();
        assert!(fault.contains("line 1") && !fault.contains("s3cret"), "{fault}");
    }

    #[test]
    fn a_login_stays_in_its_domain() {
        assert!(may_be_told(
            "registry.cn.aliyuncs.com",
            "dockerauth.cn.aliyuncs.com"
        ));
        assert!(may_be_told("registry-1.docker.io", "auth.docker.io"));
        assert!(may_be_told("127.0.0.1:5000", "127.0.0.1:5001"));
        assert!(!may_be_told("r.example", "r.example.evil.net"));
        assert!(!may_be_told("10.0.0.1", "11.0.0.1"));
        assert!(!may_be_told("localhost", "evil"));
        // Below what many share, two labels are nobody's.
        for shared in ["com.cn", "co.uk", "net.au"] {
            let host = |name: &str| format!("{name}.{shared}");
            assert!(may_be_told(&host("r.example"), &host("auth.example")), "{shared}");
            assert!(!may_be_told(&host("r.example"), &host("auth.evil")), "{shared}");
            assert!(!may_be_told(&host("example"), &host("evil")), "{shared}");
        }
        assert!(may_be_told("example.io", "auth.example.io"));
        assert!(!may_be_told("io", "example.io"));
    }
}
