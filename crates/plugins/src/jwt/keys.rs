//! The keys that tokens are verified with: a JSON Web Key Set (RFC 7517), or one shared secret.
//!
//! What a key is decides which algorithms it can verify; a token only chooses among them. So nobody signs with a
//! public key as if it were a secret.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use serde_json::Value;
use tollgate_base::ConfigError;

use super::{Algorithm, Fault, Token, decoded};
use crate::table::ParseContext;

/// Shorter secrets can be guessed from one token (RFC 7518 §3.2), in bytes.
const SHORT_SECRET: usize = 32;
/// Sizes of RSA keys that are used, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const HMAC: [(Algorithm, &hmac::Algorithm); 3] = [
    (Algorithm::Hs256, &hmac::HMAC_SHA256),
    (Algorithm::Hs384, &hmac::HMAC_SHA384),
    (Algorithm::Hs512, &hmac::HMAC_SHA512),
];
const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

/// Keys in the order of their document.
pub(crate) struct KeySet(Vec<Key>);

struct Key {
    /// A token that names a key is only verified with those of this name and those without any.
    id: Option<String>,
    ways: Vec<(Algorithm, Way)>,
}

/// One algorithm with one key.
enum Way {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl KeySet {
    /// One secret for the algorithms with HMAC.
    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self(vec![Key {
            id: None,
            ways: with_secret(secret),
        }])
    }

    /// Reads a key set. A key that cannot be used is left out with a warning, as sets carry keys for other purposes;
    /// one must remain. `field` is where the set stands.
    pub(crate) fn parse(text: &str, field: &str, context: &ParseContext) -> Result<Self, ConfigError> {
        let wrong = |message: String| ConfigError::new(field, message);
        // What is not JSON may be a secret that was meant for another field: nothing of it is told.
        let set: Value = serde_json::from_str(text).map_err(|fault| {
            wrong(format!(
                "is no JSON (line {}, column {})",
                fault.line(),
                fault.column()
            ))
        })?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or_else(|| wrong("has no list of keys: expected {\"keys\": [...]}".to_owned()))?;
        let mut keys = Vec::with_capacity(list.len());
        for (index, written) in list.iter().enumerate() {
            let place = format!("{field}.keys[{index}]");
            match Key::parse(written) {
                Ok((key, remark)) => {
                    keys.push(key);
                    if let Some(remark) = remark {
                        context.warn(ConfigError::new(place, remark));
                    }
                }
                Err(reason) => {
                    let text = format!("{reason}: the key is left out");
                    context.warn(ConfigError::new(place, text));
                }
            }
        }
        match keys.is_empty() {
            true => Err(wrong("no key in it can be used".to_owned())),
            false => Ok(Self(keys)),
        }
    }

    /// Whether one of the keys may be meant by this name.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let mut ids = self.0.iter().map(|key| key.id.as_deref());
        ids.any(|known| known.is_none_or(|known| known == id))
    }

    /// Whether one of the keys made the signature.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<(), Fault> {
        let mut fits = false;
        for key in &self.0 {
            let is_meant = match (&token.key_id, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            };
            let way = key
                .ways
                .iter()
                .find(|(algorithm, _)| *algorithm == token.algorithm);
            let Some((_, way)) = way.filter(|_| is_meant) else {
                continue;
            };
            fits = true;
            if way.verifies(token.signed.as_bytes(), &token.signature) {
                return Ok(());
            }
        }
        Err(match fits {
            true => Fault::FAILS,
            false => Fault::NO_KEY,
        })
    }
}

