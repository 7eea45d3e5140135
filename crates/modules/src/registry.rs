//! A module out of a registry: challenge and token, manifest, layer, each held against its digest (wasm-host spec §8,
//! OCI distribution).

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode, Uri};
use serde::Deserialize;
use tollgate_upstream::{Reach, Shared};

use crate::ask::{Ask, Failure, ask};
use crate::digest::sha256_hex;
use crate::login::{Logins, may_be_told};
use crate::reference::Image;
use crate::unpack;

/// Largest manifest and token in bytes.
const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;
const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// A module and the digest of the manifest that led to it.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) module: Vec<u8>,
    pub(crate) manifest_digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Pulls the module of `image`; `sha256` (hexadecimal, may be empty) is held against the manifest's digest.
///
/// # Errors
/// What went wrong, in words for a diagnostic; never a credential.
pub(crate) async fn pull(
    shared: &Shared,
    image: &Image,
    logins: &Logins,
    sha256: &str,
    limit: usize,
) -> Result<Pulled, String> {
    let mut session = Session {
        shared,
        image,
        logins,
        scheme: "https",
        authorization: None,
    };
    let (manifest, manifest_digest) = session.manifest(&image.version, sha256).await?;
    let manifest = match manifest.manifests.first().filter(|_| manifest.layers.is_empty()) {
        Some(first) => session.manifest(&first.digest.clone(), "").await?.0,
        None => manifest,
    };
    let (layer, is_raw) = choose_layer(&manifest)?;
    if usize::try_from(layer.size).unwrap_or(usize::MAX) > limit {
        return Err(unpack::too_large(limit));
    }
    let path = format!("blobs/{}", layer.digest);
    let response = session.get(&path, "", limit).await?;
    let blob = found(response, &format!("layer {}", layer.digest))?;
    check(&blob, &layer.digest, "layer")?;
    let module = match is_raw {
        true if unpack::is_module(&blob) => blob.to_vec(),
        true => return Err("the layer is no Wasm module".to_owned()),
        false => tokio::task::spawn_blocking(move || unpack::from_layer(&blob, limit))
            .await
            .map_err(|cause| cause.to_string())??,
    };
    Ok(Pulled {
        module,
        manifest_digest,
    })
}

/// The layer that holds the module, and whether it is the module itself.
fn choose_layer(manifest: &Manifest) -> Result<(&Descriptor, bool), String> {
    let last = manifest.layers.last().ok_or("the image has no layers")?;
    if manifest.media_type == DOCKER_MANIFEST && last.media_type != DOCKER_LAYER {
        return Err(format!(
            "invalid media type {} (expect {DOCKER_LAYER})",
            last.media_type
        ));
    }
    if [DOCKER_LAYER, OCI_LAYER].contains(&last.media_type.as_str()) {
        return Ok((last, false));
    }
    let mut raw = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == WASM_LAYER);
    match (raw.next(), raw.next()) {
        (Some(only), None) => Ok((only, true)),
        (Some(_), Some(_)) => Err("the image has several Wasm layers".to_owned()),
        (None, _) => Err(format!(
            "the image has no layer with a module: the last is {}",
            last.media_type
        )),
    }
}

