//! JSON Web Tokens in their compact form (RFC 7515, 7519): taken apart, and held to the times that they name.
//!
//! For the plugins that let in who carries one. What a [`Token`] says is the client's word until [`keys`] has verified
//! the signature. No fault tells anything of a key or of a token.

pub(crate) mod keys;
#[cfg(test)]
pub(crate) mod signing;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

/// Longest token that is looked at, in bytes.
pub(crate) const LONGEST: usize = 16 * 1024;

/// Why a token is refused, in the words of Higress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) &'static str);

impl Fault {
    pub(crate) const MISSING: Self = Self("Jwt is missing");
    pub(crate) const EXPIRED: Self = Self("Jwt is expired");
    pub(crate) const EARLY: Self = Self("Jwt not yet valid");
    pub(crate) const FORM: Self =
        Self("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");
    pub(crate) const FAILS: Self = Self("Jwt verification fails");
    pub(crate) const NO_KEY: Self = Self("Jwks doesn't have key to match kid or alg from Jwt");
    pub(crate) const NOT_FETCHED: Self = Self("Jwks remote fetch is failed");
    const LENGTH: Self = Self("Jwt is too long");
    const HEADER_BASE64: Self = Self("Jwt header is an invalid Base64url encoded");
    const HEADER_JSON: Self = Self("Jwt header is an invalid JSON");
    const ALGORITHM: Self = Self("Jwt header [alg] field is required and must be a string");
    const UNKNOWN_ALGORITHM: Self = Self("Jwt header [alg] is not supported");
    const KEY_ID: Self = Self("Jwt header [kid] field is not a string");
    const CRITICAL: Self = Self("Jwt header [crit] field is not supported");
    const PAYLOAD_BASE64: Self = Self("Jwt payload is an invalid Base64url encoded");
    const PAYLOAD_JSON: Self = Self("Jwt payload is an invalid JSON");
    const ISSUER: Self = Self("Jwt payload [iss] field is not a string");
    const SUBJECT: Self = Self("Jwt payload [sub] field is not a string");
    const TOKEN_ID: Self = Self("Jwt payload [jti] field is not a string");
    const AUDIENCE: Self = Self("Jwt payload [aud] field is not a string or string list");
    const SIGNATURE: Self = Self("Jwt signature is an invalid Base64url encoded");
}

/// The algorithms that sign tokens (RFC 7518, 8037). `none` is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By its registered name, to the letter.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token that is well formed. Nobody has verified it.
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    claims: Map<String, Value>,
    /// What the signature is for: header and payload as they came.
    signed: &'t str,
    signature: Vec<u8>,
    issued: Option<u64>,
    begins: Option<u64>,
    ends: Option<u64>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    pub(crate) fn parse(text: &'t str) -> Result<Self, Fault> {
        if text.len() > LONGEST {
            return Err(Fault::LENGTH);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::FORM)?;
        let (header, payload) = signed.split_once('.').ok_or(Fault::FORM)?;
        if payload.contains('.') {
            return Err(Fault::FORM);
        }
        let header = object(header, Fault::HEADER_BASE64, Fault::HEADER_JSON)?;
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .ok_or(Fault::ALGORITHM)?;
        let algorithm = Algorithm::named(algorithm).ok_or(Fault::UNKNOWN_ALGORITHM)?;
        let key_id = text_of(&header, "kid", Fault::KEY_ID)?;
        // An extension that must be understood; none is.
        if header.contains_key("crit") {
            return Err(Fault::CRITICAL);
        }
        let claims = object(payload, Fault::PAYLOAD_BASE64, Fault::PAYLOAD_JSON)?;
        for (name, fault) in [
            ("iss", Fault::ISSUER),
            ("sub", Fault::SUBJECT),
            ("jti", Fault::TOKEN_ID),
        ] {
            text_of(&claims, name, fault)?;
        }
        check_audience(&claims)?;
        Ok(Self {
            algorithm,
            key_id,
            issued: time_of(&claims, "iat")?,
            begins: time_of(&claims, "nbf")?,
            ends: time_of(&claims, "exp")?,
            claims,
            signed,
            signature: decoded(signature).ok_or(Fault::SIGNATURE)?,
        })
    }

    /// A claim by its name, else by the path of names that the dots in it separate.
    pub(crate) fn claim(&self, name: &str) -> Option<&Value> {
        if let Some(found) = self.claims.get(name) {
            return Some(found);
        }
        let (first, rest) = name.split_once('.')?;
        rest.split('.')
            .try_fold(self.claims.get(first)?, |value, part| value.get(part))
    }

    /// Whether `now` is in the token's time, give or take `skew`; both in seconds.
    pub(crate) fn is_current(&self, now: u64, skew: u64) -> Result<(), Fault> {
        let latest = now.saturating_add(skew);
        if [self.begins, self.issued]
            .iter()
            .flatten()
            .any(|begin| *begin > latest)
        {
            return Err(Fault::EARLY);
        }
        match self.ends {
            Some(end) if now > end.saturating_add(skew) => Err(Fault::EXPIRED),
            _ => Ok(()),
        }
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(part: &str, encoding: Fault, content: Fault) -> Result<Map<String, Value>, Fault> {
    let bytes = decoded(part).ok_or(encoding)?;
    let members: Result<Unique, _> = serde_json::from_slice(&bytes);
    members.map(|unique| unique.0).map_err(|_| content)
}

/// The text of a member; `None` where it is absent.
fn text_of(members: &Map<String, Value>, name: &str, fault: Fault) -> Result<Option<String>, Fault> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(fault),
    }
}

