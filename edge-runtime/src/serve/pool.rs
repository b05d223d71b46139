//! The workers: each takes a batch, prepares it, runs it on its own thread alone, and answers.
//!
//! A panic in foreign code costs the batch it happened in, never the worker.

use super::Shared;
use super::queue::{Batching, Waiting};
use super::reply::Refusal;
use crate::image::{self, Picture};
use crate::predictor::Prediction;
use crate::shift::Observation;
use crate::{Error, Result};
use axum::body::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What is to be looked at.
pub enum Work {
    /// Normalised pictures: no monitor sees them, for there are no pixels to check.
    Tensor(Vec<f32>),
    /// Raw pictures.
    Pictures(Vec<Picture>),
    /// One JPEG or PNG.
    Encoded(Bytes),
}

/// What was seen of one picture.
pub struct Seen {
    /// The prediction.
    pub prediction: Prediction,
    /// The picture at network size, when there was one.
    pub picture: Option<Picture>,
    /// What the monitor made of it, when it was shown.
    pub observation: Option<Observation>,
}

/// A request that waits for a worker.
pub struct Job {
    /// What is to be looked at.
    pub work: Work,
    /// Pictures in it.
    pub count: usize,
    /// The request's name: what a label will call its picture, or with `/0`, `/1` … behind it its pictures.
    pub id: String,
    /// Whether the monitor sees it.
    pub watch: bool,
    /// After this nobody wants the answer.
    pub deadline: Instant,
    /// Where the answer goes.
    pub reply: oneshot::Sender<std::result::Result<Vec<Seen>, Refusal>>,
}

impl Waiting for Job {
    fn pictures(&self) -> usize {
        self.count
    }

    fn wanted(&self, now: Instant) -> bool {
        now < self.deadline && !self.reply.is_closed()
    }
}

/// Hands work to the pool and waits for the answer.
///
/// # Errors
/// 503 when there is no room, 504 after the deadline, otherwise what the work ran into.
pub async fn ask(
    shared: &Shared,
    work: Work,
    count: usize,
    id: &str,
    watch: bool,
    deadline: Instant,
) -> std::result::Result<Vec<Seen>, Refusal> {
    let (reply, answer) = oneshot::channel();
    shared.queue.push(Job { work, count, id: id.into(), watch, deadline, reply })?;
    match tokio::time::timeout_at(deadline.into(), answer).await {
        Ok(Ok(answer)) => answer,
        // Dropped unanswered: the queue or the worker found that its time was over.
        Ok(Err(_)) | Err(_) => Err(Refusal::late()),
    }
}

/// Starts the workers.
///
/// # Errors
/// When there are no threads to be had.
pub fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>> {
    let spawn = |index: usize| {
        let shared = shared.clone();
        let named = std::thread::Builder::new().name(format!("predict-{index}"));
        named.spawn(move || work(&shared)).map_err(|e| Error::Service { reason: format!("no threads to run on: {e}") })
    };
    (0..shared.settings.workers).map(spawn).collect()
}

fn work(shared: &Shared) {
    // Engines share a batch out over the pool they are called in: here that is this thread and no other.
    let _alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    let settings = &shared.settings;
    let batching = Batching { most: settings.batch, delay: settings.batch_delay, workers: settings.workers };
    while let Some(batch) = shared.queue.batch(&batching) {
        // Whoever waits for an answer of a batch that panics sees its sender dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| run(shared, batch)));
    }
}

/// A job whose pictures stand in the batch's tensor.
struct Prepared {
    pictures: Vec<Option<Picture>>,
    id: String,
    watch: bool,
    reply: oneshot::Sender<std::result::Result<Vec<Seen>, Refusal>>,
}

fn run(shared: &Shared, batch: Vec<Job>) {
    let begun = Instant::now();
    let mut input = Vec::new();
    let mut prepared = Vec::with_capacity(batch.len());
    for Job { work, id, watch, reply, .. } in batch {
        match prepare(shared, work, &mut input) {
            Ok(pictures) => prepared.push(Prepared { pictures, id, watch, reply }),
            // Here and below: a caller who left is not there to be told.
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }
    if prepared.is_empty() {
        return;
    }
    let mut predictions = match shared.predictor.predict_normalised(&input) {
        Ok(predictions) => predictions.into_iter(),
        Err(error) => {
            let refusal = Refusal::from(error);
            prepared.into_iter().for_each(|p| drop(p.reply.send(Err(refusal.clone()))));
            return;
        }
    };
    let took = begun.elapsed() / (predictions.len().max(1) as u32);
    for Prepared { pictures, id, watch, reply } in prepared {
        let single = pictures.len() == 1;
        let seen: Result<Vec<Seen>> = pictures
            .into_iter()
            .zip(&mut predictions)
            .enumerate()
            .map(|(i, (picture, prediction))| {
                let name = if single { id.clone() } else { format!("{id}/{i}") };
                look(shared, &name, picture, prediction, watch, took)
            })
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
        drop(reply.send(seen.map_err(Refusal::from)));
    }
}

/// Appends the network's input to the batch's; gives the pictures at network size, where there are any.
fn prepare(shared: &Shared, work: Work, input: &mut Vec<f32>) -> Result<Vec<Option<Picture>>> {
    let predictor = &shared.predictor;
    let one: usize = predictor.engine().shapes().input.iter().product();
    let pictures = match work {
        Work::Tensor(values) => {
            input.extend(&values);
            return Ok(vec![None; values.len() / one]);
        }
        Work::Pictures(pictures) => pictures,
        Work::Encoded(bytes) => vec![image::decode_within("in the body", &bytes, shared.settings.pixels)?],
    };
    let small: Vec<Picture> = pictures.iter().map(|p| predictor.resize(p)).collect();
    small.iter().for_each(|p| predictor.parts().preprocess.normalise(p, input));
    Ok(small.into_iter().map(Some).collect())
}

fn look(
    shared: &Shared,
    name: &str,
    picture: Option<Picture>,
    prediction: Prediction,
    watch: bool,
    took: Duration,
) -> Result<Seen> {
    let observation = match &picture {
        Some(picture) if watch && shared.settings.watch_posted => {
            Some(shared.watcher.observe(&shared.predictor, picture, &prediction, took, name)?)
        }
        _ => None,
    };
    shared.check(&prediction);
    if let Err(error) = prediction.verify(shared.predictor.engine().name()) {
        shared.metrics.self_test_failed();
        return Err(error);
    }
    shared.metrics.predicted(&prediction, took);
    Ok(Seen { prediction, picture, observation })
}
