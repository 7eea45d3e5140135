//! `load-balance` and its relatives: how an endpoint of a service is picked. Counts per service, like TLS.

use tollgate_snapshot::LoadBalance;

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("load-balance", Under::Both),
        ("upstream-hash-by", Under::Both),
        ("affinity", Under::Both),
        ("affinity-mode", Under::Both),
        ("affinity-canary-behavior", Under::Both),
        ("session-cookie-name", Under::Both),
        ("session-cookie-path", Under::Both),
        ("session-cookie-max-age", Under::Both),
        ("session-cookie-expires", Under::Both),
        ("mcp-sse-stateful-param-name", Under::Both),
    ],
    read,
};

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let sticky = [
        "affinity",
        "session-cookie-name",
        "session-cookie-path",
        "upstream-hash-by",
    ];
    if let Some(key) = sticky.iter().find(|key| reader.has(key)) {
        reader.note_key(
            key,
            "sticky sessions are not supported yet: endpoints take turns instead",
        );
        features.load_balance = Some(LoadBalance::RoundRobin);
        return;
    }
    if !reader.has("load-balance") {
        return;
    }
    let name = reader
        .text("load-balance")
        .unwrap_or_default()
        .to_ascii_uppercase();
    features.load_balance = Some(match name.as_str() {
        "ROUND_ROBIN" => LoadBalance::RoundRobin,
        "LEAST_CONN" | "LEAST_REQUEST" => LoadBalance::LeastRequest,
        "RANDOM" => LoadBalance::Random,
        "MCP-SSE" | "PASSTHROUGH" => {
            reader.note_key(
                "load-balance",
                "this policy is not supported yet: the less loaded endpoint is picked",
            );
            LoadBalance::LeastRequest
        }
        _ => {
            reader.note_key(
                "load-balance",
                "expected ROUND_ROBIN, LEAST_REQUEST or RANDOM: the less loaded endpoint is picked",
            );
            LoadBalance::LeastRequest
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    #[test]
    fn policies() {
        for (name, policy, notes_wanted) in [
            ("round_robin", LoadBalance::RoundRobin, 0),
            ("LEAST_CONN", LoadBalance::LeastRequest, 0),
            ("Random", LoadBalance::Random, 0),
            ("mcp-sse", LoadBalance::LeastRequest, 1),
            ("best", LoadBalance::LeastRequest, 1),
        ] {
            let (features, notes) = read_from(&[("higress.io/load-balance", name)]);
            assert_eq!((features.load_balance, notes.len()), (Some(policy), notes_wanted));
        }
        assert_eq!(read_from(&[]).0.load_balance, None);
    }

    #[test]
    fn stickiness_is_told_not_silently_dropped() {
        let (features, notes) =
            read_from(&[("nginx.ingress.kubernetes.io/upstream-hash-by", "$remote_addr")]);
        assert_eq!(features.load_balance, Some(LoadBalance::RoundRobin));
        assert_eq!(notes[0].key, "nginx.ingress.kubernetes.io/upstream-hash-by");
    }
}
