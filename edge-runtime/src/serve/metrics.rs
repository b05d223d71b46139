//! What the service counts, in the text format of Prometheus. The names are the product's; `docs/serve.md` lists them.

use crate::accuracy::Accuracy;
use crate::bundle::Bundle;
use crate::predictor::Prediction;
use crate::shift::{Channel, Observation, State};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

type Float = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BundleLabels {
    digest: String,
    model: String,
    version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeftOutLabel {
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BoundLabel {
    bound: &'static str,
}

/// See the module's first paragraph.
pub struct Metrics {
    registry: Registry,
    frames: Counter,
    effective: Counter,
    inference: Histogram,
    confidence: Histogram,
    abstained: Counter,
    self_test_failures: Counter,
    evidence: Family<ChannelLabel, Float>,
    total_evidence: Float,
    limit: Float,
    alarm: Gauge,
    alarms: Counter,
    state: Family<StateLabel, Gauge>,
    guarantee: Gauge,
    accuracy: Family<BoundLabel, Float>,
    requests: Family<RequestLabels, Counter>,
    request_time: Histogram,
    queued: Gauge,
    save_failures: Counter,
    left_out: Family<LeftOutLabel, Counter>,
    /// What the monitor's counters said last, so that the metrics count on from it.
    before: Mutex<(u64, bool)>,
}

impl Metrics {
    /// Fresh metrics for a bundle; `effective` frames were counted before this process.
    pub fn new(bundle: &Bundle, effective: u64, alarm: bool) -> Self {
        let mut registry = Registry::with_prefix("excon");
        let seconds = || Histogram::new(exponential_buckets(1e-4, 2.0, 16));
        let metrics = Self {
            frames: Counter::default(),
            effective: Counter::default(),
            inference: seconds(),
            confidence: Histogram::new(linear_buckets(0.1, 0.1, 10)),
            abstained: Counter::default(),
            self_test_failures: Counter::default(),
            evidence: Family::default(),
            total_evidence: Float::default(),
            limit: Float::default(),
            alarm: Gauge::default(),
            alarms: Counter::default(),
            state: Family::default(),
            guarantee: Gauge::default(),
            accuracy: Family::default(),
            requests: Family::default(),
            request_time: seconds(),
            queued: Gauge::default(),
            save_failures: Counter::default(),
            left_out: Family::default(),
            before: Mutex::new((effective, alarm)),
            registry: Registry::default(),
        };
        let info: Family<BundleLabels, Gauge> = Family::default();
        let (digest, model, version) = (&bundle.digest, &bundle.manifest.name, bundle.manifest.version);
        info.get_or_create(&BundleLabels { digest: digest.clone(), model: model.clone(), version }).set(1);
        let r = &mut registry;
        // A gauge, as the older text format knows no type for it.
        r.register("bundle_info", "The bundle that is served", info);
        r.register("frames", "Pictures predicted", metrics.frames.clone());
        r.register("effective_frames", "Frames that entered the monitor's counters", metrics.effective.clone());
        r.register_with_unit(
            "inference",
            "From the start of work on a batch to its answers, a picture's share",
            Unit::Seconds,
            metrics.inference.clone(),
        );
        r.register("confidence", "Calibrated probability of the predicted class", metrics.confidence.clone());
        r.register("abstained", "Pictures whose confidence was too low for an answer", metrics.abstained.clone());
        r.register(
            "selftest_failures",
            "Pictures that failed the engine's self-test",
            metrics.self_test_failures.clone(),
        );
        r.register("shift_log_e", "Natural log of a channel's evidence of a shift", metrics.evidence.clone());
        r.register(
            "shift_log_e_merged",
            "Natural log of the evidence that rings the alarm",
            metrics.total_evidence.clone(),
        );
        r.register("shift_log_e_limit", "Natural log of the evidence at which the alarm rings", metrics.limit.clone());
        r.register("shift_alarm", "1 while an alarm stands", metrics.alarm.clone());
        r.register("shift_alarms", "Alarms that rang", metrics.alarms.clone());
        r.register(
            "state",
            "1 for the monitor's state after the latest frame, 0 for the others",
            metrics.state.clone(),
        );
        r.register("shift_guarantee", "1 while the promise on false alarms holds", metrics.guarantee.clone());
        r.register(
            "accuracy_estimate",
            "Share of right answers over the latest frames, with its 95 % interval; nothing while the estimate abstains",
            metrics.accuracy.clone(),
        );
        if let Some(model) = &bundle.accuracy {
            let healthy = Float::default();
            healthy.set(model.healthy());
            let help = "Share of right answers on the healthy pictures that the estimate was fitted on";
            r.register("accuracy_healthy", help, healthy);
        }
        r.register("requests", "Requests by route and status", metrics.requests.clone());
        r.register_with_unit("request", "Time to answer a request", Unit::Seconds, metrics.request_time.clone());
        r.register("queued_pictures", "Pictures that wait for a worker", metrics.queued.clone());
        r.register(
            "state_save_failures",
            "Times that the monitor's state could not be written",
            metrics.save_failures.clone(),
        );
        r.register(
            "left_out_frames",
            "Frames of a live source that were left out: dropped for newer ones, or late",
            metrics.left_out.clone(),
        );
        Self { registry, ..metrics }
    }

    /// One answered picture.
    pub fn predicted(&self, prediction: &Prediction, took: Duration) {
        self.frames.inc();
        self.inference.observe(took.as_secs_f64());
        self.confidence.observe(prediction.confidence);
        self.abstained.inc_by(u64::from(prediction.abstains));
    }

    /// A picture that failed the self-test.
    pub fn self_test_failed(&self) {
        self.self_test_failures.inc();
    }

    /// How the monitor stands.
    pub fn monitor(&self, now: &Observation, guarantee: bool, accuracy: &Accuracy) {
        self.accuracy(accuracy);
        for reading in &now.channels {
            self.evidence.get_or_create(&ChannelLabel { channel: Channel::name(reading.channel) }).set(reading.log_r);
        }
        self.total_evidence.set(now.log_r);
        self.limit.set(now.log_limit);
        self.guarantee.set(i64::from(guarantee));
        let states =
            [State::Healthy, State::Watching, State::Shift, State::SensorFault, State::EngineFault, State::Slow];
        for state in states {
            let label = StateLabel { state: state.words() };
            self.state.get_or_create(&label).set(i64::from(state == now.state));
        }
        self.alarm(now.alarm.is_some());
        let mut before = super::lock(&self.before);
        self.effective.inc_by(now.effective_frames.saturating_sub(before.0));
        self.alarms.inc_by(u64::from(now.alarm.is_some() && !before.1));
        *before = (now.effective_frames, now.alarm.is_some());
    }

    fn accuracy(&self, accuracy: &Accuracy) {
        let estimate = accuracy.estimate();
        let bounds = [
            ("low", estimate.map(|e| e.low)),
            ("value", estimate.map(|e| e.value)),
            ("high", estimate.map(|e| e.high)),
        ];
        for (bound, value) in bounds {
            match value {
                Some(value) => drop(self.accuracy.get_or_create(&BoundLabel { bound }).set(value)),
                None => drop(self.accuracy.remove(&BoundLabel { bound })),
            }
        }
    }

    /// Whether an alarm stands.
    pub fn alarm(&self, stands: bool) {
        self.alarm.set(i64::from(stands));
        if !stands {
            super::lock(&self.before).1 = false;
        }
    }

    /// One answered request.
    pub fn request(&self, route: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, code }).inc();
        self.request_time.observe(took.as_secs_f64());
    }

    /// The state could not be written.
    pub fn save_failed(&self) {
        self.save_failures.inc();
    }

    /// Frames that the source has left out so far.
    pub fn left_out(&self, dropped: u64, late: u64) {
        for (why, count) in [("dropped", dropped), ("late", late)] {
            let counter = self.left_out.get_or_create(&LeftOutLabel { why });
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Frames that the source has left out: dropped, late.
    pub fn left_out_so_far(&self) -> (u64, u64) {
        let count = |why| self.left_out.get_or_create(&LeftOutLabel { why }).get();
        (count("dropped"), count("late"))
    }

    /// All of it as text; `queued` pictures wait at this moment.
    pub fn text(&self, queued: usize) -> String {
        self.queued.set(queued as i64);
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}
