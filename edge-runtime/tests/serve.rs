//! The service as programs meet it: a running `excon-edge serve`, real sockets, real signals, and where they are
//! installed the public Triton client, Prometheus' own checker, curl and a browser.
#![cfg(all(unix, feature = "serve"))]
#![allow(clippy::unwrap_used, missing_docs)]

mod service;
mod tiny;

use serde_json::{Value, json};
use service::{Answer, Service, in_folder, skipped};
use std::fs;
use std::io::Write;
use std::process::Command;

const INFER: &str = "/v2/models/tiny/infer";

fn picture(seed: u64, brightness: f32) -> Vec<u8> {
    tiny::png(&tiny::picture(seed, brightness))
}

#[test]
fn a_posted_picture_comes_back_with_everything_known_about_it() {
    in_folder(|folder| {
        let service = Service::start(folder, &["--independent"]);
        let answer = service.post("/v1/predict?overlay=true", &picture(20_000, 0.5)).expect(200);
        let value = answer.json();
        assert_eq!(
            (&value["schema"], &value["model"], &value["version"]),
            (&"excon.answer/1".into(), &"tiny".into(), &3.into())
        );
        let probabilities: f64 =
            value["probabilities"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        assert!((probabilities - 1.0).abs() < 1e-9);
        assert!(value["prediction_set"].as_array().unwrap().contains(&value["label"]));
        let map = &value["map"];
        let sides = map["width"].as_u64().unwrap() * map["height"].as_u64().unwrap();
        assert_eq!(map["values"].as_array().unwrap().len() as u64, sides);
        assert!(value["overlay"].as_str().unwrap().starts_with("iVBORw0KGgo"), "a PNG in base64");
        assert_eq!((&value["monitor"]["frame"], &value["monitor"]["state"]), (&1.into(), &"healthy".into()));

        // The same as the command says.
        fs::write(folder.join("photo.png"), picture(20_000, 0.5)).unwrap();
        let said = service::command(folder, &["predict", "tiny.excon", "photo.png", "--format", "json"]);
        for key in ["label", "probabilities", "prediction_set", "confidence", "completeness"] {
            assert_eq!(said[key], value[key], "{key}");
        }
        let unwatched = service.post("/v1/predict?watch=false", &picture(1, 0.5)).expect(200).json();
        assert_eq!((&unwatched["monitor"], unwatched.get("overlay")), (&Value::Null, None));
        assert_eq!(service.get("/v1/status").expect(200).json()["raw_frames"], 1);
    });
}

#[test]
fn inference_speaks_the_open_protocol() {
    in_folder(|folder| {
        let service = Service::start(folder, &[]);
        assert_eq!(service.get("/v2/health/live").expect(200).json()["live"], true);
        assert_eq!(service.get("/v2/models/tiny/versions/3/ready").expect(200).json()["ready"], true);
        service.get("/v2/models/other/ready").expect(404);
        service.get("/v2/models/tiny/versions/4").expect(404);
        let model = service.get("/v2/models/tiny").expect(200).json();
        let shape: Vec<i64> = serde_json::from_value(model["inputs"][0]["shape"].clone()).unwrap();
        assert_eq!((shape[0], shape[1], model["inputs"][0]["name"].as_str()), (-1, 3, Some("input")));

        let size = shape[2] as usize;
        let values: Vec<f32> = (0..2 * 3 * size * size).map(|i| (i % 7) as f32 / 4.0 - 0.75).collect();
        let input = json!({ "name": "input", "shape": [2, 3, size, size], "datatype": "FP32", "data": values });
        let request = json!({ "id": "mine", "inputs": [input] }).to_string();
        let answer = service.post(INFER, request.as_bytes()).expect(200).json();
        assert_eq!(answer["id"], "mine");
        let logits =
            |answer: &Value| answer["outputs"].as_array().unwrap().iter().find(|o| o["name"] == "logits").cloned();
        assert_eq!(logits(&answer).unwrap()["shape"], json!([2, 3]));

        // As bytes, with one output back as bytes.
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let head = json!({
            "inputs": [{ "name": "input", "shape": [2, 3, size, size], "datatype": "FP32",
                         "parameters": { "binary_data_size": bytes.len() } }],
            "outputs": [{ "name": "logits", "parameters": { "binary_data": true } }],
        })
        .to_string();
        let length = head.len().to_string();
        let body = [head.as_bytes(), &bytes].concat();
        let binary = service.ask("POST", INFER, &[("Inference-Header-Content-Length", &length)], &body).expect(200);
        let start: usize = binary.header("inference-header-content-length").unwrap().parse().unwrap();
        let floats: Vec<f64> =
            binary.body[start..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect();
        let wanted: Vec<f64> = serde_json::from_value(logits(&answer).unwrap()["data"].clone()).unwrap();
        assert_eq!(floats.len(), wanted.len());
        assert!(floats.iter().zip(&wanted).all(|(a, b)| *a as f32 == *b as f32));

        // Raw pixels give what the posted picture gives.
        let raw = tiny::picture(5, 0.5);
        let input =
            json!({ "name": "input", "shape": [1, raw.height, raw.width, 3], "datatype": "UINT8", "data": raw.rgb });
        let outputs = json!([{ "name": "label" }]);
        let request = json!({ "inputs": [input], "outputs": outputs }).to_string();
        let label = service.post(INFER, request.as_bytes()).expect(200).json()["outputs"][0]["data"][0].clone();
        assert_eq!(label, service.post("/v1/predict", &tiny::png(&raw)).expect(200).json()["label"]);
    });
}

#[test]
fn the_alarm_rings_is_kept_and_is_answered_from_either_side() {
    in_folder(|folder| {
        let watch = ["--state", "kept", "--independent"];
        let service = Service::start(folder, &watch);
        let dark = |service: &Service, from: u64| {
            (from..from + 40).for_each(|s| drop(service.post("/v1/predict", &picture(s, 0.25)).expect(200)));
        };
        dark(&service, 30_000);
        let status = service.get("/v1/status").expect(200).json();
        assert_eq!((&status["state"], &status["alarm"]["family"]), (&"shift".into(), &"input_changed".into()));
        service.get("/v2/health/ready").expect(200);
        let metrics = service.get("/metrics").expect(200).text();
        for line in ["excon_shift_alarm 1", "excon_shift_alarms_total 1", "excon_state{state=\"shift\"} 1"] {
            assert!(metrics.lines().any(|l| l == line), "`{line}` is not in:\n{metrics}");
        }
        let page = service.get("/").expect(200).text();
        assert!(page.contains("Acknowledge") && page.contains("Input changed"), "{page}");
        let again = service::raw(folder, &["serve", "tiny.excon", "--state", "kept", "--addr", "127.0.0.1:0"]);
        assert!(again.1.contains("keeps its monitor here"), "{}", again.1);
        service.stop();

        // Restored, and answered over HTTP.
        let service = Service::start(folder, &watch);
        assert_eq!(service.get("/v1/status").expect(200).json()["alarm"], status["alarm"]);
        let answered = service.post("/v1/acknowledge", b"").expect(200).json();
        assert_eq!(answered["acknowledged"]["family"], "input_changed");
        assert_eq!(service.get("/v1/status").expect(200).json()["state"], "healthy");
        assert_eq!(service.post("/v1/acknowledge", b"").expect(200).json()["acknowledged"], Value::Null);

        // Rung again, and answered by the command while the service runs.
        dark(&service, 40_000);
        assert_eq!(service.get("/v1/status").expect(200).json()["state"], "shift");
        let said = service::command(folder, &["acknowledge", "tiny.excon", "--state", "kept", "--format", "json"]);
        assert!(said["acknowledged"].as_str().unwrap().contains("input changed"), "{said}");
        service.until(|s| s.get("/v1/status").expect(200).json()["state"] == "healthy");
        let sent_back = service.ask("POST", "/v1/acknowledge", &[("Accept", "text/html")], b"").expect(303);
        assert_eq!(sent_back.header("location"), Some("/"));
    });
}

#[test]
fn notices_are_answered_but_cannot_be_accepted() {
    in_folder(|folder| {
        let families = ["network-unsure", "input-changed", "explanation-inconsistent"].map(|f| ["--notice", f]);
        let flags = [&["--independent", "--mean-time", "50"], families.as_flattened()].concat();
        let service = Service::start(folder, &flags);
        let status = || service.get("/v1/status").expect(200).json();
        (30_000..30_060).for_each(|s| drop(service.post("/v1/predict", &picture(s, 0.25)).expect(200)));
        assert_eq!((&status()["slow_drift"], &status()["alarm"]), (&true.into(), &Value::Null));
        let page = service.get("/").expect(200).text();
        assert!(
            page.contains("Notice: slow drift") && page.contains("Acknowledge") && !page.contains("new normal"),
            "{page}"
        );
        service.post("/v1/acknowledge?accept=true", b"").expect(409);
        let answered = service.post("/v1/acknowledge", b"").expect(200).json();
        assert_eq!(answered["slow_drift"], true);
        assert_eq!(answered["notices"], serde_json::json!(["network_unsure", "input_changed"]));
        assert_eq!(status()["slow_drift"], false);
        let page = service.get("/").expect(200).text();
        assert!(!page.contains("Notice:") && !page.contains("Acknowledge"), "{page}");
    });
}

#[test]
fn what_cannot_be_answered_is_refused_in_words() {
    in_folder(|folder| {
        let service = Service::start(folder, &["--max-body", "100000", "--max-pixels", "1000"]);
        let said = |answer: Answer, words: &str| {
            let error = answer.json()["error"].as_str().unwrap().to_string();
            assert!(error.contains(words), "`{words}` is not in: {error}");
        };
        said(service.post("/v1/predict", b"no picture").expect(400), "neither JPEG nor PNG");
        said(service.post("/v1/predict", b"").expect(400), "empty");
        let large = tiny::png(&excon_edge::image::Picture { width: 40, height: 40, rgb: vec![9; 4800] });
        said(service.post("/v1/predict", &large).expect(400), "1000 in all");
        said(service.post("/v1/predict", &vec![0; 100_001]).expect(413), "--max-body");
        said(service.post("/v1/predict?overlap=1", &picture(1, 0.5)).expect(400), "overlap");
        said(service.ask("POST", "/v1/predict", &[("Content-Encoding", "gzip")], b"x").expect(415), "compressed");
        said(service.post(INFER, b"{").expect(400), "JSON");
        said(service.post(INFER, &b"[".repeat(90_000)).expect(400), "JSON");
        said(service.get("/nothing").expect(404), "no such address");
        service.get("/v1/predict").expect(405);
        said(
            service.ask("POST", "/v1/acknowledge", &[("Origin", "http://attacker.example")], b"").expect(403),
            "origin",
        );
        assert_eq!(service.ask("GET", "/v2", &[("X-Request-Id", "abc-1")], b"").header("x-request-id"), Some("abc-1"));
        assert!(service.get("/v2").header("x-request-id").is_some());
        assert_eq!(service.get("/v1/status").expect(200).json()["raw_frames"], 0, "nothing of it reached the monitor");
    });
}

#[test]
fn garbage_slow_and_silent_callers_do_no_harm() {
    in_folder(|folder| {
        let service = Service::start(folder, &["--deadline-ms", "300"]);
        let half_open: Vec<_> = (0..50).map(|_| service.connect()).collect();
        let slow: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = service.connect();
                stream
                    .write_all(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\nabc")
                    .unwrap();
                stream
            })
            .collect();
        let mut noise = 88172645463325252u64;
        let good = picture(7, 0.5);
        let count: usize = std::env::var("EXCON_GARBAGE").ok().and_then(|v| v.parse().ok()).unwrap_or(1_000);
        for _ in 0..count {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let mut body = good.clone();
            let at = noise as usize % body.len();
            match noise >> 61 {
                0 => body.truncate(at),
                1..=4 => body[at] ^= (noise >> 32) as u8 | 1,
                _ => body = noise.to_le_bytes().repeat(1 + at % 50),
            }
            let path = if noise & 1024 == 0 { "/v1/predict?watch=false" } else { INFER };
            let code = service.post(path, &body).code;
            assert!(matches!(code, 200 | 400), "{code}");
        }
        for _ in 0..50 {
            // Not even HTTP: an answer or a closed connection, as the service likes.
            let mut stream = service.connect();
            let _ = stream.write_all(&noise.to_le_bytes().repeat(64));
        }
        for mut stream in slow {
            assert_eq!(service::read(&mut stream).code, 408);
        }
        drop(half_open);
        service.post("/v1/predict", &good).expect(200);
    });
}

#[test]
fn more_than_there_is_room_for_is_told_to_come_again() {
    in_folder(|folder| {
        // One worker that waits half a second for company, and room for two pictures.
        let slow = ["--workers", "1", "--queue", "2", "--batch", "8", "--batch-delay-ms", "500"];
        let service = Service::start(folder, &slow);
        let body = picture(1, 0.5);
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| service.post("/v1/predict", &body));
            let asked: Vec<_> = (0..12).map(|_| ask()).collect();
            asked.into_iter().map(|a| a.join().unwrap()).collect()
        });
        let (good, full): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|a| a.code == 200);
        assert!(!good.is_empty() && !full.is_empty(), "{} answered, {} refused", good.len(), full.len());
        assert!(full.iter().all(|a| a.code == 503 && a.header("retry-after") == Some("1")));
    });
}

