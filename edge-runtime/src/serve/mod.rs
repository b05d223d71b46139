//! The service: one bundle over HTTP for programs, Prometheus and people.
//!
//! The predictor and the monitor are the ones of every other command. Promises: memory is bounded (connections, bytes of
//! bodies, pictures that wait, frames shown), so is time (reading, waiting and answering each have a limit), and what
//! does not fit is refused at once with the time after which to come again. One core runs one picture: a worker a core,
//! each a single-threaded plan, takes batches off one queue. The way of a request: `connection` → `access` → a handler
//! (`infer`, `picture`, `live`) → `queue` → `pool` → `watcher`. Nothing here prints; see [`Event`].

mod access;
mod connection;
mod infer;
mod labels;
mod live;
mod metrics;
mod picture;
mod pool;
mod protocol;
mod queue;
mod reply;
mod watcher;

use crate::bundle::Bundle;
use crate::image::Picture;
use crate::keeper::{Keeper, Seen};
use crate::predictor::{Prediction, Predictor};
use crate::shift::Alarm;
use crate::{Error, Result};
use axum::Router;
use axum::routing::{get, post};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, Semaphore};

/// Bytes of request bodies held at one moment, all requests together.
const BODIES: usize = 64 << 20;

/// How the service is to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// What callers have to show, as a bearer token or as the password of HTTP's basic scheme.
    pub token: Option<String>,
    /// Listen to other machines without a token.
    pub open: bool,
    /// PEM files of certificate chain and private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Workers, each with a core's worth of work.
    pub workers: usize,
    /// Most pictures that wait.
    pub queue: usize,
    /// Most pictures of a batch, and of a request.
    pub batch: usize,
    /// Longest time a picture waits for others to form a batch with.
    pub batch_delay: Duration,
    /// Longest time from a request's head to its answer.
    pub deadline: Duration,
    /// Largest body, bytes; at most 64 MiB.
    pub body: usize,
    /// Largest area of a posted picture, pixels.
    pub pixels: u64,
    /// Most connections at one moment.
    pub connections: usize,
    /// Longest time for open requests to end after the signal.
    pub drain: Duration,
    /// Whether the pictures posted are the monitor's stream. Not so beside a camera, whose frames are.
    pub watch_posted: bool,
}

/// What happened that someone should hear of.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The service answers.
    Listening {
        /// The address taken.
        address: SocketAddr,
        /// Whether connections are encrypted.
        tls: bool,
        /// Whether callers have to show a token.
        token: bool,
    },
    /// An alarm rang.
    Alarm(Alarm),
    /// An alarm was answered over HTTP.
    Acknowledged,
    /// The state was changed by another process and taken over.
    Adopted,
    /// Something failed; the service goes on.
    Trouble(Error),
    /// The signal came; open requests end.
    Stopping,
}

/// Hears of events; called from several threads.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Sees every prediction: the part that this process has in the trial of a freshly installed bundle. With
/// [`Error::Engine`] the trial is over and the bundle is no more the active one, so the service ends; any other error is
/// an [`Event::Trouble`].
pub type Check = Box<dyn FnMut(&Prediction) -> Result<()> + Send>;

/// What all requests share.
struct Shared {
    settings: Settings,
    bundle: Arc<Bundle>,
    predictor: Arc<Predictor>,
    queue: queue::Queue<pool::Job>,
    watcher: watcher::Watcher,
    metrics: Arc<metrics::Metrics>,
    access: access::Access,
    /// Bytes of bodies that may still be taken, in KiB.
    bodies: Arc<Semaphore>,
    requests: AtomicU64,
    stopping: AtomicBool,
    started: (Instant, SystemTime),
    check: Mutex<Check>,
    /// Why the service has to end before anyone tells it to.
    over: Mutex<Option<Error>>,
    ending: Notify,
}

/// A service that is ready to listen.
pub struct Service {
    shared: Arc<Shared>,
    tls: Option<tokio_rustls::TlsAcceptor>,
    listener: Listener,
}

/// A service's side towards whoever else uses its monitor in the same process, as `watch --serve` does.
#[derive(Clone)]
pub struct Beside {
    shared: Arc<Shared>,
}

impl Beside {
    /// Shows a frame that the monitor has seen, at network size: on the live page, in the metrics; and has the state
    /// saved when it is time.
    pub fn show(&self, picture: &Picture, prediction: &Prediction, took: Duration, seen: &Seen) {
        self.shared.watcher.show(picture, prediction, took, seen);
        self.shared.metrics.predicted(prediction, took);
        if seen.observation.self_test_failed.is_some() {
            self.shared.metrics.self_test_failed();
        }
    }

    /// Frames that the source has left out so far: dropped for newer ones, and too late.
    pub fn left_out(&self, dropped: u64, late: u64) {
        self.shared.metrics.left_out(dropped, late);
    }

    /// Lets the service end.
    pub fn end(&self) {
        self.shared.ending.notify_one();
    }
}