fn check_audience(claims: &Map<String, Value>) -> Result<(), Fault> {
    match claims.get("aud") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Ok(()),
        Some(_) => Err(Fault::AUDIENCE),
    }
}

/// A time in seconds since the epoch, cut to whole ones.
fn time_of(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fault> {
    let (no_number, out_of_range) = match name {
        "iat" => (
            "Jwt payload [iat] field is not an integer",
            "Jwt payload [iat] field is not a positive 64 bit integer",
        ),
        "nbf" => (
            "Jwt payload [nbf] field is not an integer",
            "Jwt payload [nbf] field is not a positive 64 bit integer",
        ),
        _ => (
            "Jwt payload [exp] field is not an integer",
            "Jwt payload [exp] field is not a positive 64 bit integer",
        ),
    };
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    let seconds = value.as_f64().ok_or(Fault(no_number))?;
    match (0.0..9.2e18).contains(&seconds) {
        true => Ok(Some(seconds as u64)),
        false => Err(Fault(out_of_range)),
    }
}

/// Members of an object in which each name stands once: of two values nobody could tell which one somebody else reads.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Unique;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands here twice"));
            }
        }
        Ok(Unique(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    fn fault(text: &str) -> &'static str {
        Token::parse(text).err().map_or("", |fault| fault.0)
    }

    #[test]
    fn what_is_no_token_says_why() {
        let (header, payload) = (part(r#"{"alg":"HS256"}"#), part("{}"));
        let with_header = |json: &str| format!("{}.{payload}.AA", part(json));
        let with_payload = |json: &str| format!("{header}.{}.AA", part(json));
        for (text, told) in [
            (String::new(), Fault::FORM.0),
            ("a".to_owned(), Fault::FORM.0),
            (format!("{header}.{payload}"), Fault::FORM.0),
            (format!("{header}.{payload}.AA.AA.AA"), Fault::FORM.0),
            (format!("{header}=.{payload}.AA"), Fault::HEADER_BASE64.0),
            (format!("{header}.{payload}=.AA"), Fault::PAYLOAD_BASE64.0),
            // Standard alphabet, padding, a last character with bits that nobody reads.
            (format!("{header}.{payload}.+/"), Fault::SIGNATURE.0),
            (format!("{header}.{payload}.AA=="), Fault::SIGNATURE.0),
            (format!("{header}.{payload}.AB"), Fault::SIGNATURE.0),
            (with_header("[]"), Fault::HEADER_JSON.0),
            (with_header("{}"), Fault::ALGORITHM.0),
            (with_header(r#"{"alg":1}"#), Fault::ALGORITHM.0),
            (with_header(r#"{"alg":"none"}"#), Fault::UNKNOWN_ALGORITHM.0),
            (with_header(r#"{"alg":"None"}"#), Fault::UNKNOWN_ALGORITHM.0),
            (with_header(r#"{"alg":""}"#), Fault::UNKNOWN_ALGORITHM.0),
            (with_header(r#"{"alg":"hs256"}"#), Fault::UNKNOWN_ALGORITHM.0),
            (with_header(r#"{"alg":"ES256K"}"#), Fault::UNKNOWN_ALGORITHM.0),
            (with_header(r#"{"alg":"HS256","kid":7}"#), Fault::KEY_ID.0),
            (
                with_header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
                Fault::CRITICAL.0,
            ),
            (with_header(r#"{"alg":"HS256","crit":[]}"#), Fault::CRITICAL.0),
            (
                with_header(r#"{"alg":"HS256","alg":"HS256"}"#),
                Fault::HEADER_JSON.0,
            ),
            (with_payload("1"), Fault::PAYLOAD_JSON.0),
            (with_payload(r#"{"sub":"a","sub":"b"}"#), Fault::PAYLOAD_JSON.0),
            (with_payload(r#"{"sub":"a"} {}"#), Fault::PAYLOAD_JSON.0),
            (with_payload(r#"{"iss":1}"#), Fault::ISSUER.0),
            (with_payload(r#"{"sub":[]}"#), Fault::SUBJECT.0),
            (with_payload(r#"{"jti":1}"#), Fault::TOKEN_ID.0),
            (with_payload(r#"{"aud":["a",1]}"#), Fault::AUDIENCE.0),
            (
                with_payload(r#"{"exp":"1"}"#),
                "Jwt payload [exp] field is not an integer",
            ),
            (
                with_payload(r#"{"exp":null}"#),
                "Jwt payload [exp] field is not an integer",
            ),
            (
                with_payload(r#"{"nbf":-1}"#),
                "Jwt payload [nbf] field is not a positive 64 bit integer",
            ),
            (
                with_payload(r#"{"iat":1e300}"#),
                "Jwt payload [iat] field is not a positive 64 bit integer",
            ),
            ("a".repeat(LONGEST + 1), Fault::LENGTH.0),
        ] {
            assert_eq!(fault(&text), told, "{text:.80}");
        }
    }

    #[test]
    fn claims_stand_at_the_top_or_behind_dots() {
        let payload = json!({"a.b": 1, "a": {"b": 2, "c": {"d": "x"}}, "aud": ["a"], "exp": 10.9});
        let text = format!(
            "{}.{}.AA",
            part(r#"{"alg":"HS256","kid":"k"}"#),
            part(&payload.to_string())
        );
        let token = Token::parse(&text).ok().unwrap();
        assert_eq!(token.key_id.as_deref(), Some("k"));
        assert_eq!(token.claim("a.b"), Some(&json!(1)));
        assert_eq!(token.claim("a.c.d"), Some(&json!("x")));
        assert_eq!(token.claim("a.c.e"), None);
        assert_eq!(token.claim("aud.0"), None);
        assert_eq!(token.ends, Some(10));
    }

    #[test]
    fn times_hold_to_the_second() {
        let token = |payload: Value| {
            let text = format!("{}.{}.AA", part(r#"{"alg":"HS256"}"#), part(&payload.to_string()));
            move |now, skew| Token::parse(&text).and_then(|token| token.is_current(now, skew))
        };
        let ends = token(json!({"exp": 100}));
        assert_eq!((ends(100, 0), ends(101, 0)), (Ok(()), Err(Fault::EXPIRED)));
        assert_eq!((ends(160, 60), ends(161, 60)), (Ok(()), Err(Fault::EXPIRED)));
        // Zero is a time like any other.
        assert_eq!(token(json!({"exp": 0}))(61, 60), Err(Fault::EXPIRED));
        for name in ["nbf", "iat"] {
            let begins = token(json!({name: 100}));
            assert_eq!(
                (begins(100, 0), begins(99, 0)),
                (Ok(()), Err(Fault::EARLY)),
                "{name}"
            );
            assert_eq!(
                (begins(40, 60), begins(39, 60)),
                (Ok(()), Err(Fault::EARLY)),
                "{name}"
            );
        }
        assert_eq!(token(json!({}))(u64::MAX, u64::MAX), Ok(()));
        assert_eq!(token(json!({"exp": u64::MAX}))(u64::MAX, u64::MAX), Ok(()));
    }
}