#[test]
fn open_requests_are_answered_after_the_signal() {
    in_folder(|folder| {
        let service = Service::start(folder, &["--workers", "1", "--batch-delay-ms", "700", "--state", "kept"]);
        let body = picture(1, 0.5);
        let mut open = service.connect();
        open.write_all(&service::request("POST", "/v1/predict", &[], &body)).unwrap();
        service.until(|s| s.get("/v1/status").expect(200).json()["queued_pictures"] == 1);
        service.signal();
        assert_eq!(service::read(&mut open).code, 200);
        assert_eq!(service.wait(), Some(0));
        let status = service::command(folder, &["status", "tiny.excon", "--state", "kept", "--format", "json"]);
        assert_eq!(status["monitor"]["raw_frames"], 1, "the last frame is in the state");
    });
}

#[test]
fn other_machines_need_a_token_and_tls_is_spoken_where_set_up() {
    in_folder(|folder| {
        let refused = service::raw(folder, &["serve", "tiny.excon", "--addr", "0.0.0.0:0"]);
        assert!(refused.0 == 64 && refused.1.contains("--token-file"), "{refused:?}");
        fs::write(folder.join("short"), "secret\n").unwrap();
        assert_eq!(service::raw(folder, &["serve", "tiny.excon", "--token-file", "short"]).0, 64);
        fs::write(folder.join("token"), "0123456789abcdef0123\n").unwrap();

        let service = Service::start(folder, &["--token-file", "token"]);
        let denied = service.get("/").expect(401);
        assert!(denied.header("www-authenticate").is_some());
        service.post("/v1/acknowledge", b"").expect(401);
        service.get("/v2/health/ready").expect(200);
        service.ask("GET", "/metrics", &[("Authorization", "Bearer 0123456789abcdef0123")], b"").expect(200);
        service.ask("GET", "/metrics", &[("Authorization", "Bearer 0123456789abcdef0124")], b"").expect(401);
        drop(service);

        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                "key.pem",
                "-out",
                "chain.pem",
            ])
            .current_dir(folder)
            .output();
        if !made.is_ok_and(|m| m.status.success()) {
            return skipped("no openssl to make a certificate with");
        }
        let service = Service::start(folder, &["--tls-cert", "chain.pem", "--tls-key", "key.pem"]);
        let url = format!("{}v2/health/live", service.url);
        assert!(url.starts_with("https://"));
        match Command::new("curl").args(["-sS", "--cacert", "chain.pem", &url]).current_dir(folder).output() {
            Ok(said) => assert!(String::from_utf8_lossy(&said.stdout).contains("true"), "{said:?}"),
            Err(_) => skipped("no curl"),
        }
        drop(service);
        fs::write(folder.join("key.pem"), "no key").unwrap();
        let refused = service::raw(folder, &["serve", "tiny.excon", "--tls-cert", "chain.pem", "--tls-key", "key.pem"]);
        assert!(refused.0 == 64 && refused.1.contains("key.pem"), "{refused:?}");
    });
}

