//! How a Redis is reached: where the configuration or `--resolve` says it is, over TLS where it is spoken there, alone
//! or with all nodes of its cluster, or by asking sentinels for the master.
//!
//! One attempt; when to try again is the keeper's business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisFuture, RedisResult, TlsCertificates, TlsMode, cmd,
};

use super::address::{Address, Kind, Settings};
use crate::place::{Place, Places, Tls, Trust};

/// Longest that one attempt to connect takes.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Commands on their way to the connection.
const PIPELINE: usize = 1024;

type Outcome<T> = Result<T, String>;

/// What an attempt ends with.
#[derive(Clone)]
pub(super) enum Way {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

fn told(cause: RedisError) -> String {
    cause.to_string()
}

/// Connects to what the settings mean.
pub(super) async fn connect(settings: &Settings, places: &Arc<dyn Places>) -> Outcome<Way> {
    let attempt = Attempt { settings, places };
    match &settings.address {
        Address::Service(name, port) => {
            let place = places.service(name, *port);
            let place =
                place.ok_or_else(|| format!("the configuration has no service {name} with port {port}"))?;
            attempt.server(Server::of_service(name, *port, place)).await
        }
        Address::Servers { nodes, tls, kind } => match (kind, nodes.first()) {
            (Kind::Server, Some((host, port))) => attempt.server(attempt.named(host, *port, tls)).await,
            (Kind::Sentinels(master), _) => attempt.master(nodes, tls.as_ref(), master).await,
            (Kind::Cluster | Kind::Server, _) => attempt.cluster(nodes, tls.as_ref(), None).await,
        },
    }
}

/// One server: the name that is verified, and where it really is.
struct Server {
    host: String,
    port: u16,
    place: Place,
}

impl Server {
    /// Without a name of its own it is verified by the name that is looked up, else by its address.
    fn of_service(name: &str, port: u16, place: Place) -> Self {
        let tls = place.tls.as_ref();
        let asked = tls.and_then(|tls| tls.server_name.clone());
        let looked_up = place.names.first().map(|found| found.0.clone());
        let address = place.addresses.first().map(|found| found.ip().to_string());
        let host = asked.or(looked_up).or(address);
        Self {
            host: host.unwrap_or_else(|| name.to_owned()),
            port,
            place,
        }
    }
}

struct Attempt<'a> {
    settings: &'a Settings,
    places: &'a Arc<dyn Places>,
}

