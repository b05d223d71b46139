//! Accuracy now, and labels that come late: as a command beside a watch, and over HTTP.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

mod service;
mod tiny;
mod watching;

use serde_json::{Value, json};
use service::Service;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use watching::{done, excon, in_folder};

/// Neighbouring seeds make neighbouring tints; these are far apart.
fn picture(seed: u64, brightness: f32) -> Vec<u8> {
    watching::png(500_000 + 7_919 * seed, brightness)
}

fn frames(folder: &Path, name: &str, seeds: std::ops::Range<u64>, brightness: f32) {
    fs::create_dir_all(folder).unwrap();
    seeds.for_each(|s| fs::write(folder.join(format!("{name}{s:04}.png")), picture(s, brightness)).unwrap());
}

fn watch(folder: &Path, code: i32) -> Vec<Value> {
    let arguments = ["--format", "json", "watch", "tiny.excon", "stream", "--state", "kept", "--independent"];
    let (said, lines, stderr) = done(folder, &arguments);
    assert_eq!(said, code, "{stderr}");
    lines
}

/// Exit code, JSON, stderr of `label` with a list on standard input.
fn label(folder: &Path, list: &str) -> (i32, Value, String) {
    let arguments = ["--format", "json", "label", "tiny.excon", "--state", "kept"];
    let mut command = excon(folder, &arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let value = serde_json::from_slice(&said.stdout).unwrap_or(Value::Null);
    (said.status.code().unwrap(), value, String::from_utf8(said.stderr).unwrap())
}

/// The predicted class, or for every fourth frame one that it is not.
fn class(index: usize, predicted: &str) -> &str {
    if index.is_multiple_of(4) { tiny::LABELS.into_iter().find(|l| *l != predicted).unwrap() } else { predicted }
}

#[test]
fn a_watch_estimates_accuracy_and_labels_come_late() {
    in_folder(|folder| {
        let stream = folder.join("stream");
        frames(&stream, "a", 0..150, 0.5);
        let lines = watch(folder, 0);
        let accuracy = |line: usize| &lines[line]["accuracy"];
        assert_eq!(accuracy(98)["status"], "abstain");
        assert!(accuracy(98)["reason"].as_str().unwrap().contains("99 effective frames so far"), "{}", accuracy(98));
        let first = accuracy(99);
        assert_eq!(
            (&first["status"], &first["frames"], &first["labelled"]),
            (&"estimate".into(), &100.into(), &0.into())
        );
        let share = |value: &Value| value.as_f64().unwrap();
        assert!(share(&first["low"]) < share(&first["value"]) && share(&first["value"]) < share(&first["high"]));
        assert_eq!((share(&first["healthy"]), &first["change"]), (0.75, &"unchanged".into()));
        assert_eq!(&lines[150]["accuracy"], accuracy(149), "the summary says it too");

        // Of every second frame, the latest first; one twice, one never seen.
        let named = |i: usize| lines[i]["picture"].as_str().unwrap();
        let row = |i: usize| format!("{},{}\n", named(i), class(i / 2, lines[i]["label"].as_str().unwrap()));
        let list: String = (0..60).rev().map(|i| row(2 * i)).collect();
        let (code, said, stderr) = label(folder, &(list + &row(20) + "never.png,cup\n"));
        assert_eq!(code, 0, "{stderr}");
        assert_eq!((&said["taken"], &said["duplicates"], &said["unknown"]), (&60.into(), &1.into(), &1.into()));
        assert_eq!(said["unknown_names"], json!(["never.png"]));
        assert_eq!((share(&said["labels"]["accuracy"]["value"]), &said["labels"]["labelled"]), (0.75, &60.into()));
        assert!(said["labels"]["coverage"]["low"].is_f64() && said["labels"]["gap"]["value"].is_f64());

        let (code, _, stderr) = label(folder, &format!("{},cupp\n{}", named(1), row(3)));
        assert_eq!(code, 65);
        assert!(stderr.contains("`cupp`") && stderr.contains("cup, jar, lid"), "{stderr}");
        assert_eq!(label(folder, "a.png\n").0, 65);
        assert_eq!(done(folder, &["label", "tiny.excon", "--state", "kept", "odd"]).0, 65);
        assert_eq!(done(folder, &["label", "tiny.excon", "--state", "elsewhere", named(1), "cup"]).0, 65);

        // The watch goes on; labels and window are still there.
        frames(&stream, "b", 1_000..1_010, 0.5);
        let lines_later = watch(folder, 0);
        assert_eq!(lines_later[0]["accuracy"]["frames"], 151);
        assert_eq!(lines_later[10]["labels"]["labelled"], 60);
        let status = done(folder, &["--format", "json", "status", "tiny.excon", "--state", "kept"]).1;
        assert_eq!(status[0]["monitor"]["accuracy"], lines_later[10]["accuracy"]);
        let waiting = done(folder, &["--format", "json", "label", "tiny.excon", "--state", "kept", "--list"]).1;
        assert_eq!(waiting[0]["frames"].as_array().unwrap().len(), 100);
        let text = excon(folder, &["status", "tiny.excon", "--state", "kept"]).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(
            text.contains("over 160 frames; 75.0 % when healthy") && text.contains("60 of 160 frames labelled"),
            "{text}"
        );
    });
}

#[test]
fn an_alarm_begins_the_estimate_anew_and_strange_frames_get_none() {
    in_folder(|folder| {
        let stream = folder.join("stream");
        frames(&stream, "a", 0..110, 0.5);
        frames(&stream, "b", 200..340, 0.25);
        let lines = watch(folder, 1);
        let rang = lines.iter().position(|l| !l["alarm"].is_null()).unwrap();
        assert_eq!(lines[rang - 1]["accuracy"]["frames"], rang);
        assert_eq!(lines[rang]["accuracy"]["frames"], 1, "what is seen now is not mixed with what was");
        let end = &lines[250]["accuracy"];
        assert_eq!((&end["status"], &end["frames"]), (&"abstain".into(), &(250 - rang).into()));
        assert!(end["reason"].as_str().unwrap().contains("unlike"), "{end}");
        let said = done(folder, &["status", "tiny.excon", "--state", "kept"]);
        assert_eq!(said.0, 1);
        let text = excon(folder, &["watch", "tiny.excon", "stream", "--independent"]).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("the input changed; what it does to accuracy is not known"), "{text}");
    });
}