impl Way {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Key {
    /// A key, and what is strange about it.
    fn parse(written: &Value) -> Result<(Self, Option<String>), String> {
        let text = |name: &str| written.get(name).and_then(Value::as_str);
        let ways = match text("kty").ok_or("has no kty")? {
            "oct" => secret(written)?,
            "RSA" => rsa(written)?,
            "EC" => elliptic(written)?,
            "OKP" => edwards(written)?,
            other => return Err(format!("kty {other:?} is not known")),
        };
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return Err("is not for signatures".to_owned());
        }
        let operations = written.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|all| !all.iter().any(|one| one == "verify" || one == "sign")) {
            return Err("is not for signatures".to_owned());
        }
        let ways: Vec<_> = match written.get("alg") {
            None => ways,
            Some(alg) => {
                let wanted = alg.as_str().and_then(Algorithm::named);
                ways.into_iter()
                    .filter(|(algorithm, _)| Some(*algorithm) == wanted)
                    .collect()
            }
        };
        if ways.is_empty() {
            return Err("its alg is none that such a key can verify".to_owned());
        }
        let is_secret = ways.iter().any(|(_, way)| matches!(way, Way::Secret(_)));
        let remark = match is_secret {
            true if bytes(written, "k")?.len() < SHORT_SECRET => Some(format!(
                "is shorter than {SHORT_SECRET} bytes: it can be guessed from a token"
            )),
            false if written.get("d").is_some() => {
                Some("holds the private half too, which nobody needs here".to_owned())
            }
            _ => None,
        };
        let id = match written.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().ok_or("its kid is no text")?.to_owned()),
        };
        Ok((Self { id, ways }, remark))
    }
}

fn bytes(written: &Value, name: &str) -> Result<Vec<u8>, String> {
    let text = written.get(name).and_then(Value::as_str);
    let text = text.ok_or_else(|| format!("has no {name}"))?;
    decoded(text).ok_or_else(|| format!("its {name} is not base64url"))
}

fn secret(written: &Value) -> Result<Vec<(Algorithm, Way)>, String> {
    let secret = bytes(written, "k")?;
    if secret.is_empty() {
        return Err("its k is empty".to_owned());
    }
    Ok(with_secret(&secret))
}

fn with_secret(secret: &[u8]) -> Vec<(Algorithm, Way)> {
    let key = |hash: &hmac::Algorithm| Way::Secret(Box::new(hmac::Key::new(*hash, secret)));
    let ways = HMAC.iter();
    ways.map(|(algorithm, hash)| (*algorithm, key(hash))).collect()
}

fn rsa(written: &Value) -> Result<Vec<(Algorithm, Way)>, String> {
    let number = |name: &str| -> Result<Vec<u8>, String> {
        let whole = bytes(written, name)?;
        Ok(whole.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    let components = RsaPublicKeyComponents {
        n: number("n")?,
        e: number("e")?,
    };
    let first = components
        .n
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = components.n.len() * 8 - first;
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "has {bits} bits, expected {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        ));
    }
    let ways = RSA.iter().map(|(algorithm, parameters)| {
        let key = components.to_parsed_public_key(parameters);
        key.map(|key| (*algorithm, Way::Public(key)))
            .map_err(|_| "is no RSA key".to_owned())
    });
    ways.collect()
}

fn elliptic(written: &Value) -> Result<Vec<(Algorithm, Way)>, String> {
    let curve = written.get("crv").and_then(Value::as_str).ok_or("has no crv")?;
    let (algorithm, verification, size): (_, &'static dyn VerificationAlgorithm, _) = match curve {
        "P-256" => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
        "P-521" => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
        other => return Err(format!("crv {other:?} is not known")),
    };
    // An uncompressed point.
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(written, name)?;
        let missing = size - coordinate.len().min(size);
        point.extend(std::iter::repeat_n(0, missing));
        point.extend(coordinate);
    }
    public(algorithm, verification, &point, "is no point of its curve")
}

fn edwards(written: &Value) -> Result<Vec<(Algorithm, Way)>, String> {
    match written.get("crv").and_then(Value::as_str).ok_or("has no crv")? {
        "Ed25519" => {}
        other => return Err(format!("crv {other:?} is not known")),
    }
    let key = bytes(written, "x")?;
    if key.len() != aws_lc_rs::signature::ED25519_PUBLIC_KEY_LEN {
        return Err("its x has another length than an Ed25519 key".to_owned());
    }
    public(Algorithm::EdDsa, &ED25519, &key, "is no Ed25519 key")
}