impl Attempt<'_> {
    fn named(&self, host: &str, port: u16, tls: &Option<Tls>) -> Server {
        let mut place = self.places.server(host, port);
        place.tls.clone_from(tls);
        Server {
            host: host.to_owned(),
            port,
            place,
        }
    }

    /// One server; the whole cluster, should it be a node of one.
    async fn server(&self, server: Server) -> Outcome<Way> {
        let (mut connection, server) = self.single(server, credentials(self.settings)).await?;
        let info: RedisResult<String> = cmd("INFO").arg("cluster").query_async(&mut connection).await;
        match info {
            Ok(info) if info.contains("cluster_enabled:1") => {
                let nodes = [(server.host.clone(), server.port)];
                let tls = server.place.tls.clone();
                self.cluster(&nodes, tls.as_ref(), Some(server)).await
            }
            // A user who may not ask is on no cluster that we could know of.
            _ => Ok(Way::Single(connection)),
        }
    }

    async fn single(
        &self,
        server: Server,
        identity: RedisConnectionInfo,
    ) -> Outcome<(MultiplexedConnection, Server)> {
        let tls = server.place.tls.as_ref();
        let info = address(&server.host, server.port, tls);
        let info = info
            .into_connection_info()
            .map_err(told)?
            .set_redis_settings(identity);
        let client = match tls.map(certificates) {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates),
        };
        let resolver = Resolver {
            known: Some((server.host.clone(), server.port, server.place.clone())),
            places: self.places.clone(),
        };
        let connection = client
            .map_err(told)?
            .get_multiplexed_async_connection_with_config(&config().set_dns_resolver(resolver))
            .await;
        Ok((connection.map_err(told)?, server))
    }

    /// The master that the first sentinel with an answer names; all are asked at once, as some may hang.
    async fn master(&self, sentinels: &[(String, u16)], tls: Option<&Tls>, name: &str) -> Outcome<Way> {
        let tls = tls.cloned();
        let asked = sentinels.iter().map(|(host, port)| {
            let sentinel = self.named(host, *port, &tls);
            let tls = &tls;
            Box::pin(async move {
                let found = self.named_master(sentinel, tls, name).await;
                found.map_err(|reason| format!("{host}:{port}: {reason}"))
            })
        });
        match select_ok(asked).await {
            Ok((way, _)) => Ok(way),
            Err(last) => Err(format!("no sentinel has the master {name}: {last}")),
        }
    }

    async fn named_master(&self, sentinel: Server, tls: &Option<Tls>, name: &str) -> Outcome<Way> {
        let (host, port) = self.ask_sentinel(sentinel, name).await?;
        let server = self.named(&host, port, tls);
        let (mut connection, _) = self.single(server, credentials(self.settings)).await?;
        is_master(&mut connection).await?;
        Ok(Way::Single(connection))
    }

    async fn ask_sentinel(&self, sentinel: Server, name: &str) -> Outcome<(String, u16)> {
        let (mut connection, _) = self.single(sentinel, RedisConnectionInfo::default()).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let found: Option<(String, u16)> = question.query_async(&mut connection).await.map_err(told)?;
        found.ok_or_else(|| "has no master of this name".to_owned())
    }

    async fn cluster(
        &self,
        nodes: &[(String, u16)],
        tls: Option<&Tls>,
        known: Option<Server>,
    ) -> Outcome<Way> {
        let settings = self.settings;
        let addresses: Vec<_> = nodes
            .iter()
            .map(|(host, port)| address(host, *port, tls))
            .collect();
        let mut client = ClusterClientBuilder::new(addresses)
            .connection_timeout(CONNECT)
            .response_timeout(settings.timeout)
            .retries(3)
            .async_dns_resolver(Resolver {
                known: known.map(|server| (server.host, server.port, server.place)),
                places: self.places.clone(),
            });
        if let Some(tls) = tls {
            let mode = match tls.trust {
                Trust::Anybody => TlsMode::Insecure,
                Trust::System | Trust::Bundle(_) => TlsMode::Secure,
            };
            client = client.tls(mode).certs(certificates(tls));
        }
        if !settings.username.is_empty() {
            client = client.username(&settings.username);
        }
        if !settings.password.expose().is_empty() {
            client = client.password(settings.password.expose());
        }
        let client = client.build().map_err(told)?;
        client
            .get_async_connection()
            .await
            .map(Way::Cluster)
            .map_err(told)
    }
}

/// A sentinel may still name a server that has been replaced.
async fn is_master(connection: &mut MultiplexedConnection) -> Outcome<()> {
    let role: RedisResult<Vec<redis::Value>> = cmd("ROLE").query_async(connection).await;
    let is_master = match role {
        Ok(role) => matches!(role.first(), Some(redis::Value::BulkString(name)) if name == b"master"),
        // A user who may not ask finds out by writing.
        Err(_) => true,
    };
    match is_master {
        true => Ok(()),
        false => Err("what the sentinel names is no master".to_owned()),
    }
}

fn credentials(settings: &Settings) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(settings.database);
    if !settings.username.is_empty() {
        info = info.set_username(&settings.username);
    }
    if !settings.password.expose().is_empty() {
        info = info.set_password(settings.password.expose());
    }
    info
}

/// Time limits are the caller's.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE)
}

fn address(host: &str, port: u16, tls: Option<&Tls>) -> ConnectionAddr {
    match tls {
        None => ConnectionAddr::Tcp(host.to_owned(), port),
        Some(tls) => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: tls.trust == Trust::Anybody,
            tls_params: None,
        },
    }
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let identity = tls.identity.as_ref();
    TlsCertificates {
        client_tls: identity.map(|identity| ClientTlsConfig {
            client_cert: identity.chain.clone(),
            client_key: identity.key.clone(),
        }),
        root_cert: match &tls.trust {
            Trust::Bundle(pem) => Some(pem.to_vec()),
            Trust::System | Trust::Anybody => None,
        },
    }
}

/// Knows where one host and port really are; all others are where `--resolve` or their names say.
struct Resolver {
    known: Option<(String, u16, Place)>,
    places: Arc<dyn Places>,
}

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let known = self.known.as_ref();
            let known = known.filter(|known| known.0 == host && known.1 == port);
            let place = match known {
                Some((_, _, place)) => place.clone(),
                None => self.places.server(host, port),
            };
            let mut found = place.addresses;
            for (name, port) in &place.names {
                found.extend(tokio::net::lookup_host((name.as_str(), *port)).await?);
            }
            let addresses: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