#[test]
fn the_public_triton_client_works() {
    let Some(python) = service::python("tritonclient.http") else {
        return skipped("EXCON_PYTHON has no tritonclient[http]");
    };
    in_folder(|folder| {
        let service = Service::start(folder, &[]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/triton.py");
        let said = Command::new(python).args([script, service.address()]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    });
}

#[test]
fn prometheus_reads_metrics_and_rules() {
    in_folder(|folder| {
        let service = Service::start(folder, &[]);
        service.post("/v1/predict", &picture(1, 0.5)).expect(200);
        let metrics = service.get("/metrics").expect(200).text();
        for name in [
            "excon_frames_total 1",
            "excon_inference_seconds_bucket",
            "excon_confidence_bucket",
            "excon_shift_log_e{channel=\"confidence\"}",
            "excon_effective_frames_total",
            "excon_bundle_info{digest=",
        ] {
            assert!(metrics.contains(name), "{name} is not in:\n{metrics}");
        }
        let folder_of_rules = concat!(env!("CARGO_MANIFEST_DIR"), "/monitoring");
        // What dashboard and rules ask for is there.
        for file in ["dashboard.json", "alerts.yml"] {
            let text = fs::read_to_string(format!("{folder_of_rules}/{file}")).unwrap();
            for name in
                text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| w.starts_with("excon_"))
            {
                // After one picture the estimate abstains; `labels.rs` sees it.
                assert!(
                    name == "excon_accuracy_estimate" || metrics.contains(name),
                    "{file} asks for {name}, which is not in:\n{metrics}"
                );
            }
        }
        serde_json::from_str::<Value>(&fs::read_to_string(format!("{folder_of_rules}/dashboard.json")).unwrap())
            .unwrap();
        let checks: [&[&str]; 3] = [
            &["check", "rules", "alerts.yml"],
            &["test", "rules", "alerts-test.yml"],
            &["check", "config", "--syntax-only", "prometheus.yml"],
        ];
        for check in checks {
            match Command::new("promtool").args(check).current_dir(folder_of_rules).output() {
                Ok(said) => assert!(said.status.success(), "{said:?}"),
                Err(_) => return skipped("no promtool; Debian's package `prometheus` has it"),
            }
        }
        service::scraped_by_prometheus(folder, &service);
    });
}

#[test]
fn a_browser_shows_the_page_and_its_script_runs() {
    in_folder(|folder| {
        let service = Service::start(folder, &[]);
        service.post("/v1/predict", &picture(1, 0.5)).expect(200);
        let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(|name| {
            Command::new(name)
                .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=6000"])
                .args([&format!("--user-data-dir={}/browser", folder.display()), &service.url])
                .output()
                .ok()
        });
        let Some(said) = browser else { return skipped("no Chromium") };
        let page = String::from_utf8_lossy(&said.stdout);
        assert!(page.contains("Latest frames") && page.contains("frame 1"), "{page}");
        assert!(page.contains("id=\"lost\" hidden"), "the script reached the service: {page}");
        let metrics = service.get("/metrics").expect(200).text();
        let asked =
            metrics.lines().find(|l| l.starts_with("excon_requests_total{route=\"live\",code=\"200\"}")).unwrap();
        let asked: u64 = asked.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(asked >= 4, "page, two pictures and at least one look again: {asked}");
    });
}
