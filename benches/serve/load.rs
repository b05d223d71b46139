//! A load driver: posts one body over and over and says how long answers took.
//!
//! Closed loop: every connection asks anew when it has its answer. Open loop (`--rate`): requests are due at even times
//! whatever became of the earlier ones, and latency counts from when a request was due, so that a service that stalls
//! does not hide it; `sent_…` counts from when it was sent, which is what is left when the driver itself cannot keep up.
//! One JSON line on stdout.
//!
//!     cargo run --release -p excon-edge --example load -- 127.0.0.1:8080 /v1/predict photo.jpg \
//!         --connections 8 --seconds 10 [--rate 3000]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Plan {
    address: String,
    request: Vec<u8>,
    connections: usize,
    seconds: f64,
    rate: Option<f64>,
}

/// What one connection saw: status of each answer, seconds since it was due, seconds since it was sent.
type Seen = Vec<(u16, f64, f64)>;

fn main() -> Result<(), Failure> {
    let plan = plan(std::env::args().skip(1).collect())?;
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    let results: Vec<Result<Seen, Failure>> = std::thread::scope(|scope| {
        let start = |_| scope.spawn(|| drive(&plan, &next, begun));
        let threads: Vec<_> = (0..plan.connections).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a connection's thread broke".into()))).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut all = Vec::new();
    let mut broken = 0;
    for result in results {
        match result {
            Ok(seen) => all.extend(seen),
            Err(error) => {
                broken += 1;
                eprintln!("a connection ended: {error}");
            }
        }
    }
    let sorted = |value: fn(&(u16, f64, f64)) -> f64| {
        let mut good: Vec<f64> = all.iter().filter(|s| s.0 == 200).map(|s| value(s) * 1e3).collect();
        good.sort_by(f64::total_cmp);
        good
    };
    let (good, sent) = (sorted(|s| s.1), sorted(|s| s.2));
    let rank = |of: &[f64], share: f64| {
        of.get(((of.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    };
    let at = |share| rank(&good, share);
    let refused = all.iter().filter(|s| matches!(s.0, 503 | 504)).count();
    println!(
        "{{\"schema\":\"excon.load/1\",\"connections\":{},\"rate\":{},\"answered\":{},\"refused\":{refused},\"other\":{},\
         \"broken\":{broken},\"per_second\":{:.1},\"p50_ms\":{:.3},\"p90_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3},\"sent_p50_ms\":{:.3},\"sent_p99_ms\":{:.3},\"sent_max_ms\":{:.3}}}",
        plan.connections,
        plan.rate.map_or("null".into(), |r| r.to_string()),
        good.len(),
        all.len() - good.len() - refused,
        good.len() as f64 / seconds,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        rank(&sent, 0.5),
        rank(&sent, 0.99),
        rank(&sent, 1.0)
    );
    Ok(())
}

fn plan(arguments: Vec<String>) -> Result<Plan, Failure> {
    let usage = "give HOST:PORT PATH FILE [--connections N] [--seconds S] [--rate PER_SECOND]";
    let [address, path, file, options @ ..] = arguments.as_slice() else { return Err(usage.into()) };
    let body = std::fs::read(file)?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    let mut plan = Plan { address: address.clone(), request, connections: 1, seconds: 5.0, rate: None };
    for pair in options.chunks(2) {
        match pair {
            [name, value] if name == "--connections" => plan.connections = value.parse()?,
            [name, value] if name == "--seconds" => plan.seconds = value.parse()?,
            [name, value] if name == "--rate" => plan.rate = Some(value.parse()?),
            _ => return Err(usage.into()),
        }
    }
    Ok(plan)
}

fn drive(plan: &Plan, next: &AtomicU64, begun: Instant) -> Result<Seen, Failure> {
    let mut stream = BufReader::new(TcpStream::connect(&plan.address)?);
    stream.get_ref().set_nodelay(true)?;
    stream.get_ref().set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut seen = Vec::new();
    loop {
        let due = match plan.rate {
            None => Instant::now(),
            Some(rate) => begun + Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate),
        };
        if due.duration_since(begun).as_secs_f64() >= plan.seconds {
            return Ok(seen);
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        stream.get_mut().write_all(&plan.request)?;
        seen.push((answer(&mut stream)?, due.elapsed().as_secs_f64(), sent.elapsed().as_secs_f64()));
    }
}

/// Reads one answer to its end; gives its status.
fn answer(stream: &mut impl BufRead) -> Result<u16, Failure> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or("no status line")?.parse()?;
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    std::io::copy(&mut stream.take(length), &mut std::io::sink())?;
    Ok(status)
}