struct Session<'a> {
    shared: &'a Shared,
    image: &'a Image,
    logins: &'a Logins,
    scheme: &'static str,
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    async fn manifest(&mut self, version: &str, sha256: &str) -> Result<(Manifest, String), String> {
        let response = self
            .get(&format!("manifests/{version}"), ACCEPT_MANIFEST, MANIFEST_LIMIT)
            .await?;
        let bytes = found(
            response,
            &format!(
                "image {}/{}:{version}",
                self.image.registry, self.image.repository
            ),
        )?;
        let digest = sha256_hex(&bytes);
        if version.starts_with("sha256:") {
            check(&bytes, version, "manifest")?;
        }
        if !sha256.is_empty() && !sha256.eq_ignore_ascii_case(&digest) {
            return Err(format!(
                "the image has the digest {digest}, which is not the sha256 that is wanted: {sha256}"
            ));
        }
        let manifest = serde_json::from_slice(&bytes)
            .map_err(|cause| format!("the manifest cannot be read: {cause}"))?;
        Ok((manifest, digest))
    }

    /// One file of the repository; a challenge is answered once.
    async fn get(
        &mut self,
        path: &str,
        accept: &'static str,
        limit: usize,
    ) -> Result<Response<Bytes>, String> {
        let first = self.try_get(path, accept, limit).await;
        let response = match first {
            Err(Failure::Unreachable(_)) if self.scheme == "https" && self.image.is_local() => {
                self.scheme = "http";
                self.try_get(path, accept, limit)
                    .await
                    .map_err(Failure::into_text)?
            }
            other => other.map_err(Failure::into_text)?,
        };
        if response.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return Ok(response);
        }
        self.authorization = Some(self.answer_challenge(&response).await?);
        let second = self
            .try_get(path, accept, limit)
            .await
            .map_err(Failure::into_text)?;
        match second.status() {
            StatusCode::UNAUTHORIZED => Err(self.refusal()),
            _ => Ok(second),
        }
    }

    /// Words for a registry that does not let us in.
    fn refusal(&self) -> String {
        let host = self.image.host();
        match self.logins.basic(host) {
            Some(_) => format!("{host} refuses the credentials"),
            None => format!("{host} wants credentials, and imagePullSecret has none for it"),
        }
    }

    async fn try_get(
        &self,
        path: &str,
        accept: &'static str,
        limit: usize,
    ) -> Result<Response<Bytes>, Failure> {
        let (scheme, host, repository) = (self.scheme, self.image.host(), &self.image.repository);
        let text = format!("{scheme}://{host}/v2/{repository}/{path}");
        let uri = text
            .parse()
            .map_err(|cause| Failure::Other(format!("{text}: {cause}")))?;
        let what = Ask {
            uri,
            accept,
            authorization: self.authorization.clone(),
            reach: Reach::Anywhere,
            limit,
        };
        ask(self.shared, &what).await
    }

    async fn answer_challenge(&self, response: &Response<Bytes>) -> Result<HeaderValue, String> {
        let host = self.image.host();
        let refused = || self.refusal();
        let offers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = offers
            .iter()
            .find_map(|value| Challenge::parse(value.to_str().ok()?));
        match challenge {
            Some(Challenge::Basic) => {
                let basic = self.logins.basic(host).ok_or_else(refused)?;
                sensitive(&format!("Basic {}", basic.expose()))
            }
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let token = self.token(&realm, &service, &scope).await?;
                sensitive(&format!("Bearer {token}"))
            }
            None => Err(refused()),
        }
    }

    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, String> {
        let host = self.image.host();
        let wrong = |what: &str| format!("{host} names the token service {realm:?}: {what}");
        let mut text = realm.to_owned();
        let pull = format!("repository:{}:pull", self.image.repository);
        let scope = if scope.is_empty() { &pull } else { scope };
        for (name, value) in [("service", service), ("scope", scope)] {
            if !value.is_empty() {
                text.push(if text.contains('?') { '&' } else { '?' });
                text.push_str(&format!("{name}={}", escaped(value)));
            }
        }
        let uri: Uri = text.parse().map_err(|_| wrong("no URL"))?;
        let server = uri.authority().map_or("", |authority| authority.as_str());
        let is_own = server == host;
        if uri.scheme_str() != Some("https") && !self.image.is_local() {
            return Err(wrong("not https"));
        }
        let login = self.logins.basic(host).filter(|_| may_be_told(host, server));
        let what = Ask {
            authorization: login
                .map(|login| sensitive(&format!("Basic {}", login.expose())))
                .transpose()?,
            uri: uri.clone(),
            accept: "application/json",
            reach: if is_own || self.image.is_local() {
                Reach::Anywhere
            } else {
                Reach::Public
            },
            limit: MANIFEST_LIMIT,
        };
        let response = ask(self.shared, &what).await.map_err(Failure::into_text)?;
        let bytes = found(response, &format!("token of {server}"))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong("it gives no token"))?;
        [token.token, token.access_token]
            .into_iter()
            .find(|text| !text.is_empty())
            .ok_or_else(|| wrong("it gives no token"))
    }
}

enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |name: &str| {
            let start = rest.find(&format!("{name}=\""))? + name.len() + 2;
            rest.get(start..)?.split('"').next().map(str::to_owned)
        };
        Some(Self::Bearer {
            realm: value("realm")?,
            service: value("service").unwrap_or_default(),
            scope: value("scope").unwrap_or_default(),
        })
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| "the credentials are no header value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A query value; all but letters, digits and `-._~` is escaped.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn found(response: Response<Bytes>, what: &str) -> Result<Bytes, String> {
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        status => Err(format!("{what}: the server answers {status}")),
    }
}

fn check(bytes: &[u8], digest: &str, what: &str) -> Result<(), String> {
    let Some(wanted) = digest.strip_prefix("sha256:") else {
        return Err(format!("{what} {digest}: only sha256 digests are known"));
    };
    match wanted.eq_ignore_ascii_case(&sha256_hex(bytes)) {
        true => Ok(()),
        false => Err(format!("the {what} does not have the digest {digest}")),
    }
}