impl Service {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Service`] when the settings are not safe or make no sense, [`Error::Read`] when certificate or key cannot
    /// be read.
    pub fn open(
        bundle: Arc<Bundle>,
        predictor: Arc<Predictor>,
        keeper: Arc<Keeper>,
        settings: Settings,
        check: Check,
        listener: Listener,
    ) -> Result<Self> {
        validate(&settings)?;
        let tls = settings.tls.as_ref().map(|(chain, key)| connection::tls(chain, key)).transpose()?;
        let watcher = watcher::Watcher::new(&bundle, keeper, listener.clone());
        let metrics = watcher.metrics();
        let shared = Shared {
            access: access::Access::new(settings.token.as_deref()),
            queue: queue::Queue::new(settings.queue),
            bodies: Arc::new(Semaphore::new(BODIES >> 10)),
            requests: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            started: (Instant::now(), SystemTime::now()),
            settings,
            bundle,
            predictor,
            watcher,
            metrics,
            check: Mutex::new(check),
            over: Mutex::new(None),
            ending: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared), tls, listener })
    }

    /// The side towards whoever else uses the monitor.
    pub fn beside(&self) -> Beside {
        Beside { shared: self.shared.clone() }
    }

    /// Serves until `stop` is done or [`Beside::end`] is called, then lets open requests end, and saves the monitor.
    ///
    /// # Errors
    /// [`Error::Engine`] when a [`Check`] ended it; [`Error::Listen`] when the address cannot be taken; [`Error::Write`] when the state cannot be saved, at the start
    /// or at the end.
    pub fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let Self { shared, tls, listener } = self;
        // Told once, before any work: a place that cannot be written is no reason to lose a day's frames.
        shared.watcher.save()?;
        let threads = shared.settings.workers.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.map_err(|e| Error::Service { reason: format!("no threads to run on: {e}") })?;
        let workers = pool::start(&shared)?;
        let saver = watcher::start_saver(&shared)?;
        let told = async {
            tokio::select! {
                () = stop => {}
                () = shared.ending.notified() => {}
            }
        };
        let result = runtime.block_on(connection::serve(&shared, tls, &listener, told));
        shared.queue.close();
        for worker in workers {
            // A worker catches what its work throws; there is nothing to learn from how it ended.
            let _ = worker.join();
        }
        shared.watcher.stop();
        let _ = saver.join();
        runtime.shutdown_timeout(Duration::from_secs(1));
        result?;
        shared.watcher.save()?;
        lock(&shared.over).take().map_or(Ok(()), Err)
    }
}

impl Shared {
    /// Whether there is a class-activation map to be given.
    fn explains(&self) -> bool {
        self.predictor.engine().shapes().explains()
    }

    /// Shows a prediction to the trial.
    fn check(&self, prediction: &Prediction) {
        // The guard must not live on: listeners may take their time.
        let checked = (lock(&self.check))(prediction);
        match checked {
            Ok(()) => {}
            Err(error @ Error::Engine { .. }) => {
                *lock(&self.over) = Some(error);
                self.ending.notify_one();
            }
            Err(error) => self.watcher.trouble(error),
        }
    }
}

fn validate(settings: &Settings) -> Result<()> {
    let refuse = |reason: &str| Err(Error::Service { reason: reason.into() });
    let address = settings.address;
    if !address.ip().is_loopback() && settings.token.is_none() && !settings.open {
        return Err(Error::Service {
            reason: format!(
                "{address} is open to other machines and no token is set. Give --token-file FILE, or listen on \
                 127.0.0.1, or say --open if every machine that can reach this one may ask"
            ),
        });
    }
    if settings.token.as_ref().is_some_and(|t| t.len() < 16 || !t.bytes().all(|b| b.is_ascii_graphic())) {
        return refuse("a token has at least 16 printable characters and no spaces; `openssl rand -hex 32` makes one");
    }
    if settings.body > BODIES || settings.body == 0 {
        return refuse("the largest body must be 1 byte to 64 MiB");
    }
    if settings.workers == 0 || settings.queue == 0 || settings.batch == 0 || settings.connections == 0 {
        return refuse("workers, queue, batch and connections must be at least 1");
    }
    Ok(())
}

fn router(shared: &Arc<Shared>) -> Router {
    let model = "/v2/models/{model}";
    let version = "/v2/models/{model}/versions/{version}";
    Router::new()
        .route("/", get(live::page))
        .route("/live", get(live::fragment))
        .route("/frames/{number}/{kind}", get(live::frame))
        .route("/metrics", get(picture::metrics))
        .route("/v1/predict", post(picture::predict))
        .route("/v1/status", get(picture::status))
        .route("/v1/acknowledge", post(picture::acknowledge))
        .route("/v1/labels", get(labels::waiting).post(labels::give))
        .route("/v2", get(infer::server))
        .route("/v2/health/live", get(infer::live))
        .route("/v2/health/ready", get(infer::ready))
        .route(model, get(infer::model))
        .route(version, get(infer::model))
        .route(&format!("{model}/ready"), get(infer::model_ready))
        .route(&format!("{version}/ready"), get(infer::model_ready))
        .route(&format!("{model}/infer"), post(infer::infer))
        .route(&format!("{version}/infer"), post(infer::infer))
        .fallback(|| async { reply::Refusal::not_found("there is no such address; see docs/serve.md") })
        .layer(axum::middleware::from_fn_with_state(shared.clone(), access::gate))
        .with_state(shared.clone())
}

/// A lock whose data stay good when a holder panics: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
