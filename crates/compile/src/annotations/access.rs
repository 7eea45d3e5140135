//! `whitelist-source-range` and `route-limit-*`: who may come, and how often.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tollgate_snapshot::policy::{AddressRange, RateLimit};

use super::reader::{Reader, list};
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("whitelist-source-range", Under::Both),
        ("route-limit-rpm", Under::Higress),
        ("route-limit-rps", Under::Higress),
        ("route-limit-burst-multiplier", Under::Higress),
    ],
    read,
};

const BURST_MULTIPLIER: i64 = 5;

/// Holds no client: what is left of an allow-list without one usable entry.
const NOBODY: AddressRange = AddressRange {
    network: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    prefix: 32,
};

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    if let Some(text) = reader.text("whitelist-source-range") {
        features.allowed_sources = ranges(reader, &text);
    }
    let rates = [
        ("route-limit-rpm", Duration::from_secs(60)),
        ("route-limit-rps", Duration::from_secs(1)),
    ];
    for (key, interval) in rates {
        let Some(fill) = reader.higress_number(key) else {
            continue;
        };
        let multiplier = reader
            .higress_number("route-limit-burst-multiplier")
            .unwrap_or(BURST_MULTIPLIER);
        let bucket = (
            u32::try_from(fill),
            u32::try_from(fill.saturating_mul(multiplier)),
        );
        match bucket {
            (Ok(fill @ 1..), Ok(capacity @ 1..)) => {
                features.rate = Some(Arc::new(RateLimit {
                    fill,
                    interval,
                    capacity,
                }));
            }
            _ => reader.note_key(
                key,
                "the limit and its burst must be at least 1 and fit 32 bits: no limit",
            ),
        }
        return;
    }
}

/// A list that cannot be read keeps everybody out rather than letting everybody in.
fn ranges(reader: &mut Reader<'_>, text: &str) -> Vec<AddressRange> {
    let items = list(text, ',');
    if items.contains(&"*") {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    for item in items {
        match range(item) {
            Some(range) => ranges.push(range),
            None => reader.note_key(
                "whitelist-source-range",
                format!("`{item}` is neither an address nor a range: it lets nobody in"),
            ),
        }
    }
    if ranges.is_empty() {
        ranges.push(NOBODY);
    }
    ranges
}

fn range(text: &str) -> Option<AddressRange> {
    let Some((network, prefix)) = text.split_once('/') else {
        let network: IpAddr = text.parse().ok()?;
        let prefix = if network.is_ipv4() { 32 } else { 128 };
        return Some(AddressRange { network, prefix });
    };
    let network: IpAddr = network.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if network.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some(AddressRange { network, prefix })
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;

    fn allows(list: &str, address: &str) -> bool {
        let (features, _) = read_from(&[("nginx.ingress.kubernetes.io/whitelist-source-range", list)]);
        let ranges = features.allowed_sources;
        ranges.is_empty()
            || ranges
                .iter()
                .any(|range| range.contains(address.parse().unwrap()))
    }

    #[test]
    fn addresses_and_ranges() {
        assert!(allows("1.1.1.1, 10.0.0.0/8", "10.2.3.4") && allows("1.1.1.1", "1.1.1.1"));
        assert!(!allows("1.1.1.1", "1.1.1.2") && allows("fd00::/8", "fd12::1"));
        assert!(allows("1.1.1.1,*", "9.9.9.9"));
    }

    #[test]
    fn a_list_without_a_usable_entry_lets_nobody_in() {
        for list in ["nonsense", "10.0.0.0/33", "1.1.1.1/x"] {
            assert!(
                !allows(list, "10.0.0.1") && !allows(list, "1.1.1.1") && !allows(list, "::1"),
                "{list}"
            );
        }
        let (_, notes) = read_from(&[("higress.io/whitelist-source-range", "10.0.0.0/8,x")]);
        assert_eq!(
            notes[0].message,
            "`x` is neither an address nor a range: it lets nobody in"
        );
    }

    #[test]
    fn rate() {
        let limit = |entries: &[(&str, &str)]| {
            read_from(entries)
                .0
                .rate
                .map(|rate| (rate.fill, rate.interval.as_secs(), rate.capacity))
        };
        assert_eq!(limit(&[("higress.io/route-limit-rps", "10")]), Some((10, 1, 50)));
        let both = [
            ("higress.io/route-limit-rps", "10"),
            ("higress.io/route-limit-rpm", "100"),
        ];
        assert_eq!(limit(&both), Some((100, 60, 500)));
        let unusable = [
            ("higress.io/route-limit-rps", "10"),
            ("higress.io/route-limit-rpm", "many"),
        ];
        assert_eq!(limit(&unusable), Some((10, 1, 50)));
        let burst = [
            ("higress.io/route-limit-rps", "2"),
            ("higress.io/route-limit-burst-multiplier", "3"),
        ];
        assert_eq!(limit(&burst), Some((2, 1, 6)));
        assert_eq!(limit(&[("higress.io/route-limit-rps", "0")]), None);
        assert_eq!(limit(&[("higress.io/route-limit-rps", "-1")]), None);
    }
}
