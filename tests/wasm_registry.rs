//! Modules out of a real registry (`wasm/registry`): both image layouts, credentials, pins, mirrors, and where the
//! gateway does not go.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tollgate_modules::sha256_hex;
use tollgate_testkit::client::{self, get};
use tollgate_testkit::process::{Gateway, Lines, Start};

use crate::support::{bridge, documents, gateway, ingress, mock, module_version, newer_module, verbose_log};
use crate::wasm::answering;
use crate::wasm_languages::built;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// `robot:s3cret`, as HTTP says it.
const BASIC: &str = "Basic cm9ib3Q6czNjcmV0";

/// A running registry; killed when dropped.
struct Registry {
    child: Child,
    address: SocketAddr,
    lines: Lines,
}

impl Registry {
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(built("registry"));
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, _) = Lines::follow(child.stdout.take().unwrap());
        let address = lines.wait_for(|line| line.starts_with("127.0.0.1:")).unwrap();
        Self {
            child,
            address: address.parse().unwrap(),
            lines,
        }
    }

    /// What was asked of it, but for what the test itself pushed: `METHOD PATH USER`.
    fn asked(&self) -> Vec<String> {
        let lines = self.lines.all();
        lines
            .into_iter()
            .filter(|line| line.starts_with("GET "))
            .collect()
    }

    async fn put(&self, path: &str, media_type: &str, body: Vec<u8>) {
        let method = if path.contains("/blobs/") { "POST" } else { "PUT" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(CONTENT_TYPE, media_type)
            .header(AUTHORIZATION, BASIC);
        let answer = client::send(self.address, request.body(Bytes::from(body)).unwrap()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status.as_u16(), 201, "{path}: {}", answer.text());
    }

    async fn blob(&self, repository: &str, media_type: &str, body: Vec<u8>) -> Value {
        let (digest, size) = (format!("sha256:{}", sha256_hex(&body)), body.len());
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.put(&path, "application/octet-stream", body).await;
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// Pushes an image `repository:tag` whose last layer holds the module; the manifest's digest, hexadecimal.
    async fn push(&self, layout: &str, repository: &str, tag: &str, module: &[u8]) -> String {
        let (config_type, layer_type) = match layout {
            DOCKER => (DOCKER_CONFIG, DOCKER_LAYER),
            _ => (OCI_CONFIG, OCI_LAYER),
        };
        let config = self.blob(repository, config_type, b"{}".to_vec()).await;
        let mut layers = Vec::new();
        if layout == OCI {
            let doc = "application/vnd.module.wasm.doc.v1+markdown";
            layers.push(self.blob(repository, doc, b"# A plugin".to_vec()).await);
            let spec = "application/vnd.module.wasm.spec.v1+yaml";
            layers.push(self.blob(repository, spec, b"apiVersion: 1.0.0".to_vec()).await);
        }
        layers.push(self.blob(repository, layer_type, archive(module)).await);
        let manifest = json!({"schemaVersion": 2, "mediaType": layout, "config": config, "layers": layers});
        let manifest = manifest.to_string().into_bytes();
        let digest = sha256_hex(&manifest);
        self.put(&format!("/v2/{repository}/manifests/{tag}"), layout, manifest)
            .await;
        digest
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What `docker build FROM scratch` and Higress's own pipeline make of one file.
fn archive(module: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(module.len().try_into().unwrap());
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    archive.append_data(&mut header, "plugin.wasm", module).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

fn module(text: &str) -> Vec<u8> {
    wat::parse_str(answering(text)).unwrap()
}

/// The plugin with this url and more of its spec, indented by two.
fn plugin(url: &str, more: &str) -> String {
    format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: pulled\n  namespace: \
         higress-system\nspec:\n  url: {url}\n{more}"
    )
}

/// A Secret with the credentials of one registry.
fn secret(name: &str, registry: SocketAddr, password: &str) -> String {
    let config = json!({"auths": {registry.to_string(): {"username": "robot", "password": password}}});
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: higress-system\n\
         type: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
    )
}

fn scene(upstream: SocketAddr, parts: &[String]) -> String {
    let mut all = vec![
        bridge(&[("mock", upstream)]),
        ingress("api", "/", "mock.static", &[]),
        verbose_log(),
    ];
    all.extend_from_slice(parts);
    documents(&all)
}

async fn says(gateway: &Gateway) -> String {
    client::send(gateway.http, get("/")).await.unwrap().text()
}

fn start(documents: &str) -> Start {
    gateway().file("scene.yaml", documents).unwrap()
}

#[tokio::test]
async fn both_layouts_with_credentials_and_pins_and_what_does_not_match_is_refused() {
    let registry = Registry::start(&["-login", "robot:s3cret"]);
    let host = registry.address;
    let digest = registry
        .push(OCI, "plugins/p", "1.0.0", &module("from higress"))
        .await;
    let other = registry
        .push(DOCKER, "plugins/p", "2.0.0", &module("from docker"))
        .await;
    let mock = mock(tollgate_mock_llm::Options::default());
    let documents = |url: &str, more: &str| {
        let more = format!("  imagePullSecret: pull\n{more}");
        let secrets = [secret("pull", host, "s3cret"), secret("wrong", host, "gu3ssed")];
        scene(mock.addr(), &[secrets.join("\n---\n"), plugin(url, &more)])
    };
    let gateway = start(&documents(&format!("oci://{host}/plugins/p:1.0.0"), ""))
        .go()
        .unwrap();
    assert_eq!(says(&gateway).await, "from higress");
    assert!(registry.asked().iter().any(|line| line.ends_with(" robot")));

    let take = async |url: String, more: &str| {
        let before = module_version(&gateway).await;
        gateway.write("scene.yaml", &documents(&url, more)).unwrap();
        newer_module(&gateway, before).await;
        says(&gateway).await
    };
    // Without a scheme it is an image too.
    assert_eq!(take(format!("{host}/plugins/p:2.0.0"), "").await, "from docker");
    let pinned = format!("oci://{host}/plugins/p@sha256:{digest}");
    assert_eq!(take(pinned.clone(), "").await, "from higress");
    let checked = format!("  sha256: {other}\n");
    assert_eq!(
        take(format!("oci://{host}/plugins/p:2.0.0"), &checked).await,
        "from docker"
    );

    // A version that cannot be had leaves the one before it, and is told.
    let refuse = |url: &str, more: &str, expected: &str| {
        gateway.write("scene.yaml", &documents(url, more)).unwrap();
        let told = |line: &str| line.contains(expected) && line.contains("the version before it stays");
        gateway.errors.wait_for(told).unwrap();
    };
    refuse(&pinned, &checked, &format!("the image has the digest {digest}"));
    // One that is on disk is still for those alone who may have it.
    let policy = "  imagePullPolicy: IfNotPresent\n";
    let wrong = documents(&format!("oci://{host}/plugins/p:1.0.0"), policy)
        .replace("imagePullSecret: pull", "imagePullSecret: wrong");
    gateway.write("scene.yaml", &wrong).unwrap();
    let refused = format!("{host} refuses the credentials");
    gateway.errors.wait_for(|line| line.contains(&refused)).unwrap();
    let unknown = format!("oci://{host}/plugins/p@sha256:{}", "0".repeat(64));
    refuse(&unknown, "", "404");
    assert_eq!(says(&gateway).await, "from docker");
    let said = gateway.errors.all().join("\n");
    assert!(
        !said.contains("s3cret") && !said.contains("gu3ssed"),
        "a password was told"
    );
}

#[tokio::test]
async fn credentials_go_to_their_registry_only_and_redirects_to_no_private_address() {
    let (inner, open) = (Registry::start(&[]), Registry::start(&[]));
    let target = format!("http://{}", inner.address);
    let redirecting = Registry::start(&["-login", "robot:s3cret", "-redirect", &target]);
    let bytes = module("pulled");
    inner.push(OCI, "p", "1", &bytes).await;
    open.push(OCI, "p", "1", &bytes).await;
    redirecting.push(OCI, "p", "1", &bytes).await;
    let mock = mock(tollgate_mock_llm::Options::default());
    let documents = |registry: SocketAddr| {
        let plugin = plugin(&format!("oci://{registry}/p:1"), "  imagePullSecret: pull\n");
        scene(
            mock.addr(),
            &[secret("pull", redirecting.address, "s3cret"), plugin],
        )
    };
    // The Secret is for another registry than the one that is asked.
    let gateway = start(&documents(open.address)).go().unwrap();
    assert_eq!(says(&gateway).await, "pulled");
    assert!(
        open.asked().iter().all(|line| line.ends_with(" -")),
        "{:?}",
        open.asked()
    );

    gateway
        .write("scene.yaml", &documents(redirecting.address))
        .unwrap();
    let told = |line: &str| line.contains("is not public") && line.contains("the version before it stays");
    gateway.errors.wait_for(told).unwrap();
    assert!(inner.asked().is_empty(), "{:?}", inner.asked());
    assert!(
        redirecting
            .asked()
            .iter()
            .any(|line| line.contains("/blobs/") && line.ends_with(" robot"))
    );
    assert_eq!(says(&gateway).await, "pulled");
}

#[tokio::test]
async fn a_mirror_serves_what_begins_with_its_name() {
    let registry = Registry::start(&[]);
    registry
        .push(DOCKER, "mirrored/key-check", "1.0.0", &module("from the mirror"))
        .await;
    let mock = mock(tollgate_mock_llm::Options::default());
    let documents = scene(
        mock.addr(),
        &[plugin("oci://registry.example/plugins/key-check:1.0.0", "")],
    );
    let map = format!("registry.example/plugins={}/mirrored", registry.address);
    let gateway = start(&documents).option("--wasm-mirror", map).go().unwrap();
    assert_eq!(says(&gateway).await, "from the mirror");
    let wrong = start(&documents)
        .option("--wasm-mirror", "nowhere")
        .go()
        .unwrap_err();
    assert!(wrong.contains("REGISTRY[/PATH]=REGISTRY[/PATH]"), "{wrong}");
}
