//! Server certificates: which Secret serves which name, and what a bad one does to the others.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tollgate_snapshot::Snapshot;

use crate::support::{compile_text, fake_options};

/// `tls.crt` and `tls.key` of a Secret as one YAML flow mapping.
fn pem(name: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

fn secret(name: &str, certificate: &str, key: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, type: kubernetes.io/tls, \
         stringData: {{tls.crt: {}, tls.key: {}}}}}\n",
        quoted(certificate),
        quoted(key)
    )
}

fn ingress(name: &str, host: &str, tls: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  tls: {tls}\n  \
         rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: a, port: \
         {{number: 80}}}}}}}}]}}}}]\n"
    )
}

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}\n";

fn compiled(parts: &[String]) -> (Snapshot, Vec<String>) {
    let text = format!("{SERVICE}{}", parts.concat());
    let (snapshot, diagnostics) = compile_text(text.as_bytes(), "tls.yaml", &fake_options());
    let diagnostics = diagnostics
        .iter()
        .map(|diagnostic| {
            let text = diagnostic.to_string();
            text.split_once(": ").unwrap().1.to_owned()
        })
        .collect();
    (snapshot, diagnostics)
}

/// The certificate of a handshake, as DER.
fn served(snapshot: &Snapshot, name: Option<&str>) -> Option<Vec<u8>> {
    let key = snapshot.certificates.find(name)?.key.as_ref()?;
    Some(key.cert.first()?.to_vec())
}

#[test]
fn exact_wildcard_and_hostless_names() {
    let (one, one_key) = pem("one");
    let (wide, wide_key) = pem("wide");
    let (any, any_key) = pem("any");
    let (snapshot, diagnostics) = compiled(&[
        secret("one", &one, &one_key),
        secret("wide", &wide, &wide_key),
        secret("any", &any, &any_key),
        ingress(
            "one",
            "a.foo.com",
            "[{hosts: [b.foo.com, a.foo.com], secretName: one}]",
        ),
        ingress(
            "wide",
            "\"*.foo.com\"",
            "[{hosts: [\"*.foo.com\"], secretName: wide}]",
        ),
        ingress("any", "\"\"", "[{secretName: any}]"),
        // Names no entry literally, so it adds nothing.
        ingress(
            "unlisted",
            "x.bar.com",
            "[{hosts: [\"*.bar.com\"], secretName: one}]",
        ),
    ]);
    assert_eq!(diagnostics, [] as [String; 0]);
    let (one, wide) = (
        served(&snapshot, Some("A.foo.com")),
        served(&snapshot, Some("b.foo.com")),
    );
    let any = served(&snapshot, None);
    assert!(one.is_some() && wide.is_some() && any.is_some());
    assert!(one != wide && wide != any && one != any);
    assert_eq!(served(&snapshot, Some("x.y.foo.com")), wide);
    assert_eq!(served(&snapshot, Some("x.bar.com")), any);
}

