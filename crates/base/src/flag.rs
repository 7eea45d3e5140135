//! Response flags of the access log (`%RESPONSE_FLAGS%`), Envoy's short names.

/// One reason why a request did not simply succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// `UH`: no healthy endpoint.
    NoHealthyUpstream,
    /// `UF`: connecting failed.
    UpstreamConnectFailure,
    /// `UO`: a circuit threshold is reached.
    UpstreamOverflow,
    /// `NR`: no route.
    NoRoute,
    /// `NC`: the route's cluster does not exist.
    NoCluster,
    /// `URX`: retries are used up.
    RetriesExhausted,
    /// `UT`: a timer ran out.
    UpstreamTimeout,
    /// `DC`: the client went away.
    DownstreamDisconnect,
    /// `UC`: the upstream connection ended in mid-answer.
    UpstreamCut,
    /// `UR`: the upstream reset the stream.
    UpstreamReset,
    /// `UPE`: the upstream broke its protocol.
    UpstreamProtocolError,
    /// `DPE`: the client broke its protocol.
    DownstreamProtocolError,
    /// `RL`: rate limited here.
    RateLimited,
    /// `UAEX`: refused by an authorisation filter.
    Unauthorized,
    /// `SI`: a stream was idle for too long.
    StreamIdle,
    /// `OM`: shed under load.
    Overload,
}

impl Flag {
    const ALL: [(Flag, &'static str); 16] = [
        (Flag::NoHealthyUpstream, "UH"),
        (Flag::UpstreamConnectFailure, "UF"),
        (Flag::UpstreamOverflow, "UO"),
        (Flag::NoRoute, "NR"),
        (Flag::NoCluster, "NC"),
        (Flag::RetriesExhausted, "URX"),
        (Flag::UpstreamTimeout, "UT"),
        (Flag::DownstreamDisconnect, "DC"),
        (Flag::UpstreamCut, "UC"),
        (Flag::UpstreamReset, "UR"),
        (Flag::UpstreamProtocolError, "UPE"),
        (Flag::DownstreamProtocolError, "DPE"),
        (Flag::RateLimited, "RL"),
        (Flag::Unauthorized, "UAEX"),
        (Flag::StreamIdle, "SI"),
        (Flag::Overload, "OM"),
    ];

    /// The short name in the access log.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A set of flags; a request may collect several (`UF,URX`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Adds one.
    pub fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u32;
    }

    /// No flag at all: the log prints `-`.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `flag` is set.
    #[must_use]
    pub fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u32) != 0
    }

    /// Those set, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL
            .iter()
            .map(|row| row.0)
            .filter(move |flag| self.contains(*flag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, (flag, _)) in Flag::ALL.iter().enumerate() {
            assert_eq!(*flag as usize, index);
        }
        let mut flags = Flags::default();
        flags.insert(Flag::RetriesExhausted);
        flags.insert(Flag::UpstreamConnectFailure);
        let names: Vec<_> = flags.iter().map(Flag::short_name).collect();
        assert_eq!(names, ["UF", "URX"]);
    }
}
