//! Which endpoint is chosen, and how one that refuses connections is passed over and taken back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tollgate_base::Flag;
use tollgate_observe::Metrics;
use tollgate_snapshot::{Cluster, Endpoints, LoadBalance, Requester};

use crate::SendTimers;
use crate::balance::{Chosen, StickyKey, pick};
use crate::endpoint::{Counters, Endpoint, Lease};
use crate::tests::support::{Server, get, plain, record, send, text, upstreams, worker};

fn endpoints(weights: &[u32]) -> Vec<Rc<Endpoint>> {
    let counters = Counters::new(Metrics::new().cluster("test"));
    let address = |index: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(index).unwrap() + 1));
    weights
        .iter()
        .enumerate()
        .map(|(index, weight)| Endpoint::new(address(index), *weight, None, Rc::clone(&counters)))
        .collect()
}

/// How often each endpoint is chosen; `held` keeps every choice under way.
fn choices(endpoints: &[Rc<Endpoint>], policy: LoadBalance, count: usize, held: bool) -> Vec<usize> {
    let mut chosen: HashMap<SocketAddr, usize> = HashMap::new();
    let mut leases = Vec::new();
    let now = tollgate_base::clock::now();
    for _ in 0..count {
        let endpoint = pick(endpoints, &policy, None, now).unwrap();
        *chosen.entry(endpoint.address).or_default() += 1;
        if held {
            leases.push(Lease::new(Rc::clone(endpoint), now));
        }
    }
    endpoints
        .iter()
        .map(|endpoint| chosen.get(&endpoint.address).copied().unwrap_or(0))
        .collect()
}

#[test]
fn round_robin_keeps_the_weights_and_spreads_them() {
    worker(true, async {
        let all = endpoints(&[1, 1, 1]);
        assert_eq!(choices(&all, LoadBalance::RoundRobin, 30, false), [10, 10, 10]);
        let weighted = endpoints(&[3, 1]);
        for _ in 0..5 {
            assert_eq!(choices(&weighted, LoadBalance::RoundRobin, 4, false), [3, 1]);
        }
    });
}

#[test]
fn random_keeps_the_weights_on_average() {
    worker(true, async {
        let counts = choices(&endpoints(&[3, 1]), LoadBalance::Random, 4000, false);
        assert!((2800..3200).contains(&counts[0]), "{counts:?}");
    });
}

#[test]
fn least_request_evens_out_what_is_under_way() {
    worker(true, async {
        // With two endpoints both are always compared.
        assert_eq!(
            choices(&endpoints(&[1, 1]), LoadBalance::LeastRequest, 100, true),
            [50, 50]
        );
        let counts = choices(&endpoints(&[3, 1]), LoadBalance::LeastRequest, 400, true);
        assert!((295..=305).contains(&counts[0]), "{counts:?}");
        let many = choices(&endpoints(&[1; 10]), LoadBalance::LeastRequest, 1000, true);
        assert!(many.iter().all(|count| (90..=110).contains(count)), "{many:?}");
    });
}

