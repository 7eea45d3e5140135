//! Protocol upgrades (WebSocket): after both sides agreed, bytes are copied both ways until one ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tollgate_base::shutdown::Phase;
use tollgate_base::{Termination, task};
use tollgate_body::{Body, Response};

use crate::account::{Account, Delivery};
use crate::reply;
use crate::route::Router;

/// Joins the two sides and answers 101; a response nobody asked to upgrade for becomes a 502.
pub(crate) fn splice(
    router: &Router<'_>,
    account: Account,
    mut response: Response,
) -> hyper::Response<Delivery> {
    let upstream = response.extensions_mut().remove::<OnUpgrade>();
    let client = router.upgrade.borrow_mut().take();
    let (Some(client_side), Some(upstream_side)) = (client, upstream) else {
        let failure = tollgate_base::Error::upstream(
            http::StatusCode::BAD_GATEWAY,
            "unexpected_upgrade",
            "upstream switched protocols unasked",
        );
        let refused = reply::finish(account.record(), Err(failure));
        return account.attach(refused);
    };
    let record = account.record().clone();
    let (tunnel_account, answer) = account.detach(response.map(|_| Body::empty()));
    let mut shutdown = router.worker.shutdown.clone();
    let tunnel = task::spawn_local("upgraded connection", async move {
        let both = futures_util::future::try_join(client_side, upstream_side);
        let copy = async {
            let Ok((client, upstream)) = both.await else {
                return;
            };
            let (mut left, mut right) = (TokioIo::new(client), TokioIo::new(upstream));
            if let Ok((received, sent)) = tokio::io::copy_bidirectional(&mut left, &mut right).await {
                record.bytes_received.set(record.bytes_received.get() + received);
                record.bytes_sent.set(record.bytes_sent.get() + sent);
                record.terminate(Termination::Completed);
            }
        };
        tokio::select! {
            () = copy => {}
            () = shutdown.reached(Phase::Stopped) => {}
        }
        drop(tunnel_account);
    });
    // The task ends with its connections; nobody waits for it.
    drop(tunnel);
    answer
}
