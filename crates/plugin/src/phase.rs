//! Where in the chain a plugin stands: phase first, then priority.

use std::cmp::Reverse;

/// The phases of a `WasmPlugin`, in the order in which requests meet them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Who is asking.
    Authn,
    /// May they.
    Authz,
    /// What is counted.
    Stats,
    /// Everything else, next to the router.
    #[default]
    Unspecified,
}

impl Phase {
    /// Higress's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Authn => "AUTHN",
            Phase::Authz => "AUTHZ",
            Phase::Stats => "STATS",
            Phase::Unspecified => "UNSPECIFIED_PHASE",
        }
    }
}

/// Sort key of a plugin in the chain: phase, then higher priority first (an unset priority comes last).
/// Ties keep the order in which the objects were created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(Phase, Reverse<i64>);

impl Order {
    /// Key for `phase` and `priority`.
    #[must_use]
    pub fn new(phase: Phase, priority: Option<i32>) -> Self {
        Self(phase, Reverse(priority.map_or(i64::MIN, i64::from)))
    }

    /// The phase.
    #[must_use]
    pub fn phase(self) -> Phase {
        self.0
    }

    /// The priority as written; `None` when unset.
    #[must_use]
    pub fn priority(self) -> Option<i32> {
        i32::try_from(self.1.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_then_priority_descending_then_unset() {
        let mut orders = [
            Order::new(Phase::Unspecified, Some(100)),
            Order::new(Phase::Authn, None),
            Order::new(Phase::Authn, Some(-5)),
            Order::new(Phase::Authn, Some(310)),
        ];
        orders.sort();
        assert_eq!(orders[0], Order::new(Phase::Authn, Some(310)));
        assert_eq!(orders[2], Order::new(Phase::Authn, None));
        assert_eq!(orders[3], Order::new(Phase::Unspecified, Some(100)));
    }
}
