//! Which endpoint gets the next request. Endpoints that recently refused a connection are passed over while another
//! one is left.

use std::rc::Rc;

use smallvec::SmallVec;
use tollgate_base::clock::Instant;
use tollgate_snapshot::LoadBalance;

use crate::endpoint::Endpoint;

/// `None` only when there is no endpoint at all.
pub(crate) fn pick(endpoints: &[Rc<Endpoint>], policy: LoadBalance, now: Instant) -> Option<&Rc<Endpoint>> {
    if let [only] = endpoints {
        return Some(only);
    }
    if endpoints.iter().any(|endpoint| endpoint.is_ejected(now)) {
        let healthy: SmallVec<[&Rc<Endpoint>; 8]> = endpoints
            .iter()
            .filter(|endpoint| !endpoint.is_ejected(now))
            .collect();
        if !healthy.is_empty() {
            return by_policy(&healthy, policy);
        }
    }
    let all: SmallVec<[&Rc<Endpoint>; 8]> = endpoints.iter().collect();
    by_policy(&all, policy)
}

fn by_policy<'a>(candidates: &[&'a Rc<Endpoint>], policy: LoadBalance) -> Option<&'a Rc<Endpoint>> {
    match policy {
        LoadBalance::LeastRequest => less_loaded(candidates),
        LoadBalance::RoundRobin => in_turn(candidates),
        LoadBalance::Random => at_random(candidates, None).map(|index| candidates[index]),
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