#[test]
fn labels_come_over_http_and_outlive_a_restart() {
    in_folder(|folder| {
        let kept = ["--state", "kept", "--independent"];
        let service = Service::start(folder, &kept);
        let mut predicted = Vec::new();
        for i in 0..120u64 {
            let id = format!("request-{i}");
            let answer = service.ask("POST", "/v1/predict", &[("X-Request-Id", &id)], &picture(i, 0.5)).expect(200);
            predicted.push(answer.json()["label"].as_str().unwrap().to_string());
        }
        assert_eq!(service.get("/v1/labels").expect(200).json()["frames"].as_array().unwrap().len(), 120);
        let status = service.get("/v1/status").expect(200).json();
        assert_eq!((&status["accuracy"]["status"], &status["labels"]), (&"estimate".into(), &Value::Null));
        let metrics = service.get("/metrics").expect(200).text();
        for bound in ["low", "value", "high"] {
            assert!(metrics.contains(&format!("excon_accuracy_estimate{{bound=\"{bound}\"}} 0.")), "{metrics}");
        }
        assert!(metrics.contains("excon_accuracy_healthy 0.75"), "{metrics}");
        assert!(service.get("/live").expect(200).text().contains("accuracy now"));

        let named = |i: usize| json!({ "name": format!("request-{i}"), "class": class(i, &predicted[i]) });
        let some: Vec<Value> = (40..80).rev().map(named).collect();
        let said = service.post("/v1/labels", json!(some).to_string().as_bytes()).expect(200).json();
        assert_eq!((&said["taken"], &said["labels"]["labelled"]), (&40.into(), &40.into()));
        let wrong = json!([named(1), { "name": "request-2", "class": "cupp" }]).to_string();
        let refused = service.post("/v1/labels", wrong.as_bytes()).expect(400).text();
        assert!(refused.contains("cup, jar, lid"), "{refused}");
        service.post("/v1/labels", b"request-1,cup").expect(400);
        service.ask("POST", "/v1/labels", &[("Origin", "http://attacker.example")], b"[]").expect(403);
        service.stop();

        let service = Service::start(folder, &kept);
        let rows =
            format!("request-1,{}\nrequest-41,{}\nnobody,cup\n", class(1, &predicted[1]), class(41, &predicted[41]));
        let csv = [("Content-Type", "text/csv; charset=utf-8")];
        let said = service.ask("POST", "/v1/labels", &csv, rows.as_bytes()).expect(200).json();
        assert_eq!((&said["taken"], &said["duplicates"], &said["unknown"]), (&1.into(), &1.into(), &1.into()));
        assert_eq!(service.get("/v1/status").expect(200).json()["labels"]["labelled"], 41);
        // Another process labels, the service takes it over.
        let (code, _, stderr) = label(folder, &format!("request-3,{}\n", class(3, &predicted[3])));
        assert_eq!(code, 0, "{stderr}");
        service.until(|s| s.get("/v1/status").json()["labels"]["labelled"] == 42);
        service.stop();
    });
}
