//! The live page: what the board sees, why it says so, and how far the evidence is from an alarm.
//!
//! One page with the house's style sheet and nothing from elsewhere. A script of a few lines asks for the part that
//! changes every two seconds; without scripts the page loads itself anew. The button that answers is a plain form, protected
//! like every request that changes something (see [`super::access`]).

mod evidence;

use super::Shared;
use super::reply::{self, Refusal};
use super::watcher::{Frame, View};
use crate::keeper::Standing;
use crate::kernel;
use crate::page;
use crate::shift::{Alarm, Family, Likeness, Observation, State as MonitorState};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const STYLE: &str = include_str!("live.css");
const SCRIPT: &str = include_str!("live.js");
/// Side of a shown picture, pixels, at least: small ones are enlarged without blur.
const SIDE: usize = 192;

/// `GET /`.
pub async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let manifest = &shared.bundle.manifest;
    let title = format!("{} version {}", manifest.name, manifest.version);
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (title) " · live" }
                noscript { meta http-equiv="refresh" content="5"; }
                style { (PreEscaped(page::STYLE)) (PreEscaped(STYLE)) }
            }
            body.live {
                header {
                    p.eyebrow { "ExCon on the edge · live" }
                    h1 { (manifest.name) span.version { " version " (manifest.version) } }
                }
                p #lost hidden role="status" { "The service does not answer. What stands below is from before." }
                main #live { (changing(&shared)) }
                footer {
                    p {
                        a href="/metrics" { "metrics" } " · " a href="/v1/status" { "status as JSON" } " · "
                        a href="/v2" { "inference protocol" }
                    }
                    p { "bundle " code { (&shared.bundle.digest[..16]) } ", engine " (shared.predictor.engine().name())
                        ", instruction set " (kernel::active().name()) ", excon-edge " (env!("CARGO_PKG_VERSION")) }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    let mut response = reply::typed("text/html; charset=utf-8", text.into_string().into_bytes());
    if let Ok(policy) = HeaderValue::from_str(&policy()) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The script is named by its digest: no other runs, whatever finds its way into the page.
fn policy() -> String {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(SCRIPT));
    format!(
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

/// `GET /live`: the part that changes.
pub async fn fragment(State(shared): State<Arc<Shared>>) -> Response {
    reply::typed("text/html; charset=utf-8", changing(&shared).into_string().into_bytes())
}

/// `GET /frames/NUMBER/picture.png` and `…/why.png`.
pub async fn frame(
    State(shared): State<Arc<Shared>>,
    Path((number, kind)): Path<(u64, String)>,
) -> Result<Response, Refusal> {
    let found = shared.watcher.view(|v| v.frames.iter().find(|f| f.number == number).cloned());
    let Some(frame) = found else { return Err(Refusal::not_found("this frame is not kept any more")) };
    let picture = page::enlarged(&frame.picture, SIDE);
    let png = match kind.as_str() {
        "picture.png" => page::png(&picture)?,
        // Without a map the picture stands for itself.
        "why.png" if !shared.explains() => page::png(&picture)?,
        "why.png" => page::png(&page::overlay(&picture, &frame.map).1)?,
        _ => return Err(Refusal::not_found("a frame has picture.png and why.png")),
    };
    let mut response = reply::typed("image/png", png);
    let keep = HeaderValue::from_static("private, max-age=3600, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    Ok(response)
}

fn changing(shared: &Shared) -> Markup {
    let standing = shared.watcher.standing();
    shared.watcher.view(|view| {
        html! {
            (state(shared, &standing))
            (figures(shared, &standing, view))
            (frames(shared, view))
            (evidence::history(&standing.observation, view))
            (evidence::channels(&standing.observation))
            (promise(&standing))
            (alarms(&standing, view))
        }
    })
}

/// The state in a word, a shape, a colour and a sentence; under an alarm or a notice also the way to answer it.
fn state(shared: &Shared, standing: &Standing) -> Markup {
    let now = &standing.observation;
    let notices = notices(now);
    let (badge, class) = match now.state {
        MonitorState::Healthy if notices.is_empty() => (page::State::Healthy, "calm"),
        MonitorState::Healthy => (page::State::Healthy, "watch"),
        MonitorState::Watching => (page::State::Watching, "watch"),
        MonitorState::Slow => (page::State::Slow, "watch"),
        MonitorState::Shift => (page::State::Shift, "rings"),
        MonitorState::SensorFault => (page::State::SensorFault, "rings"),
        MonitorState::EngineFault => (page::State::EngineFault, "rings"),
    };
    let sentence = match (now.state, now.fault, &now.alarm) {
        (_, Some(fault), _) => {
            format!("The latest frame is no picture of the world: {}. It entered no counter.", fault.words())
        }
        (MonitorState::Shift, _, Some(alarm)) => format!("{}, since frame {}.", rang(alarm), alarm.raw_frame),
        (MonitorState::Watching, ..) => "Evidence of a shift has grown past half the way to an alarm.".into(),
        (MonitorState::EngineFault, ..) => {
            "The engine failed its self-test on the latest frame. It entered no counter.".into()
        }
        (MonitorState::Slow, ..) => "The latest frame took longer than its budget.".into(),
        _ if now.raw_frames == 0 && !shared.settings.watch_posted => "No frame yet.".into(),
        _ if now.raw_frames == 0 => "No frame yet. Post a picture to /v1/predict.".into(),
        _ if !notices.is_empty() => "No alarm stands.".into(),
        _ => "The camera sees what the model was trained on, as far as the checks can tell.".into(),
    };
    html! {
        div.state.(class) role="status" {
            div { span.word { (page::badge(badge)) } p { (sentence) } }
            @if let Some(looks) = Likeness::words(&standing.looks_like) { p { "It looks like: " (looks) "." } }
            @if let Some(alarm) = &now.alarm { p { (capital(&standing.accuracy.under(alarm))) "." } }
            @for notice in &notices { p { "Notice: " (notice) "." } }
            @if now.alarm.is_some() || !notices.is_empty() {
                form method="post" action="/v1/acknowledge" {
                    button { "Acknowledge" }
                    @if now.alarm.is_some() {
                        button.second formaction="/v1/acknowledge?accept=true" { "Accept as the new normal" }
                    }
                }
                @if let Some(folder) = shared.watcher.keeper().folder() {
                    p.command {
                        "or on the board: "
                        code { "excon-edge acknowledge " (shared.bundle.path.display()) " --state " (folder.display()) }
                    }
                }
            }
        }
    }
}

/// What rings no alarm and should be known.
fn notices(now: &Observation) -> Vec<String> {
    let told = |family: &Family| format!("{}, by checks that were told to ring no alarm", family.words());
    let drift = now.slow_drift.then(|| "slow drift away from the reference, outside the promise".to_string());
    now.notices.iter().map(told).chain(drift).collect()
}

fn figures(shared: &Shared, standing: &Standing, view: &View) -> Markup {
    let now = &standing.observation;
    let figure = |name: &str, value: Markup, note: Markup| {
        html! { div { dt { (name) } dd.value { (value) } dd.note { (note) } } }
    };
    let mut took: Vec<Duration> = view.took.iter().copied().collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    let mut sure: Vec<f64> = view.frames.iter().map(|f| f.confidence).collect();
    sure.sort_by(f64::total_cmp);
    html! {
        dl.figures {
            (figure("frames", html! { (grouped(now.raw_frames)) }, html! { (grouped(now.effective_frames)) " effective" }))
            div.lead {
                dt { "evidence of a shift" }
                dd.value { (evidence::power(now.log_r)) }
                dd.note { "alarm at " (evidence::power(now.log_limit)) }
            }
            @match standing.accuracy.estimate() {
                Some(e) => {
                    @let note = format!("{:.0} to {:.0} %, by {}", 100.0 * e.low, 100.0 * e.high, if e.labelled > 0 { "labels" } else { "confidence" });
                    (figure("accuracy now", html! { (format!("{:.0} %", 100.0 * e.value)) }, html! { (note) }))
                }
                None => (figure("accuracy now", html! { "–" }, html! { (standing.accuracy.words()) }))
            }
            @if let Some(labels) = &standing.labels {
                (figure("labelled", html! { (grouped(labels.labelled as u64)) }, html! {
                    (format!("{:.0} %", 100.0 * labels.accuracy.value)) " answered rightly"
                    @if let Some(c) = &labels.coverage { ", sets hold " (format!("{:.0} %", 100.0 * c.value)) }
                }))
            }
            @if !sure.is_empty() {
                @let median = format!("{:.0} %", 100.0 * sure[sure.len() / 2]);
                (figure("confidence", html! { (median) }, html! { "median of the latest " (sure.len()) }))
            }
            @if !took.is_empty() {
                @let (half, most) = (format!("{:.1} ms", at(0.5)), format!("99 % within {:.1} ms", at(0.99)));
                (figure("a picture takes", html! { (half) }, html! { (most) }))
            }
            @let (dropped, late) = shared.metrics.left_out_so_far();
            @if dropped + late > 0 {
                @let note = format!("{} for newer ones, {} too late", grouped(dropped), grouped(late));
                (figure("left out", html! { (grouped(dropped + late)) }, html! { (note) }))
            }
            @if standing.faults > 0 {
                (figure("sensor faults", html! { (grouped(standing.faults)) }, html! { "frames left out" }))
            }
        }
    }
}

fn frames(shared: &Shared, view: &View) -> Markup {
    let labels = &shared.bundle.manifest.labels;
    let start = shared.started.1.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let address = |f: &Frame, kind: &str| format!("/frames/{}/{kind}.png?{start:x}", f.number);
    let others = |f: &Frame| {
        let names = f.set.iter().flatten().filter(|&&k| labels[k] != f.label).map(|&k| labels[k].as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    html! {
        section {
            h2 { "Latest frames" }
            @if view.frames.is_empty() { p.empty { "None since the start." } } @else {
                ul.frames {
                    @for f in view.frames.iter().rev() {
                        li {
                            div.two {
                                img src=(address(f, "picture")) alt=(format!("frame {}", f.number));
                                img src=(address(f, "why")) alt=(format!("what speaks for {}", f.label));
                            }
                            p.said { b { (f.label) @if f.abstains { "?" } } span { (format!("{:.0} %", 100.0 * f.confidence)) } }
                            div.sure aria-hidden="true" { span style=(format!("width:{:.0}%", 100.0 * f.confidence)) {} }
                            @if f.abstains { p.soft { "does not know" } }
                            @let or = others(f);
                            @if !or.is_empty() { p.soft { "or " (or) } }
                            p.soft {
                                "frame " (grouped(f.number)) " · " (ago(f.at))
                                @if f.state == MonitorState::SensorFault { " · " (page::badge(page::State::SensorFault)) }
                            }
                        }
                    }
                }
                div.ramp aria-hidden="true" { "speaks against" i {} "speaks for the predicted class" }
            }
        }
    }
}

fn promise(standing: &Standing) -> Markup {
    let promise = &standing.promise;
    html! {
        section {
            h2 { "What is promised" }
            @if !promise.guarantee { p { (page::badge(page::State::NoGuarantee)) } }
            p.promise { (promise.sentence) }
            @if promise.guarantee {
                ul.conditions { @for c in &promise.conditions { li { (c) } } }
            }
        }
    }
}

fn alarms(standing: &Standing, view: &View) -> Markup {
    let stands = standing.observation.alarm.as_ref();
    let row = |r: &super::watcher::Rang| {
        let open = stands == Some(&r.alarm);
        vec![
            page::text(grouped(r.alarm.raw_frame)),
            page::text(rang(&r.alarm)),
            page::text(r.at.map_or("before the start".into(), ago)),
            if open { page::badge(page::State::Shift) } else { page::text("over") },
        ]
    };
    let columns = [
        page::Column::text("frame"),
        page::Column::text("what rang"),
        page::Column::text("when"),
        page::Column::text("now"),
    ];
    html! {
        @if !view.alarms.is_empty() {
            section {
                h2 { "Alarms" }
                (page::table(&columns, &view.alarms.iter().rev().map(row).collect::<Vec<_>>()))
            }
        }
    }
}

/// `Input changed: luma mean, saturation`.
fn rang(alarm: &Alarm) -> String {
    let channels: Vec<String> = alarm.channels.iter().map(|c| c.name().replace('_', " ")).collect();
    format!("{}: {}", capital(alarm.family.words()), channels.join(", "))
}

/// With a capital at the beginning.
fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}", first.to_uppercase())
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

fn ago(at: SystemTime) -> String {
    match at.elapsed().map_or(0, |d| d.as_secs()) {
        0..=1 => "now".into(),
        s @ 2..=99 => format!("{s} s ago"),
        s @ 100..=5_999 => format!("{} min ago", s / 60),
        s @ 6_000..=172_799 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}
