//! `serve`: the bundle over HTTP, until a signal.

use super::access::AccessArgs;
use super::monitor::{MonitorArgs, milliseconds};
use super::output::{self, BAD, BOLD, GOOD, Output, paint};
use super::place::BundleArgs;
use super::watch::named;
use super::{Failure, Verdict};
use excon_edge::keeper::Keeper;
use excon_edge::predictor::Prediction;
use excon_edge::serve::{Event, Service, Settings};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It speaks the Open Inference Protocol v2 (/v2), takes JPEG and PNG (/v1/predict), and shows itself
to Prometheus (/metrics) and to people (/). Every picture posted is a frame of the monitor's stream. SIGTERM and Ctrl-C
let open requests end. The token stands in a file or in EXCON_TOKEN, never in the arguments that others can list.

Examples:
  excon-edge serve trashnet.excon --state /var/lib/excon
  excon-edge serve active
  curl --data-binary @photo.jpg http://127.0.0.1:8080/v1/predict
  excon-edge serve trashnet.excon --addr 0.0.0.0:8443 --token-file token --tls-cert chain.pem --tls-key key.pem"
)]
pub struct Serve {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "EXCON_ADDR")]
    addr: SocketAddr,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    monitor: MonitorArgs,
    /// Workers, each running one picture at a time [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    workers: Option<usize>,
    /// Most pictures that wait; more are refused with 503
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Limits")]
    queue: usize,
    /// Most pictures of a batch and of a request
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Limits")]
    batch: usize,
    /// Longest wait for others to form a batch with; 0 takes what is there
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = milliseconds, help_heading = "Limits")]
    batch_delay_ms: f64,
    /// Longest time from a request's head to its answer
    #[arg(long, value_name = "MS", default_value_t = 2000.0, value_parser = milliseconds, help_heading = "Limits")]
    deadline_ms: f64,
    /// Largest body, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, help_heading = "Limits")]
    max_body: usize,
    /// Largest area of a picture, pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 16 << 20, help_heading = "Limits")]
    max_pixels: u64,
    /// Most connections at one moment
    #[arg(long, value_name = "N", default_value_t = 512, help_heading = "Limits")]
    max_connections: usize,
}

pub fn run(settings: &Serve, output: &mut Output) -> Result<Verdict, Failure> {
    let (mut bundle, mut checks) = settings.bundle.open()?;
    let predictor = settings.bundle.predictor(&mut bundle)?;
    let state = settings.bundle.state(settings.monitor.state.as_deref(), &bundle);
    let (bundle, predictor) = (Arc::new(bundle), Arc::new(predictor));
    let engine = predictor.engine().name().to_string();
    let keeper = Keeper::open(bundle.clone(), &engine, state.as_deref(), settings.monitor.overrides())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let service = Settings {
        address: settings.addr,
        token: settings.access.token()?,
        open: settings.access.open,
        tls: settings.access.tls(),
        workers: settings.workers.unwrap_or(cores),
        queue: settings.queue,
        batch: settings.batch,
        batch_delay: Duration::from_secs_f64(settings.batch_delay_ms / 1e3),
        deadline: Duration::from_secs_f64(settings.deadline_ms / 1e3),
        body: settings.max_body,
        pixels: settings.max_pixels,
        connections: settings.max_connections,
        drain: Duration::from_secs(10),
        watch_posted: true,
    };
    let manifest = &bundle.manifest;
    let served = format!("{} version {} on engine {}", manifest.name, manifest.version, predictor.engine().name());
    let acknowledge = settings.monitor.state.as_ref().map(|folder| {
        format!("next: excon-edge acknowledge {} --state {}", settings.bundle.bundle.display(), folder.display())
    });
    let human = output.human();
    let shared = Arc::new(Mutex::new(Output::new(if human { output::Format::Human } else { output::Format::Json })));
    let listener = Arc::new(move |event: Event| {
        let mut output = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A closed stdout is no reason to stop serving.
        let _ = tell(&mut output, &event, &served, acknowledge.as_deref());
    });
    let check = Box::new(move |prediction: &Prediction| checks.see(prediction, &engine));
    Service::open(bundle, predictor, Arc::new(keeper), service, check, listener)?.run(stopped())?;
    Ok(Verdict::Done)
}

/// Done at SIGTERM or SIGINT.
async fn stopped() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    // Without signals there is the power switch, against which the state is saved as it goes.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn tell(output: &mut Output, event: &Event, served: &str, acknowledge: Option<&str>) -> std::io::Result<()> {
    let (name, mut line) = match event {
        Event::Listening { address, tls, token } => {
            let url = format!("{}://{address}/", if *tls { "https" } else { "http" });
            output.text(format_args!("{} {served}", paint(BOLD, "serving")))?;
            output.text(format_args!("{url}  page, /v2 inference, /v1/predict pictures, /metrics"))?;
            if !address.ip().is_loopback() && *token && !*tls {
                output::note(
                    "without TLS the token travels in clear: give --tls-cert and --tls-key, or a proxy that does",
                );
            } else if !address.ip().is_loopback() && !*token {
                output::note("open to every machine that reaches this address, without a token");
            }
            ("listening", json!({ "url": url, "address": address, "tls": tls, "token": token }))
        }
        Event::Alarm(alarm) => {
            let since = format!("alarm since frame {}:", alarm.raw_frame);
            output.text(format_args!("{} {}", paint(BAD, since), named(alarm)))?;
            acknowledge.map_or(Ok(()), |next| output.text(next))?;
            ("alarm", json!({ "alarm": alarm }))
        }
        Event::Acknowledged => {
            output.text(paint(GOOD, "alarm acknowledged"))?;
            ("acknowledged", json!({}))
        }
        Event::Adopted => {
            output.text("the state was changed by another process and is taken over")?;
            ("adopted", json!({}))
        }
        Event::Trouble(error) => {
            output::trouble(error);
            ("trouble", json!({ "error": error.to_string() }))
        }
        Event::Stopping => {
            output.text("stopping: open requests end, nothing new is taken")?;
            ("stopping", json!({}))
        }
        _ => return Ok(()),
    };
    line["schema"] = "excon.serve/1".into();
    line["event"] = name.into();
    output.json(&line)
}