fn public(
    algorithm: Algorithm,
    verification: &'static dyn VerificationAlgorithm,
    key: &[u8],
    wrong: &str,
) -> Result<Vec<(Algorithm, Way)>, String> {
    let key = ParsedPublicKey::new(verification, key).map_err(|_| wrong.to_owned())?;
    Ok(vec![(algorithm, Way::Public(key))])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jwt::signing::{Signer, signers};

    fn set(keys: &Value) -> Result<KeySet, String> {
        let context = ParseContext::default();
        let read = KeySet::parse(&json!({"keys": keys}).to_string(), "jwks", &context);
        read.map_err(|fault| fault.to_string())
    }

    fn verify(set: &KeySet, token: &str) -> Result<(), &'static str> {
        let token = Token::parse(token).map_err(|fault| fault.0)?;
        set.verify(&token).map_err(|fault| fault.0)
    }

    #[test]
    fn every_algorithm_is_verified_by_its_own_key_only() {
        let all = signers();
        for signer in &all {
            let own = set(&json!([signer.jwk()])).unwrap();
            for other in &all {
                let token = other.token(&json!({"sub": "a"}));
                let expected = match (
                    signer.algorithm == other.algorithm,
                    signer.family() == other.family(),
                ) {
                    (true, _) => Ok(()),
                    // The same key without a word on its algorithm.
                    (false, true) => Ok(()),
                    (false, false) => Err(Fault::NO_KEY.0),
                };
                assert_eq!(
                    verify(&own, &token),
                    expected,
                    "{} by {}",
                    other.algorithm,
                    signer.algorithm
                );
            }
            let mut bound = signer.jwk();
            bound["alg"] = json!(signer.algorithm);
            let bound = set(&json!([bound])).unwrap();
            for other in &all {
                let is_same = signer.algorithm == other.algorithm;
                assert_eq!(verify(&bound, &other.token(&json!({}))).is_ok(), is_same);
            }
        }
    }

    #[test]
    fn a_changed_token_and_a_foreign_key_fail() {
        for signer in signers() {
            let keys = set(&json!([signer.jwk()])).unwrap();
            let token = signer.token(&json!({"sub": "a"}));
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let (header, _) = signed.split_once('.').unwrap();
            let other = signer.token(&json!({"sub": "b"}));
            let (other, _) = other.rsplit_once('.').unwrap();
            let (_, other) = other.split_once('.').unwrap();
            for changed in [
                format!("{header}.{other}.{signature}"),
                format!("{signed}."),
                format!("{signed}.{}", &signature[..signature.len() / 2 / 4 * 4]),
                format!("{signed}.AAAA"),
            ] {
                assert_eq!(
                    verify(&keys, &changed),
                    Err(Fault::FAILS.0),
                    "{}",
                    signer.algorithm
                );
            }
        }
        let (mine, theirs) = (Signer::secret("HS256", 1), Signer::secret("HS256", 2));
        let keys = set(&json!([mine.jwk()])).unwrap();
        assert_eq!(verify(&keys, &theirs.token(&json!({}))), Err(Fault::FAILS.0));
    }

    #[test]
    fn a_public_key_is_no_secret() {
        for signer in signers().iter().filter(|signer| signer.family() != "oct") {
            let keys = set(&json!([signer.jwk()])).unwrap();
            for (name, value) in signer.jwk().as_object().unwrap() {
                let material = value.as_str().unwrap();
                for secret in [
                    material.as_bytes().to_vec(),
                    decoded(material).unwrap_or_default(),
                ] {
                    let forged = Signer::with_secret("HS256", &secret).token(&json!({}));
                    assert_eq!(verify(&keys, &forged), Err(Fault::NO_KEY.0), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_named_key_is_tried_alone() {
        let (first, second) = (Signer::secret("HS256", 1), Signer::secret("HS256", 2));
        let named = |signer: &Signer, id: &str| {
            let mut key = signer.jwk();
            key["kid"] = json!(id);
            key
        };
        let keys = set(&json!([named(&first, "1"), named(&second, "2")])).unwrap();
        assert_eq!(verify(&keys, &second.token(&json!({}))), Ok(()));
        assert_eq!(verify(&keys, &second.named("2").token(&json!({}))), Ok(()));
        assert_eq!(
            verify(&keys, &second.named("1").token(&json!({}))),
            Err(Fault::FAILS.0)
        );
        assert_eq!(
            verify(&keys, &second.named("3").token(&json!({}))),
            Err(Fault::NO_KEY.0)
        );
        // A key without a name stands for all.
        let keys = set(&json!([second.jwk()])).unwrap();
        assert_eq!(verify(&keys, &second.named("3").token(&json!({}))), Ok(()));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_and_left_out() {
        let good = Signer::secret("HS256", 1).jwk();
        let (rsa, elliptic) = (Signer::rsa("RS256").jwk(), Signer::elliptic("ES256").jwk());
        let edwards = Signer::edwards().jwk();
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        for (key, told) in [
            (json!(1), "has no kty"),
            (json!({"kty": "PGP"}), "kty \"PGP\" is not known"),
            (json!({"kty": "oct"}), "has no k"),
            (json!({"kty": "oct", "k": "s3cr=t"}), "its k is not base64url"),
            (json!({"kty": "oct", "k": ""}), "its k is empty"),
            (
                with(&good, "alg", json!("RS256")),
                "its alg is none that such a key can verify",
            ),
            (
                with(&good, "alg", json!("none")),
                "its alg is none that such a key can verify",
            ),
            (with(&good, "kid", json!(1)), "its kid is no text"),
            (
                with(&good, "key_ops", json!(["encrypt"])),
                "is not for signatures",
            ),
            (
                with(&rsa, "alg", json!("HS256")),
                "its alg is none that such a key can verify",
            ),
            (with(&rsa, "use", json!("enc")), "is not for signatures"),
            (
                with(&rsa, "n", json!("AQAB")),
                "has 17 bits, expected 2048 to 8192",
            ),
            (with(&rsa, "e", json!("")), "is no RSA key"),
            (
                with(&elliptic, "crv", json!("P-192")),
                "crv \"P-192\" is not known",
            ),
            (with(&elliptic, "x", json!("AQAB")), "is no point of its curve"),
            (with(&elliptic, "crv", json!("P-384")), "is no point of its curve"),
            (
                with(&edwards, "crv", json!("Ed448")),
                "crv \"Ed448\" is not known",
            ),
            (
                with(&edwards, "x", json!("AQAB")),
                "its x has another length than an Ed25519 key",
            ),
        ] {
            let context = ParseContext::default();
            let text = json!({"keys": [good, key]}).to_string();
            let keys = KeySet::parse(&text, "jwks", &context).unwrap();
            let warnings: Vec<_> = context.take_warnings().iter().map(ToString::to_string).collect();
            assert_eq!(
                warnings,
                [format!("jwks.keys[1]: {told}: the key is left out")],
                "{key}"
            );
            assert_eq!(keys.0.len(), 1);
            assert_eq!(
                set(&json!([key])).err().as_deref(),
                Some("jwks: no key in it can be used")
            );
        }
    }

    #[test]
    fn what_is_strange_or_no_set_is_told() {
        let context = ParseContext::default();
        let mut private = Signer::edwards().jwk();
        private["d"] = json!("AAAA");
        let text = json!({"keys": [{"kty": "oct", "k": "c2hvcnQ"}, private]}).to_string();
        KeySet::parse(&text, "jwks", &context).unwrap();
        let warnings: Vec<_> = context.take_warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "jwks.keys[0]: is shorter than 32 bytes: it can be guessed from a token",
                "jwks.keys[1]: holds the private half too, which nobody needs here",
            ]
        );
        for (text, told) in [
            ("s3cret", "jwks: is no JSON (line 1, column 1)"),
            ("{}", "jwks: has no list of keys: expected {\"keys\": [...]}"),
            (
                r#"{"keys":{}}"#,
                "jwks: has no list of keys: expected {\"keys\": [...]}",
            ),
            (r#"{"keys":[]}"#, "jwks: no key in it can be used"),
        ] {
            let read = KeySet::parse(text, "jwks", &context);
            assert_eq!(read.err().map(|fault| fault.to_string()).as_deref(), Some(told));
        }
    }
}
