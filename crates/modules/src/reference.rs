//! What a module's `url` says: a file, a web address, or an image of a registry (wasm-host spec §8).

use std::path::PathBuf;

use http::Uri;

/// Where a module is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Reference {
    /// `file://PATH`.
    File(PathBuf),
    /// `http://…` or `https://…`.
    Web(Uri),
    /// `oci://HOST/REPOSITORY:TAG`, or without a scheme.
    Image(Image),
}

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Image {
    /// Host and perhaps port.
    pub(crate) registry: String,
    /// Path of the repository.
    pub(crate) repository: String,
    /// Tag, or digest `sha256:…`.
    pub(crate) version: String,
}

/// Docker's own registry answers under another name than images are called by.
const DOCKER_HUB: [&str; 2] = ["docker.io", "index.docker.io"];

impl Reference {
    /// Reads a URL as a WasmPlugin writes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(("file", _)) => Err(format!("{url} names no absolute path")),
            Some(("http" | "https", _)) => match url.parse::<Uri>() {
                Ok(uri) => Ok(Self::Web(uri)),
                Err(cause) => Err(format!("{url} is no URL: {cause}")),
            },
            Some(("oci", image)) => Image::parse(image).map(Self::Image),
            None => Image::parse(url).map(Self::Image),
            Some((scheme, _)) => Err(format!(
                "unsupported Wasm module downloading URL scheme: {scheme}"
            )),
        }
    }
}

impl Image {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("image reference {text:?}: {what}"));
        let Some((registry, rest)) = text.split_once('/') else {
            return wrong("no registry in front of the repository");
        };
        let (repository, version) = match rest.split_once('@') {
            Some((named, digest)) => (named.split_once(':').map_or(named, |parts| parts.0), digest),
            None => rest.rsplit_once(':').unwrap_or((rest, "latest")),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if registry.is_empty() || !registry.bytes().all(is_host) {
            return wrong("the registry is no host");
        }
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let has_gap = repository
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
        if has_gap || !repository.bytes().all(is_path) {
            return wrong("the repository is no path");
        }
        let is_digest = version
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let is_tag = version.len() <= 128
            && version.bytes().enumerate().all(|(position, byte)| {
                byte.is_ascii_alphanumeric() || byte == b'_' || (position > 0 && b".-".contains(&byte))
            });
        if version.is_empty() || !(is_digest || is_tag) {
            return wrong("it ends in neither a tag nor a sha256 digest");
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            version: version.to_owned(),
        })
    }

    /// Host that is asked.
    pub(crate) fn host(&self) -> &str {
        if DOCKER_HUB.contains(&self.registry.as_str()) {
            return "registry-1.docker.io";
        }
        &self.registry
    }

    /// Whether the registry is this machine, where plain HTTP is no danger.
    pub(crate) fn is_local(&self) -> bool {
        let bare = match self.registry.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or(rest, |parts| parts.0),
            None => self
                .registry
                .split_once(':')
                .map_or(&*self.registry, |parts| parts.0),
        };
        bare == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Whether the version names the content itself.
    pub(crate) fn is_pinned(&self) -> bool {
        self.version.starts_with("sha256:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(url: &str) -> (String, String, String) {
        match Reference::parse(url) {
            Ok(Reference::Image(image)) => (image.registry, image.repository, image.version),
            other => panic!("{url}: {other:?}"),
        }
    }

    fn parts(registry: &str, repository: &str, version: &str) -> (String, String, String) {
        (registry.into(), repository.into(), version.into())
    }

    #[test]
    fn images() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (url, expected) in [
            (
                "oci://r.example/plugins/key-auth:1.0.0",
                parts("r.example", "plugins/key-auth", "1.0.0"),
            ),
            ("r.example/p", parts("r.example", "p", "latest")),
            (
                "oci://127.0.0.1:5000/a/b:v1",
                parts("127.0.0.1:5000", "a/b", "v1"),
            ),
            (
                &format!("oci://r.example/p:1@{digest}"),
                parts("r.example", "p", &digest),
            ),
            (
                &format!("oci://r.example/p@{digest}"),
                parts("r.example", "p", &digest),
            ),
        ] {
            assert_eq!(image(url), expected);
        }
        let local = |url: &str| match Reference::parse(url) {
            Ok(Reference::Image(image)) => image.is_local(),
            other => panic!("{url}: {other:?}"),
        };
        assert!(local("localhost:5000/p") && local("[::1]:5000/p") && local("127.0.0.9/p"));
        assert!(!local("localhost.example/p") && !local("10.0.0.1/p"));
    }

    #[test]
    fn the_others_and_what_is_none() {
        assert_eq!(
            Reference::parse("file:///a/b.wasm"),
            Ok(Reference::File("/a/b.wasm".into()))
        );
        assert!(matches!(Reference::parse("https://a/b?c"), Ok(Reference::Web(_))));
        for (url, expected) in [
            ("s3://a/b", "unsupported Wasm module downloading URL scheme: s3"),
            ("file://a", "absolute"),
            ("oci://nothing", "no registry"),
            ("oci://r.example/a/../b:1", "no path"),
            ("oci://r.example/a b:1", "no path"),
            ("oci://user@r.example/a:1", "no host"),
            ("oci://r.example/a:x/y", "neither"),
            ("oci://r.example/a@sha256:12", "neither"),
            ("oci://r.example/a:", "neither"),
            ("https://", "no URL"),
        ] {
            let fault = Reference::parse(url).unwrap_err();
            assert!(fault.contains(expected), "{url}: {fault}");
        }
    }
}
