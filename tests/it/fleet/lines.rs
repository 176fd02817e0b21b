//! What lies between an edge and the engine: TLS, connections that are reset, and peers that never answer.

use super::engine::Engine;
use super::{Fleet, HIT, looked, shared};
use reflex_tests::raw::Raw;
use reflex_tests::tls;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::UnixStream;

/// Hands on what comes to the engine, and back.
async fn hand_on(mut client: impl AsyncRead + AsyncWrite + Unpin, engine: PathBuf) {
    if let Ok(mut engine) = UnixStream::connect(engine).await {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}

#[tokio::test]
async fn the_certificate_of_the_engine_is_checked() {
    let Some(engine) = Engine::start().await else {
        return;
    };
    let socket = engine.socket();
    let front = Raw::start(move |_, stream| {
        let (acceptor, socket) = (tls::acceptor(&[]), socket.clone());
        async move {
            if let Ok(inside) = acceptor.accept(stream).await {
                hand_on(inside, socket).await;
            }
        }
    })
    .await;
    let url = format!("rediss://{}", front.address());
    let trusting = format!("fleet_ca = {:?}\n", tls::CA);
    let mut fleet = Fleet::at(Some(engine), url, 2, &trusting).await;
    fleet.share(0, "sealed").await;
    assert_eq!(fleet.ask(1, "sealed").await.reflex(), HIT);
    // The CAs of the system have not signed it.
    fleet.edges.push(fleet.plan("").start().await);
    assert_eq!(fleet.ask(2, "sealed").await.reflex(), "MISS");
    let metrics = fleet.edges[2].metrics().await;
    assert!(metrics.sum("reflex_fleet_connected", &[]) < 0.5);
    assert!(looked(&metrics, "hit") < 0.5);
}

#[tokio::test]
async fn a_peer_that_never_answers_costs_no_client_anything() {
    for scheme in ["rediss", "redis"] {
        let Some(engine) = Engine::start().await else {
            return;
        };
        let silent = Raw::start(|_, stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        let url = format!("{scheme}://{}", silent.address());
        let mut fleet = Fleet::at(Some(engine), url, 0, "").await;
        fleet.edges.push(fleet.plan("").start().await);
        silent.connected(1).await;
        for number in 0..20 {
            let answer = fleet.ask(0, &format!("silent {number}")).await;
            assert_eq!(answer.reflex(), "MISS");
        }
        let metrics = fleet.edges[0].metrics().await;
        // No lookup has waited for it: there is no connection.
        assert!(looked(&metrics, "late") < 0.5 && shared(&metrics, "stored") < 0.5);
    }
}

#[tokio::test]
async fn connections_that_are_reset_fail_no_request() {
    let Some(engine) = Engine::start().await else {
        return;
    };
    let socket = engine.socket();
    let (reset, resets) = tokio::sync::watch::channel(0_u32);
    let front = Raw::start(move |_, stream| {
        let (mut resets, socket) = (resets.clone(), socket.clone());
        resets.mark_unchanged();
        async move {
            // Dropping it sends a reset.
            let _ = stream.set_zero_linger();
            tokio::select! {
                () = hand_on(stream, socket) => {}
                _ = resets.changed() => {}
            }
        }
    })
    .await;
    let url = format!("redis://{}", front.address());
    let fleet = Fleet::at(Some(engine), url, 2, "").await;
    fleet.share(0, "before").await;
    fleet
        .under_load(async {
            for _ in 0..5 {
                let connections = front.connections();
                reset.send_modify(|count| *count += 1);
                front.connected(connections + 1).await;
                fleet.until_well().await;
            }
        })
        .await;
    fleet.until_looked(1, "before", 200).await;
}
