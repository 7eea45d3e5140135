//! Which models a caller may use: those of all routes of a host whose plugins would let the caller in.
//!
//! Asked for by whoever answers `GET /v1/models`; never on the way of other requests.

use tollgate_snapshot::Snapshot;
use tollgate_snapshot::route::{Action, Route};

/// The models, in the order of the routes.
pub(crate) fn of_host(snapshot: &Snapshot, host: &str, consumer: Option<&str>) -> Vec<String> {
    let routes = snapshot.hosts.candidates(host).flat_map(|found| &found.routes);
    routes.flat_map(|route| of_route(route, host, consumer)).collect()
}

fn of_route(route: &Route, host: &str, consumer: Option<&str>) -> Vec<String> {
    let (Action::Forward(destinations) | Action::RedirectPlain(_, destinations)) = &route.action else {
        return Vec::new();
    };
    let mut models = Vec::new();
    for destination in destinations {
        let cluster = Some(&**destination.name());
        let chosen = route.links.iter().filter_map(|link| link.choose(host, cluster));
        let plugins: Vec<_> = chosen.filter_map(|candidate| candidate.plugin.as_ref()).collect();
        if plugins.iter().all(|plugin| plugin.admits(consumer)) {
            models.extend(plugins.iter().flat_map(|plugin| plugin.models()));
        }
    }
    models
}
