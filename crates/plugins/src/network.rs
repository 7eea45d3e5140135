//! Addresses and networks as configs and headers write them, and sets of networks.
//!
//! An IPv4 address in IPv6's clothes is the IPv4 address everywhere.

use std::net::IpAddr;

/// An address, with or without a port.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    };
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare()
        .or_else(with_port)
        .or_else(bracketed)
        .map(|ip| ip.to_canonical())
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// `1.2.3.4`, `1.2.3.0/24`, `::1`, `fd00::/8`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = text
            .split_once('/')
            .map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let written: IpAddr = ip.trim().parse().ok()?;
        let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let bits: u32 = match bits {
            None => whole(written),
            Some(text) => text.trim().parse().ok().filter(|bits| *bits <= whole(written))?,
        };
        let base = written.to_canonical();
        // An IPv4 network written in IPv6.
        let bits = match whole(written) - whole(base) {
            0 => bits,
            surplus => bits.checked_sub(surplus)?,
        };
        Some(Self { base, bits })
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        let canonical = ip.to_canonical();
        self.base.is_ipv4() == canonical.is_ipv4()
            && (key(self.base) ^ key(canonical)).leading_zeros() >= self.bits
    }
}

/// An address as a number whose first bit is the address's.
fn key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Networks; a question costs no more than an address has bits, however many networks there are.
#[derive(Debug, Default)]
pub(crate) struct NetworkSet {
    v4: Trie,
    v6: Trie,
}

impl NetworkSet {
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let canonical = ip.to_canonical();
        match canonical.is_ipv4() {
            true => self.v4.contains(key(canonical)),
            false => self.v6.contains(key(canonical)),
        }
    }
}

impl FromIterator<Network> for NetworkSet {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let mask = u128::MAX.checked_shl(128 - network.bits).unwrap_or(0);
            let prefix = Prefix {
                base: key(network.base) & mask,
                bits: network.bits,
            };
            match network.base.is_ipv4() {
                true => v4.push(prefix),
                false => v6.push(prefix),
            }
        }
        Self {
            v4: Trie::new(v4),
            v6: Trie::new(v6),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    base: u128,
    bits: u32,
}

impl Prefix {
    fn contains(self, key: u128) -> bool {
        (self.base ^ key).leading_zeros() >= self.bits
    }
}

/// A crit-bit tree of prefixes none of which holds another. Along the way to a prefix only bits of the prefix are asked
/// for, so that the one at the end is the only one that can hold an address. The way is kept apart: it is small.
#[derive(Debug, Default)]
struct Trie {
    /// The root first.
    nodes: Vec<Node>,
    /// In ascending order.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
enum Node {
    /// Keys without this bit (0 is the first) go on at the next node, keys with it at that one.
    Fork { bit: u32, with: usize },
    /// Which prefix.
    End(usize),
}

impl Trie {
    fn new(mut prefixes: Vec<Prefix>) -> Self {
        prefixes.sort_unstable();
        // A wider prefix stands in front of those that it holds.
        prefixes.dedup_by(|next, kept| kept.contains(next.base));
        let mut nodes = Vec::with_capacity(2 * prefixes.len());
        grow(&mut nodes, &prefixes, 0);
        Self { nodes, prefixes }
    }

    fn contains(&self, key: u128) -> bool {
        let mut at = 0;
        while let Some(Node::Fork { bit, with }) = self.nodes.get(at) {
            at = if has(key, *bit) { *with } else { at + 1 };
        }
        let end = match self.nodes.get(at) {
            Some(Node::End(number)) => self.prefixes.get(*number),
            _ => None,
        };
        end.is_some_and(|prefix| prefix.contains(key))
    }
}

/// Adds the nodes for some of the prefixes; `number` is that of the first of them.
fn grow(nodes: &mut Vec<Node>, prefixes: &[Prefix], number: usize) {
    let [first, .., last] = prefixes else {
        nodes.extend(prefixes.iter().map(|_| Node::End(number)));
        return;
    };
    let bit = (first.base ^ last.base).leading_zeros();
    let (without, with) = prefixes.split_at(prefixes.partition_point(|prefix| !has(prefix.base, bit)));
    let fork = nodes.len();
    nodes.push(Node::Fork { bit, with: 0 });
    grow(nodes, without, number);
    nodes[fork] = Node::Fork {
        bit,
        with: nodes.len(),
    };
    grow(nodes, with, number + without.len());
}

fn has(key: u128, bit: u32) -> bool {
    key.rotate_left(bit) >> 127 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = |text: &str| Network::parse(text).unwrap();
        let contains = |text: &str, ip: &str| network(text).contains(ip.parse().unwrap());
        assert!(contains("10.1.0.0/16", "10.1.255.3") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::2"));
        assert!(contains("1.2.3.4", "1.2.3.4") && !contains("1.2.3.4", "1.2.3.5"));
        assert!(contains("1.2.3.4", "::ffff:1.2.3.4"));
        assert!(contains("::ffff:10.0.0.0/104", "10.9.9.9"));
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe00::"));
        for wrong in [
            "",
            "10.0.0.0/33",
            "x",
            "10.0.0.0/",
            "::/129",
            "10.0.0",
            "10.0.0.0/-1",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_with_and_without_ports() {
        for text in ["1.2.3.4", "1.2.3.4:80", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]:80"] {
            assert_eq!(address(text).unwrap().to_string(), "1.2.3.4", "{text}");
        }
        assert_eq!(address("[::1]").unwrap().to_string(), "::1");
        for wrong in ["", "unknown", "1.2.3", "_hidden", "[::1", "1.2.3.4:x"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_set_holds_what_one_of_its_networks_holds() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..40 {
            let count = random.usize(0..60);
            let networks: Vec<Network> = (0..count)
                .map(|_| {
                    let v4 = random.bool();
                    // Few different bits, so that networks lie in one another.
                    let base = u128::from(random.u8(..)) << if v4 { 24 } else { 120 };
                    let bits = random.u32(0..=if v4 { 32 } else { 128 });
                    let ip = match v4 {
                        true => IpAddr::V4(((base as u32) | random.u32(0..4)).into()),
                        false => IpAddr::V6((base | u128::from(random.u8(0..4))).into()),
                    };
                    Network::parse(&format!("{ip}/{bits}")).unwrap()
                })
                .collect();
            let set: NetworkSet = networks.iter().copied().collect();
            let bases = networks.iter().map(|network| network.base);
            let others = ["0.0.0.0", "255.255.255.255", "::", "ff::1", "::ffff:1.2.3.4"];
            let near = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ 1).into()),
                IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() ^ 1).into()),
            };
            let asked = bases.chain(others.map(|ip| ip.parse().unwrap()));
            for ip in asked.flat_map(|ip| [ip, near(ip)]) {
                let expected = networks.iter().any(|network| network.contains(ip));
                assert_eq!(set.contains(ip), expected, "round {round}: {ip} in {networks:?}");
            }
        }
    }

    #[test]
    fn many_networks_are_asked_in_few_steps() {
        let many = (0..100_000_u32)
            .map(|number| Network::parse(&format!("{}/32", std::net::Ipv4Addr::from(number * 977))));
        let set: NetworkSet = many.map(Option::unwrap).collect();
        assert!(set.v4.nodes.len() < 200_000);
        assert!(set.contains("0.0.3.209".parse().unwrap()) && !set.contains("0.0.3.210".parse().unwrap()));
    }
}
