//! Connections: so many at once, TLS where it is set up, a limit on how long each step may take, an orderly end.
//!
//! A connection that sends nothing, or its head too slowly, or reads its answers too slowly, is closed; none of them
//! holds a thread. While all places are taken, newcomers wait in the system's own queue.

use super::{Event, Listener, Shared, router};
use crate::{Error, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// For a TLS handshake, and for the head of a request, counted from when the connection is idle.
const HEAD: Duration = Duration::from_secs(20);
/// A connection's whole life: one that reads an answer forever ends too.
const LIFE: Duration = Duration::from_secs(900);
/// What a connection at the end of its life gets for the request that is open.
const LAST: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Reads certificate chain and key.
///
/// # Errors
/// [`Error::Service`] when they cannot be read or do not fit together.
pub fn tls(chain: &Path, key: &Path) -> Result<TlsAcceptor> {
    let refuse = |path: &Path, e: &dyn std::fmt::Display| Error::Service {
        reason: format!("TLS: {}: {e}. Give PEM files of the certificate chain and its private key", path.display()),
    };
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
    let certificates = certificates.map_err(|e| refuse(chain, &e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| refuse(key, &e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(certificates, private))
        .map_err(|e| refuse(chain, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until `stop` is done, then lets them end.
///
/// # Errors
/// [`Error::Listen`] when the address cannot be taken.
pub async fn serve(
    shared: &Arc<Shared>,
    tls: Option<TlsAcceptor>,
    listener: &Listener,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let address = shared.settings.address;
    let failed = |source| Error::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    listener(Event::Listening { address, tls: tls.is_some(), token: shared.settings.token.is_some() });

    let router = router(shared);
    let places = Arc::new(Semaphore::new(shared.settings.connections));
    let (end, ended) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = next(&places, &socket) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let (tls, ended) = (tls.clone(), ended.clone());
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            // Answers are small and waited for.
            let _ = stream.set_nodelay(true);
            match tls {
                None => connection(stream, service, ended).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, tls.accept(stream)).await {
                        connection(stream, service, ended).await;
                    }
                }
            }
        });
    }
    listener(Event::Stopping);
    shared.stopping.store(true, Ordering::Relaxed);
    drop(socket);
    let _ = end.send(true);
    let all = shared.settings.connections as u32;
    let _ = tokio::time::timeout(shared.settings.drain, places.acquire_many(all)).await;
    Ok(())
}

/// The next connection and its place.
async fn next(places: &Arc<Semaphore>, socket: &TcpListener) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        // Out of file descriptors, or the caller has left already: not this service's end.
        Err(_) => {
            tokio::time::sleep(Duration::from_millis(10)).await;
            None
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    service: TowerToHyperService<axum::Router>,
    mut ended: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).half_close(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let over = async {
        tokio::select! {
            _ = ended.wait_for(|&e| e) => {}
            () = tokio::time::sleep(LIFE) => {}
        }
    };
    tokio::select! {
        // How a caller ended its connection is the caller's business.
        _ = connection.as_mut() => return,
        () = over => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST, connection).await;
}
