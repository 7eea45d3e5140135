//! Images of a registry.

use super::server::{Answer, Server, fetcher, fetcher_resolving};
use crate::unpack::tests::{MODULE, archive, gzip};
use crate::{Fetched, Logins, Mirror, Options, PullPolicy, Wanted, sha256_hex};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

fn wanted(server: &Server, name: &str) -> Wanted {
    Wanted {
        url: format!("oci://{}/{name}", server.address),
        ..Wanted::default()
    }
}

async fn pull(wanted: &Wanted) -> Result<Fetched, String> {
    fetcher(Options::default()).fetch(wanted).await
}

fn layer() -> Vec<u8> {
    gzip(&archive(&[("plugin.wasm", MODULE)]))
}

#[tokio::test]
async fn every_layout_gives_its_module() {
    let server = Server::start().await;
    let layer = layer();
    let doc = ("application/vnd.module.wasm.doc.v1+markdown", &b"# x"[..]);
    let digest = server.image("a/docker", DOCKER, &[(DOCKER_LAYER, &layer)]);
    server.image(
        "a/higress",
        OCI,
        &[
            doc,
            ("application/vnd.module.wasm.spec.v1+yaml", b"x"),
            (OCI_LAYER, &layer),
        ],
    );
    server.image(
        "a/raw",
        OCI,
        &[
            ("application/vnd.module.wasm.config.v1+json", b"{}"),
            (WASM_LAYER, MODULE),
        ],
    );
    for name in ["a/docker:1.0.0", "a/higress:1.0.0", "a/raw:1.0.0", "a/docker"] {
        let fetched = pull(&wanted(&server, name)).await.unwrap();
        assert_eq!(fetched.bytes, MODULE, "{name}");
        assert_eq!(fetched.sha256, sha256_hex(MODULE));
    }
    let index =
        serde_json::json!({"manifests": [{"digest": format!("sha256:{digest}"), "mediaType": DOCKER}]});
    server.put("/v2/a/index/manifests/1", Answer::ok(index.to_string()));
    server.image("a/index", DOCKER, &[(DOCKER_LAYER, &layer)]);
    assert_eq!(pull(&wanted(&server, "a/index:1")).await.unwrap().bytes, MODULE);
    let pinned = Wanted {
        sha256: digest.to_uppercase(),
        ..wanted(&server, &format!("a/docker@sha256:{digest}"))
    };
    assert_eq!(pull(&pinned).await.unwrap().manifest_digest, digest);
}

#[tokio::test]
async fn what_is_not_what_was_promised_is_refused() {
    let server = Server::start().await;
    let layer = layer();
    let digest = server.image("p", OCI, &[(OCI_LAYER, &layer)]);
    let unwanted = Wanted {
        sha256: "0".repeat(64),
        ..wanted(&server, "p:1.0.0")
    };
    let fault = pull(&unwanted).await.unwrap_err();
    assert!(fault.contains(&digest) && fault.contains("000"), "{fault}");
    server.put(&format!("/v2/p/manifests/sha256:{digest}"), Answer::ok("{}"));
    let fault = pull(&wanted(&server, &format!("p@sha256:{digest}")))
        .await
        .unwrap_err();
    assert!(fault.contains("manifest does not have the digest"), "{fault}");
    server.put(
        &format!("/v2/p/blobs/sha256:{}", sha256_hex(&layer)),
        Answer::ok("other"),
    );
    let fault = pull(&wanted(&server, "p:1.0.0")).await.unwrap_err();
    assert!(fault.contains("layer does not have the digest"), "{fault}");
    for (name, layers, expected) in [
        ("none", vec![], "no layers"),
        (
            "text",
            vec![("text/plain", &b"x"[..])],
            "no layer with a module: the last is text/plain",
        ),
        (
            "two",
            vec![(WASM_LAYER, MODULE), (WASM_LAYER, MODULE)],
            "several Wasm layers",
        ),
        ("html", vec![(WASM_LAYER, &b"<html>"[..])], "no Wasm module"),
        ("empty", vec![(OCI_LAYER, &[][..])], "broken archive"),
    ] {
        server.image(name, OCI, &layers);
        let fault = pull(&wanted(&server, &format!("{name}:1.0.0")))
            .await
            .unwrap_err();
        assert!(fault.contains(expected), "{name}: {fault}");
    }
    server.image("wrong", DOCKER, &[(OCI_LAYER, &layer)]);
    let fault = pull(&wanted(&server, "wrong:1.0.0")).await.unwrap_err();
    assert!(fault.contains("invalid media type"), "{fault}");
    server.put("/v2/garbage/manifests/1", Answer::ok("<html>"));
    let fault = pull(&wanted(&server, "garbage:1")).await.unwrap_err();
    assert!(fault.contains("manifest cannot be read"), "{fault}");
    let fault = pull(&wanted(&server, "missing:1")).await.unwrap_err();
    assert!(fault.contains("404"), "{fault}");
    let small = fetcher(Options {
        limit: 16,
        ..Options::default()
    });
    server.image("large", OCI, &[(OCI_LAYER, &layer)]);
    let fault = small.fetch(&wanted(&server, "large:1.0.0")).await.unwrap_err();
    assert!(fault.contains("wasm_module_limit, 16 bytes"), "{fault}");
}

