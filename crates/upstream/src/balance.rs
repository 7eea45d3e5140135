//! Which endpoint gets the next request. Endpoints that recently refused a connection are passed over while another
//! one is left.
//!
//! A requester that stays with an endpoint ([`StickyKey`]) is told by the proxy; every worker and every gateway of the
//! same build sends it to the same one, without having to tell each other.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::rc::Rc;

use foldhash::quality::FixedState;
use smallvec::SmallVec;
use tollgate_base::clock::Instant;
use tollgate_snapshot::LoadBalance;

use crate::endpoint::Endpoint;

/// Who asks, for a cluster that keeps requesters apart ([`LoadBalance::Sticky`]); an extension of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyKey(u64);

impl StickyKey {
    /// Of what tells this requester from others.
    #[must_use]
    pub fn of(told_by: &[u8]) -> Self {
        Self(FixedState::default().hash_one(told_by))
    }
}

/// The address that somebody has chosen for the first attempt of a request; an extension of the request. It counts while
/// it is one of the cluster's and may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen(pub SocketAddr);

/// The endpoint of this address, if it may be used.
pub(crate) fn chosen(endpoints: &[Rc<Endpoint>], address: Chosen, now: Instant) -> Option<&Rc<Endpoint>> {
    let mut found = endpoints.iter();
    found.find(|endpoint| endpoint.address == address.0 && !endpoint.is_ejected(now))
}

/// `None` only when there is no endpoint at all.
pub(crate) fn pick<'a>(
    endpoints: &'a [Rc<Endpoint>],
    policy: &LoadBalance,
    key: Option<StickyKey>,
    now: Instant,
) -> Option<&'a Rc<Endpoint>> {
    if let [only] = endpoints {
        return Some(only);
    }
    if endpoints.iter().any(|endpoint| endpoint.is_ejected(now)) {
        let healthy: SmallVec<[&Rc<Endpoint>; 8]> = endpoints
            .iter()
            .filter(|endpoint| !endpoint.is_ejected(now))
            .collect();
        if !healthy.is_empty() {
            return by_policy(&healthy, policy, key);
        }
    }
    let all: SmallVec<[&Rc<Endpoint>; 8]> = endpoints.iter().collect();
    by_policy(&all, policy, key)
}

fn by_policy<'a>(
    candidates: &[&'a Rc<Endpoint>],
    policy: &LoadBalance,
    key: Option<StickyKey>,
) -> Option<&'a Rc<Endpoint>> {
    match (policy, key) {
        (LoadBalance::Sticky(_), Some(key)) => own_of(candidates, key),
        (LoadBalance::Sticky(_) | LoadBalance::Random, _) => {
            at_random(candidates, None).map(|index| candidates[index])
        }
        (LoadBalance::LeastRequest, _) => less_loaded(candidates),
        (LoadBalance::RoundRobin, _) => in_turn(candidates),
    }
}

/// Two at random by weight; the one with fewer requests for its weight.
fn less_loaded<'a>(candidates: &[&'a Rc<Endpoint>]) -> Option<&'a Rc<Endpoint>> {
    let first_index = at_random(candidates, None)?;
    let first = candidates[first_index];
    let Some(second_index) = at_random(candidates, Some(first_index)) else {
        return Some(first);
    };
    let second = candidates[second_index];
    let load = |one: &Endpoint, other: &Endpoint| u64::from(one.active()) * u64::from(other.weight);
    Some(if load(second, first) < load(first, second) {
        second
    } else {
        first
    })
}

/// Rendezvous hashing by weight: each endpoint draws a lot that depends on itself and the requester, the best wins. When
/// one goes, only its requesters move; when one comes, it takes its share from all.
fn own_of<'a>(candidates: &[&'a Rc<Endpoint>], key: StickyKey) -> Option<&'a Rc<Endpoint>> {
    /// Values of a lot: as many as a float tells apart.
    const LOTS: u64 = 1 << 53;
    let draw = FixedState::with_seed(key.0);
    let lot = |endpoint: &Endpoint| {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53, by the remainder")]
        let drawn = ((draw.hash_one(endpoint.address) % LOTS) as f64 + 0.5) / LOTS as f64;
        f64::from(endpoint.weight) / -drawn.ln()
    };
    candidates
        .iter()
        .copied()
        .max_by(|one, other| lot(one).total_cmp(&lot(other)))
}

/// Smooth weighted round robin: who has the most credit is next and pays what all the others earned.
fn in_turn<'a>(candidates: &[&'a Rc<Endpoint>]) -> Option<&'a Rc<Endpoint>> {
    let mut total = 0;
    let mut best: Option<&'a Rc<Endpoint>> = None;
    for &candidate in candidates {
        let weight = i64::from(candidate.weight);
        total += weight;
        candidate.credit.set(candidate.credit.get() + weight);
        if best.is_none_or(|richest| candidate.credit.get() > richest.credit.get()) {
            best = Some(candidate);
        }
    }
    let chosen = best?;
    chosen.credit.set(chosen.credit.get() - total);
    Some(chosen)
}

/// An index by weight, never `except`.
fn at_random(candidates: &[&Rc<Endpoint>], except: Option<usize>) -> Option<usize> {
    let weight_of = |index: usize| {
        if Some(index) == except {
            0
        } else {
            u64::from(candidates[index].weight)
        }
    };
    let total: u64 = (0..candidates.len()).map(weight_of).sum();
    if total == 0 {
        return None;
    }
    let mut ticket = fastrand::u64(..total);
    for index in 0..candidates.len() {
        let weight = weight_of(index);
        if ticket < weight {
            return Some(index);
        }
        ticket -= weight;
    }
    None
}