#[test]
fn an_endpoint_that_refused_is_passed_over_for_a_growing_while() {
    worker(true, async {
        let all = endpoints(&[1, 1]);
        let share = || choices(&all, LoadBalance::RoundRobin, 10, false)[0];
        all[0].connect_failed();
        assert_eq!(share(), 0);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(share(), 5);
        all[0].connect_failed();
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(share(), 0);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(share(), 5);
        for _ in 0..40 {
            all[0].connect_failed();
        }
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(share(), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(share(), 5);
        all[0].connect_failed();
        all[0].connected();
        assert_eq!(share(), 5);
        // With nobody left, the refusing ones are better than nothing.
        all[0].connect_failed();
        all[1].connect_failed();
        assert_eq!(share(), 5);
    });
}

/// Where each of a hundred requesters goes.
fn homes(endpoints: &[Rc<Endpoint>]) -> Vec<SocketAddr> {
    let policy = LoadBalance::Sticky(Requester::Address);
    let now = tollgate_base::clock::now();
    let home = |number: u32| {
        let key = StickyKey::of(&number.to_be_bytes());
        pick(endpoints, &policy, Some(key), now).unwrap().address
    };
    (0..100).map(home).collect()
}

#[test]
fn a_requester_stays_where_it_is_while_others_come_and_go() {
    worker(true, async {
        let all = endpoints(&[1, 1, 1, 1]);
        let before = homes(&all);
        assert_eq!(homes(&all), before);
        for endpoint in &all {
            let own = before.iter().filter(|home| **home == endpoint.address).count();
            assert!((10..=45).contains(&own), "{own} of 100");
        }
        let without_last = homes(&all[..3]);
        for (old, new) in before.iter().zip(&without_last) {
            assert!(old == new || *old == all[3].address);
        }
        assert!(!without_last.contains(&all[3].address));
    });
}

#[test]
fn sticky_keeps_the_weights_and_leaves_an_endpoint_that_refuses() {
    worker(true, async {
        let all = endpoints(&[9, 1]);
        let before = homes(&all);
        let first = before.iter().filter(|home| **home == all[0].address).count();
        assert!((80..=97).contains(&first), "{first} of 100");
        all[0].connect_failed();
        assert!(homes(&all).iter().all(|home| *home == all[1].address));
        all[0].connected();
        assert_eq!(homes(&all), before);
    });
}

#[test]
fn who_shows_nothing_goes_anywhere() {
    worker(true, async {
        let shares = choices(
            &endpoints(&[1, 1]),
            LoadBalance::Sticky(Requester::Address),
            1000,
            false,
        );
        assert!(shares.iter().all(|share| *share > 350), "{shares:?}");
    });
}

#[test]
fn after_one_failure_the_healthy_endpoint_gets_everything() {
    worker(false, async {
        let server = Server::polite().await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = closed.local_addr().unwrap();
        drop(closed);
        let mut cluster: Cluster = plain(server.address);
        cluster.endpoints = Endpoints::Static(vec![(dead, 1), (server.address, 1)]);
        cluster.load_balance = LoadBalance::RoundRobin;
        let (upstreams, cluster) = (upstreams(), Arc::new(cluster));
        let failures = RefCell::new(0);
        for _ in 0..10 {
            match send(&upstreams, &cluster, get("/")).await {
                Ok(response) => drop(text(response).await.unwrap()),
                Err(error) => {
                    assert_eq!(error.flag(), Some(Flag::UpstreamConnectFailure));
                    *failures.borrow_mut() += 1;
                }
            }
        }
        assert_eq!(*failures.borrow(), 1);
    });
}

#[test]
fn an_address_that_was_chosen_gets_the_first_attempt() {
    worker(false, async {
        let servers = [Server::polite().await, Server::polite().await];
        let [first, second] = [&servers[0], &servers[1]].map(|server| server.address);
        let mut cluster: Cluster = plain(first);
        cluster.endpoints = Endpoints::Static(vec![(first, 1), (second, 1)]);
        cluster.load_balance = LoadBalance::RoundRobin;
        let (upstreams, cluster) = (upstreams(), Arc::new(cluster));
        let went_to = async |chosen: SocketAddr, earlier_attempts: u32| {
            let mut request = get("/");
            request.extensions_mut().insert(Chosen(chosen));
            let record = record();
            record.attempts.set(earlier_attempts);
            let timers = SendTimers::default();
            let response = upstreams.send(&cluster, request, &timers, &record).await;
            drop(text(response.unwrap()).await.unwrap());
            record.upstream_peer.get().unwrap()
        };
        for _ in 0..4 {
            assert_eq!(went_to(second, 0).await, second);
        }
        let elsewhere = SocketAddr::from(([127, 0, 0, 1], 9));
        // Another attempt, and an address that is none of the cluster's, are balanced.
        for (chosen, earlier) in [(second, 1), (elsewhere, 0)] {
            let both = [went_to(chosen, earlier).await, went_to(chosen, earlier).await];
            assert!(both.contains(&first) && both.contains(&second), "{both:?}");
        }
    });
}