fn protect(server: &Server, name: &str, challenge: &str, authorization: &str) {
    let layer = layer();
    server.image(name, OCI, &[(OCI_LAYER, &layer)]);
    let refusal = Answer::status(401).header("www-authenticate", challenge);
    let manifest = format!("/v2/{name}/manifests/1.0.0");
    let blob = format!("/v2/{name}/blobs/sha256:{}", sha256_hex(&layer));
    let digests = serde_json::json!({"mediaType": OCI, "layers": [{"mediaType": OCI_LAYER,
        "digest": format!("sha256:{}", sha256_hex(&layer)), "size": layer.len()}]});
    server.put(
        &manifest,
        Answer::ok(digests.to_string()).only_with(authorization, refusal.clone()),
    );
    server.put(&blob, Answer::ok(layer).only_with(authorization, refusal));
}

fn logins(server: &Server) -> Logins {
    let config = serde_json::json!({"auths": {server.address.to_string(): {"username": "user", "password": "s3cret"}}});
    Logins::from_docker_config(config.to_string().as_bytes()).unwrap()
}

const BASIC: &str = "Basic dXNlcjpzM2NyZXQ=";

#[tokio::test]
async fn credentials_are_told_to_their_registry_only() {
    let server = Server::start().await;
    protect(&server, "b/p", "Basic realm=\"x\"", BASIC);
    let with_login = Wanted {
        logins: logins(&server),
        ..wanted(&server, "b/p:1.0.0")
    };
    assert_eq!(pull(&with_login).await.unwrap().bytes, MODULE);
    let fault = pull(&wanted(&server, "b/p:1.0.0")).await.unwrap_err();
    assert!(fault.contains("imagePullSecret has none for it"), "{fault}");

    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", server.address);
    protect(&server, "t/p", &challenge, "Bearer abc");
    let token_path = "/token?service=s&scope=repository%3At%2Fp%3Apull";
    server.put(
        token_path,
        Answer::ok(r#"{"token":"abc"}"#).only_with(BASIC, Answer::status(401)),
    );
    server.seen();
    let with_login = Wanted {
        logins: logins(&server),
        ..wanted(&server, "t/p:1.0.0")
    };
    assert_eq!(pull(&with_login).await.unwrap().bytes, MODULE);
    let seen = server.seen();
    assert_eq!(seen[1], format!("{token_path} {BASIC}"));
    assert!(seen[2].ends_with("Bearer abc"), "{seen:?}");
    let fault = pull(&wanted(&server, "t/p:1.0.0")).await.unwrap_err();
    assert!(fault.contains("token of") && fault.contains("401"), "{fault}");
}

#[tokio::test]
async fn a_token_service_elsewhere_is_not_told_who_we_are() {
    let (server, elsewhere) = (Server::start().await, Server::start().await);
    // Another name for a server on this machine; the login is for the registry's name.
    let resolve = [format!("auth.evil.test:80:{}", elsewhere.address)];
    protect(
        &server,
        "p",
        "Bearer realm=\"http://auth.evil.test/token\"",
        "Bearer abc",
    );
    elsewhere.put(
        "/token?scope=repository%3Ap%3Apull",
        Answer::ok(r#"{"access_token":"abc"}"#),
    );
    let with_login = Wanted {
        logins: logins(&server),
        ..wanted(&server, "p:1.0.0")
    };
    let fetched = fetcher_resolving(Options::default(), &resolve)
        .fetch(&with_login)
        .await
        .unwrap();
    assert_eq!(fetched.bytes, MODULE);
    assert_eq!(elsewhere.seen(), ["/token?scope=repository%3Ap%3Apull -"]);
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_along_and_leads_to_no_private_address() {
    let (server, storage) = (Server::start().await, Server::start().await);
    let layer = layer();
    let blob = format!("/v2/p/blobs/sha256:{}", sha256_hex(&layer));
    protect(&server, "p", "Basic realm=\"x\"", BASIC);
    server.put(
        &blob,
        Answer::status(307).header("location", &format!("http://{}/blob", storage.address)),
    );
    storage.put("/blob", Answer::ok(layer.clone()));
    let with_login = Wanted {
        logins: logins(&server),
        ..wanted(&server, "p:1.0.0")
    };
    let fault = pull(&with_login).await.unwrap_err();
    assert!(fault.contains("not public"), "{fault}");
    assert!(storage.seen().is_empty(), "a private address was reached");
    server.put(&blob, Answer::status(302).header("location", "/moved"));
    server.put("/moved", Answer::ok(layer).only_with(BASIC, Answer::status(403)));
    assert_eq!(pull(&with_login).await.unwrap().bytes, MODULE);
    server.put(&blob, Answer::status(302).header("location", &blob));
    let fault = pull(&with_login).await.unwrap_err();
    assert!(fault.contains("more than 5 redirects"), "{fault}");
}

#[tokio::test]
async fn a_mirror_serves_what_begins_with_its_name() {
    let server = Server::start().await;
    server.image("m/plugins/p", OCI, &[(OCI_LAYER, &layer())]);
    let mirrors = [
        format!("r.example/plugins={}/m/plugins", server.address),
        "r.example=127.0.0.1:9".to_owned(),
    ];
    let options = Options {
        mirrors: mirrors.iter().map(|text| text.parse().unwrap()).collect(),
        ..Options::default()
    };
    let wanted = Wanted {
        url: "oci://r.example/plugins/p:1.0.0".to_owned(),
        ..Wanted::default()
    };
    assert_eq!(fetcher(options).fetch(&wanted).await.unwrap().bytes, MODULE);
    assert!("no arrow".parse::<Mirror>().is_err());
}

#[tokio::test]
async fn the_cache_serves_what_the_policy_allows() {
    let server = Server::start().await;
    server.image("p", OCI, &[(OCI_LAYER, &layer())]);
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        cache: Some(directory.path().join("modules")),
        ..Options::default()
    };
    let asked = async |name: &str, policy: PullPolicy| {
        let wanted = Wanted {
            policy,
            ..wanted(&server, name)
        };
        // A fresh fetcher, as after a restart.
        fetcher(options.clone()).fetch(&wanted).await.unwrap();
        !server.seen().is_empty()
    };
    assert!(asked("p:1.0.0", PullPolicy::Unspecified).await);
    assert!(!asked("p:1.0.0", PullPolicy::Unspecified).await);
    assert!(!asked("p:1.0.0", PullPolicy::IfNotPresent).await);
    assert!(asked("p:1.0.0", PullPolicy::Always).await);
    assert!(asked("p:latest", PullPolicy::Unspecified).await);
    assert!(asked("p:latest", PullPolicy::Unspecified).await);
    assert!(!asked("p:latest", PullPolicy::IfNotPresent).await);
    let other = Wanted {
        sha256: "0".repeat(64),
        ..wanted(&server, "p:1.0.0")
    };
    let fault = fetcher(options.clone()).fetch(&other).await.unwrap_err();
    assert!(fault.contains("not the sha256"), "{fault}");
}

#[tokio::test]
async fn a_private_image_in_the_cache_is_only_for_those_whom_the_registry_gave_it() {
    let server = Server::start().await;
    protect(&server, "b/p", "Basic realm=\"x\"", BASIC);
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        cache: Some(directory.path().join("modules")),
        ..Options::default()
    };
    let asked = async |logins: Logins| {
        let wanted = Wanted {
            policy: PullPolicy::IfNotPresent,
            logins,
            ..wanted(&server, "b/p:1.0.0")
        };
        let fetched = fetcher(options.clone()).fetch(&wanted).await;
        (fetched.map(|fetched| fetched.bytes), server.seen().len())
    };
    assert_eq!(asked(logins(&server)).await.0.unwrap(), MODULE);
    let (kept, asked_again) = asked(logins(&server)).await;
    assert_eq!((kept.unwrap(), asked_again), (MODULE.into(), 0));
    let fault = asked(Logins::default()).await.0.unwrap_err();
    assert!(fault.contains("imagePullSecret has none for it"), "{fault}");
    let wrong = serde_json::json!({"auths": {server.address.to_string(): {"username": "user", "password": "gu3ssed"}}});
    let wrong = Logins::from_docker_config(wrong.to_string().as_bytes()).unwrap();
    let fault = asked(wrong).await.0.unwrap_err();
    assert!(fault.contains("refuses the credentials"), "{fault}");
    // A refusal takes nothing from those who may have it.
    assert_eq!(asked(logins(&server)).await, (Ok(MODULE.into()), 0));
    for file in std::fs::read_dir(directory.path().join("modules")).unwrap() {
        let text = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(
            !text.contains("s3cret") && !text.contains("dXNlcjpzM2NyZXQ"),
            "{text}"
        );
    }
}
