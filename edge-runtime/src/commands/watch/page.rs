//! `--serve`: the service beside the watch, in the same process, over the same monitor.

use super::super::access::AccessArgs;
use super::super::output;
use super::super::place::Checks;
use super::show::Show;
use super::{Counts, Taken};
use excon_edge::bundle::Bundle;
use excon_edge::keeper::Keeper;
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::serve::{Beside, Event, Service, Settings};
use excon_edge::{Error, Result};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct PageArgs {
    /// Also answer over HTTP as `serve` does: live page, metrics, predictions; port 0 takes a free one
    #[arg(long, value_name = "ADDR", help_heading = "Service")]
    serve: Option<SocketAddr>,
    #[command(flatten)]
    access: AccessArgs,
}

/// A service under way.
pub struct Served {
    beside: Beside,
    events: Receiver<Event>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Starts the service, when one is asked for, and waits until it listens.
///
/// # Errors
/// As [`Service::open`] and [`Service::run`].
pub fn start(
    arguments: &PageArgs,
    bundle: &Arc<Bundle>,
    predictor: &Arc<Predictor>,
    keeper: &Arc<Keeper>,
    checks: &Arc<Mutex<Checks>>,
) -> Result<Option<Served>> {
    let Some(address) = arguments.serve else { return Ok(None) };
    let settings = Settings {
        address,
        token: arguments.access.token()?,
        open: arguments.access.open,
        tls: arguments.access.tls(),
        // The frames of the source come first; what is posted meanwhile waits its turn.
        workers: 1,
        queue: 16,
        batch: 4,
        batch_delay: Duration::ZERO,
        deadline: Duration::from_secs(2),
        body: 8 << 20,
        pixels: 16 << 20,
        connections: 64,
        drain: Duration::from_secs(2),
        watch_posted: false,
    };
    let (sender, events) = channel();
    // Called from several threads.
    let sender: Mutex<Sender<Event>> = Mutex::new(sender);
    let listener = Arc::new(move |event: Event| {
        // Nobody listens any more when the watch ends.
        let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).send(event);
    });
    let (engine, checks) = (predictor.engine().name().to_string(), checks.clone());
    let check = Box::new(move |prediction: &Prediction| {
        checks.lock().unwrap_or_else(PoisonError::into_inner).see(prediction, &engine)
    });
    let service = Service::open(bundle.clone(), predictor.clone(), keeper.clone(), settings, check, listener)?;
    let beside = service.beside();
    let run = move || service.run(std::future::pending());
    let failed = |e| Error::Service { reason: format!("no thread to serve on: {e}") };
    let thread = std::thread::Builder::new().name("serve".into()).spawn(run).map_err(failed)?;
    let mut served = Served { beside, events, thread: Some(thread) };
    loop {
        match served.events.recv_timeout(Duration::from_millis(20)) {
            Ok(Event::Listening { address, tls, .. }) => {
                let scheme = if tls { "https" } else { "http" };
                output::note(format_args!("{scheme}://{address}/  page, /metrics, /v1/predict"));
                return Ok(Some(served));
            }
            Ok(_) => {}
            Err(_) => served.alive()?,
        }
    }
}

impl Served {
    /// A frame that was seen.
    pub fn show(&self, taken: &Taken, counts: &Counts) {
        self.beside.show(&taken.picture, &taken.prediction, taken.took, &taken.seen);
        self.beside.left_out(counts.dropped, counts.late);
    }

    /// Passes on what the service says.
    ///
    /// # Errors
    /// When it has ended.
    pub fn look_after(&mut self, show: &mut Show) -> Result<()> {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Acknowledged => show.note("alarm acknowledged"),
                Event::Adopted => show.note("the state was changed by another process and is taken over"),
                Event::Trouble(error) => show.trouble(&error),
                // The watch has told of its alarms itself.
                _ => {}
            }
        }
        self.alive()
    }

    fn alive(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.join()?;
            return Err(Error::Service { reason: "the service has ended by itself".into() });
        }
        Ok(())
    }

    /// Lets open requests end.
    ///
    /// # Errors
    /// As [`Service::run`].
    pub fn end(mut self) -> Result<()> {
        self.beside.end();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(Error::Service { reason: "the service broke off".into() }))
    }
}
