//! Virtual hosts and the choice of a route.
//!
//! Exact host, then the longest wildcard suffix, then `*`; when none of a host's routes match, the next less
//! specific host is tried (as Higress falls through).

use std::collections::HashMap;
use std::sync::Arc;

use crate::Route;
use crate::route::RequestHead;

/// The routes of one host, in the order in which they are tried.
#[derive(Debug, Default)]
pub struct VirtualHost {
    /// As configured (`*.foo.com`).
    pub name: Box<str>,
    /// First match wins; sorted when compiled.
    pub routes: Vec<Arc<Route>>,
}

/// All virtual hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    /// By lower-case name.
    pub exact: HashMap<Box<str>, VirtualHost>,
    /// By suffix including the dot, longest first.
    pub wildcard: Vec<(Box<str>, VirtualHost)>,
    /// Host `*`.
    pub any: Option<VirtualHost>,
}

impl Hosts {
    /// The hosts to try for `host` (lower case, no port), most specific first.
    pub fn candidates<'a, 'h>(
        &'a self,
        host: &'h str,
    ) -> impl Iterator<Item = &'a VirtualHost> + use<'a, 'h> {
        let suffixes = self
            .wildcard
            .iter()
            .filter(move |(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        self.exact
            .get(host)
            .into_iter()
            .chain(suffixes.map(|(_, virtual_host)| virtual_host))
            .chain(self.any.as_ref())
    }

    /// The route for a request; `None` is a 404 with flag `NR`.
    #[must_use]
    pub fn find(&self, head: &RequestHead<'_>) -> Option<&Arc<Route>> {
        for virtual_host in self.candidates(head.host) {
            if let Some(route) = virtual_host
                .routes
                .iter()
                .find(|route| route.matcher.matches(head))
            {
                return Some(route);
            }
        }
        None
    }
}
