//! The listeners: how each is bound, and what answers its connections.

use super::admin::peer::{FromPeer, Peer};
use super::config::{CLIENT_CERTIFICATE, EdgeSocket, NetLimits};
use super::edge_api;
use super::edge_api::socket::Socket;
use super::inherited::{Inherited, Role};
use super::listen;
use super::place::StreamLimits;
use super::reload::Live;
use super::stop::Stopped;
use super::tls::{Stream, Tcp, Tls};
use arc_swap::ArcSwap;
use futures_util::future::Either;
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// For one client's connection. Any program may be a client, so resets are bounded, as hyper does.
const CLIENT_STREAMS: StreamLimits = StreamLimits {
    max: 256,
    reset_max: 20,
};

/// Operators at once: probes and scrapers. Both have a connection or two.
const ADMIN_CONNECTIONS_MAX: usize = 64;
const ADMIN_STREAMS: StreamLimits = StreamLimits {
    max: 16,
    reset_max: 20,
};

pub(super) async fn bind(
    role: Role,
    address: SocketAddr,
    inherited: &mut Inherited,
) -> Result<TcpListener, String> {
    let bound = match inherited.claim(role, address) {
        Some(socket) => socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|error| format!("{} {address}: {error}", role.flag()))
}

pub(super) fn bind_edge(edge: &EdgeSocket, inherited: &mut Inherited) -> Result<Socket, String> {
    let bound = match inherited.claim_edge(&edge.path) {
        Some(listener) => Socket::adopt(listener, &edge.path, edge.mode),
        None => Socket::bind(&edge.path, edge.mode),
    };
    bound.map_err(|error| format!("--edge-socket {}: {error}", edge.path.display()))
}

/// A listener as its connections begin. Warns of one that is open to a network without TLS.
pub(super) fn tcp(flag: &str, listener: TcpListener, tls: &Option<Arc<Tls>>, setting: &str) -> Tcp {
    if tls.is_none()
        && let Ok(address) = listener.local_addr()
        && !address.ip().is_loopback()
    {
        tracing::warn!(
            "{flag} {address}: without TLS, others on the network can read what is sent; {setting} \
             gives it a certificate"
        );
    }
    let tls = tls.clone();
    Tcp { listener, tls }
}

pub(super) async fn serve_clients(
    front: Option<Tcp>,
    names_tenants: bool,
    live: Arc<Live>,
    net: &NetLimits,
    stopped: Stopped,
) {
    let Some(front) = front else {
        return;
    };
    let of = move |stream: &Stream| {
        let live = Arc::clone(&live);
        let name = names_tenants.then(|| stream.client_name());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(name) = &name {
                // Whatever the client has sent under this name.
                let headers = request.headers_mut();
                headers.remove(CLIENT_CERTIFICATE);
                if let Some(name) = name {
                    headers.insert(CLIENT_CERTIFICATE, name.clone());
                }
            }
            match live.proxy.as_ref().map(ArcSwap::load_full) {
                Some(proxy) => Either::Left(proxy.answer(request)),
                // There is a proxy where clients connect.
                None => Either::Right(std::future::pending()),
            }
        })
    };
    listen::answer(front, of, net, CLIENT_STREAMS, stopped).await;
}

pub(super) async fn serve_edges(
    listener: UnixListener,
    live: Arc<Live>,
    net: &NetLimits,
    stopped: Stopped,
) {
    let Some(edges) = live.edges.as_ref() else {
        return;
    };
    let first = edges.load().router.clone();
    let of = move |stream: &UnixStream| {
        let (live, first) = (Arc::clone(&live), first.clone());
        let service = service_fn(move |request| {
            let edges = live.edges.as_ref().map(ArcSwap::load_full);
            // There is an API where edges connect.
            let router = edges.map_or_else(|| first.clone(), |edges| edges.router.clone());
            TowerToHyperService::new(router).call(request)
        });
        FromPeer {
            service,
            peer: Peer::of_unix(stream),
        }
    };
    listen::answer(listener, of, net, edge_api::STREAMS, stopped).await;
}

pub(super) async fn serve_admin(
    listener: Tcp,
    router: axum::Router,
    net: &NetLimits,
    stopped: Stopped,
) {
    let net = NetLimits {
        connections_max: ADMIN_CONNECTIONS_MAX,
        ..net.clone()
    };
    let service = TowerToHyperService::new(router);
    let of = move |stream: &Stream| FromPeer {
        service: service.clone(),
        peer: Peer::of_tcp(stream.tcp()),
    };
    listen::answer(listener, of, &net, ADMIN_STREAMS, stopped).await;
}
