//! `proxy-next-upstream*`: when a request is tried again.

use std::time::Duration;

use http::StatusCode;
use tollgate_snapshot::policy::Retry;

use super::reader::{LONGEST, Reader};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("proxy-next-upstream", Under::Both),
        ("proxy-next-upstream-tries", Under::Both),
        ("proxy-next-upstream-timeout", Under::Both),
    ],
    read,
};

const TRIES: u32 = 3;

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let keys = [
        "proxy-next-upstream",
        "proxy-next-upstream-tries",
        "proxy-next-upstream-timeout",
    ];
    if !keys.iter().any(|key| reader.has(key)) {
        return;
    }
    let mut retry = Retry {
        attempts: TRIES,
        per_try: None,
        statuses: Vec::new(),
        on_5xx: true,
        non_idempotent: false,
    };
    if let Some(tries) = reader.number("proxy-next-upstream-tries") {
        retry.attempts = u32::try_from(tries).unwrap_or(0);
    }
    if let Some(seconds) = reader.number("proxy-next-upstream-timeout") {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        retry.per_try = (seconds > 0).then(|| Duration::from_secs(seconds).min(LONGEST));
    }
    if let Some(conditions) = reader.text("proxy-next-upstream") {
        read_conditions(reader, &conditions, &mut retry);
    }
    features.retry = Some(retry);
}

fn read_conditions(reader: &mut Reader<'_>, text: &str, retry: &mut Retry) {
    retry.on_5xx = false;
    let words = text.split([',', ' ', '\n', '\t']).filter(|word| !word.is_empty());
    for word in words {
        match word {
            "off" => {
                retry.attempts = 0;
                return;
            }
            "error" | "timeout" | "invalid_header" => retry.on_5xx = true,
            "non_idempotent" => retry.non_idempotent = true,
            _ => match word.strip_prefix("http_").map(str::parse::<StatusCode>) {
                Some(Ok(status)) => retry.statuses.push(status),
                _ => reader.note_key(
                    "proxy-next-upstream",
                    "knows off, error, timeout, invalid_header, non_idempotent and http_<status>: another word is ignored",
                ),
            },
        }
    }
    if !retry.on_5xx && retry.statuses.is_empty() {
        retry.statuses = Retry::default().statuses;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    fn retry(conditions: &str) -> Retry {
        read_from(&[("nginx.ingress.kubernetes.io/proxy-next-upstream", conditions)])
            .0
            .retry
            .unwrap()
    }

    #[test]
    fn conditions() {
        let mixed = retry("error,http_502 , non_idempotent");
        assert!(mixed.on_5xx && mixed.non_idempotent);
        assert_eq!(mixed.statuses, [StatusCode::BAD_GATEWAY]);
        assert_eq!(mixed.attempts, 3);
        assert_eq!(retry("off").attempts, 0);
        let unknown = retry("sometimes");
        assert_eq!(
            (unknown.statuses, unknown.on_5xx),
            (Retry::default().statuses, false)
        );
        assert!(!retry("http_404").on_5xx);
    }

    #[test]
    fn tries_and_time_of_one() {
        let (features, _) = read_from(&[
            ("higress.io/proxy-next-upstream-tries", "5"),
            ("higress.io/proxy-next-upstream-timeout", "2"),
        ]);
        let retry = features.retry.unwrap();
        assert_eq!((retry.attempts, retry.on_5xx), (5, true));
        assert_eq!(retry.per_try, Some(Duration::from_secs(2)));
        let (features, _) = read_from(&[("higress.io/proxy-next-upstream-tries", "-1")]);
        assert_eq!(features.retry.unwrap().attempts, 0);
        assert_eq!(read_from(&[]).0.retry, None);
    }
}
