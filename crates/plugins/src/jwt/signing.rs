//! For tests: keys of every kind, and the tokens that they sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// One key with one algorithm.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) algorithm: &'static str,
    key: Arc<Pair>,
    id: Option<String>,
}

enum Pair {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Elliptic(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One signer an algorithm; those of a family share a key.
pub(crate) fn signers() -> Vec<Signer> {
    let secrets = ["HS256", "HS384", "HS512"].map(|name| Signer::secret(name, 1));
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(Signer::rsa);
    let elliptic = ["ES256", "ES384", "ES512"].map(Signer::elliptic);
    let all = secrets.into_iter().chain(rsa).chain(elliptic);
    all.chain([Signer::edwards()]).collect()
}

impl Signer {
    fn new(algorithm: &'static str, key: Arc<Pair>) -> Self {
        Self {
            algorithm,
            key,
            id: None,
        }
    }

    /// A secret made of a number.
    pub(crate) fn secret(algorithm: &'static str, number: u8) -> Self {
        Self::with_secret(algorithm, &[number; 64])
    }

    pub(crate) fn with_secret(algorithm: &'static str, secret: &[u8]) -> Self {
        Self::new(algorithm, Arc::new(Pair::Secret(secret.to_vec())))
    }

    pub(crate) fn rsa(algorithm: &'static str) -> Self {
        // Slow to make: one for all tests.
        static KEY: OnceLock<Arc<Pair>> = OnceLock::new();
        let make = || Arc::new(Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
        Self::new(algorithm, KEY.get_or_init(make).clone())
    }

    pub(crate) fn elliptic(algorithm: &'static str) -> Self {
        let signing = match algorithm {
            "ES256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        Self::new(algorithm, Arc::new(Pair::Elliptic(pair)))
    }

    pub(crate) fn edwards() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self::new("EdDSA", Arc::new(Pair::Edwards(pair)))
    }

    /// The same under a name.
    pub(crate) fn named(&self, id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..self.clone()
        }
    }

    /// Which algorithms a key like this one can be used for.
    pub(crate) fn family(&self) -> &'static str {
        match &*self.key {
            Pair::Secret(_) => "oct",
            Pair::Rsa(_) => "RSA",
            Pair::Elliptic(_) | Pair::Edwards(_) => self.algorithm,
        }
    }

    /// The key as it stands in a key set, without `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let mut key = match &*self.key {
            Pair::Secret(secret) => json!({"kty": "oct", "k": encoded(secret)}),
            Pair::Rsa(pair) => {
                // PKCS #1 of 2048 bits: the modulus behind two heads and a zero, the exponent at the end.
                let der = pair.public_key().as_ref();
                json!({"kty": "RSA", "n": encoded(&der[9..265]), "e": encoded(&der[267..])})
            }
            Pair::Elliptic(pair) => {
                let curve = match self.algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y)})
            }
            Pair::Edwards(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key())}),
        };
        if let Some(id) = &self.id {
            key["kid"] = json!(id);
        }
        key
    }

    /// A key set of this key alone.
    pub(crate) fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A signed token.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_of(&claims.to_string())
    }

    /// The same for claims that are any text.
    pub(crate) fn token_of(&self, claims: &str) -> String {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = json!(id);
        }
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", encoded(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.key {
            Pair::Secret(secret) => {
                let hash = match self.algorithm {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message)
                    .as_ref()
                    .to_vec()
            }
            Pair::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match self.algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Pair::Elliptic(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Edwards(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}