#[test]
fn a_bad_secret_leaves_the_others_alone() {
    let (good, good_key) = pem("good");
    let (_, other_key) = pem("other");
    let (snapshot, diagnostics) = compiled(&[
        secret("good", &good, &good_key),
        secret("mixed", &good, &other_key),
        secret("garbled", "no pem", &good_key),
        secret("keyless", &good, "no pem"),
        "---\n{apiVersion: v1, kind: Secret, metadata: {name: empty}, stringData: {x: y}}\n".to_owned(),
        ingress("a-good", "good.com", "[{hosts: [good.com], secretName: good}]"),
        ingress(
            "b-mixed",
            "mixed.com",
            "[{hosts: [mixed.com], secretName: mixed}]",
        ),
        ingress(
            "c-garbled",
            "garbled.com",
            "[{hosts: [garbled.com], secretName: garbled}]",
        ),
        ingress(
            "d-keyless",
            "keyless.com",
            "[{hosts: [keyless.com], secretName: keyless}]",
        ),
        ingress(
            "e-empty",
            "empty.com",
            "[{hosts: [empty.com], secretName: empty}]",
        ),
        ingress("f-gone", "gone.com", "[{hosts: [gone.com], secretName: gone}]"),
        ingress("g-late", "good.com", "[{hosts: [good.com], secretName: mixed}]"),
    ]);
    assert!(served(&snapshot, Some("good.com")).is_some());
    for name in ["mixed.com", "garbled.com", "keyless.com", "empty.com", "gone.com"] {
        assert_eq!(served(&snapshot, Some(name)), None, "{name}");
    }
    let wanted = [
        "Secret higress-system/mixed: the private key does not belong to the certificate",
        "Secret higress-system/garbled: the certificate is not valid PEM",
        "Secret higress-system/keyless: the private key is not valid PEM",
        "Secret higress-system/empty: `tls.crt` or `cert` is missing",
        "Ingress higress-system/f-gone: spec.tls[0]: the Secret higress-system/gone does not exist",
    ];
    let mut wanted: Vec<String> = wanted
        .iter()
        .map(|text| format!("error: {text}: its hosts are not served over TLS"))
        .collect();
    wanted.insert(
        0,
        "warning: Ingress higress-system/g-late: spec.rules[0].http.paths[0]: Ingress higress-system/a-good already \
         has this path on host good.com: this one is left out"
            .to_owned(),
    );
    wanted.push(
        "warning: Ingress higress-system/g-late: spec.tls[0]: the Ingress higress-system/a-good has already chosen \
         a Secret for host good.com: this one is not used"
            .to_owned(),
    );
    assert_eq!(diagnostics, wanted);
}

#[test]
fn higress_https_supplies_secrets_by_domain() {
    let (good, good_key) = pem("good");
    let https = |fallback: bool| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: higress-https}}\ndata:\n  cert: |\n    \
             automaticHttps: false\n    fallbackForInvalidSecret: {fallback}\n    credentialConfig:\n      - domains: \
             [\"*.foo.com\"]\n        tlsSecret: good\n"
        )
    };
    let ingresses = [
        ingress("a", "a.foo.com", "[{hosts: [a.foo.com]}]"),
        ingress("b", "b.foo.com", "[{hosts: [b.foo.com], secretName: gone}]"),
        ingress("c", "c.foo.com", "[]"),
        ingress("d", "d.bar.com", "[{hosts: [d.bar.com]}]"),
    ];
    for fallback in [false, true] {
        let mut parts = vec![secret("good", &good, &good_key), https(fallback)];
        parts.extend(ingresses.clone());
        let (snapshot, diagnostics) = compiled(&parts);
        assert!(served(&snapshot, Some("a.foo.com")).is_some());
        assert_eq!(served(&snapshot, Some("b.foo.com")).is_some(), fallback);
        // Without any `tls` an Ingress asks for no HTTPS, and no domain covers the last one.
        assert_eq!(served(&snapshot, Some("c.foo.com")), None);
        assert_eq!(served(&snapshot, Some("d.bar.com")), None);
        assert_eq!(diagnostics.len(), usize::from(!fallback), "{diagnostics:?}");
    }
}

#[test]
fn a_client_certificate_and_its_authority_come_from_the_secret() {
    let (good, good_key) = pem("good");
    let text = format!(
        "{SERVICE}{}---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: i\n  annotations: \
         {{higress.io/backend-protocol: HTTPS, higress.io/proxy-ssl-secret: client}}\nspec:\n  rules: [{{host: a.com, \
         http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: a, port: {{number: 80}}}}}}}}]}}}}]\n",
        secret("client", &good, &good_key).replace("stringData: {", "stringData: {ca.crt: authority, ")
    );
    let (snapshot, diagnostics) = compile_text(text.as_bytes(), "tls.yaml", &fake_options());
    assert_eq!(diagnostics, []);
    let cluster = &snapshot.clusters["outbound|80||a.higress-system.svc.cluster.local"];
    let tls = cluster.tls.as_ref().unwrap();
    assert_eq!(tls.client_certificate.as_ref().unwrap().key, good_key.as_bytes());
    let authority = tollgate_snapshot::Verification::Bundle(b"authority".as_slice().into());
    assert_eq!(tls.verification, authority);
}
