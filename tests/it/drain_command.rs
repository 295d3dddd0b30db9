//! `doorward drain` and `POST /drain`: the same way down as SIGTERM's, and the signal that follows does not cut it short.

use crate::harness::process::Process;
use crate::harness::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn open(limits: &str) -> String {
    format!("authentication: {{ mode: disabled }}\nlimits: {{ {limits} }}\n")
}

/// Runs the command with this `operations.address` and whatever else.
fn drain(site: &Site, operations: &str, rest: &str) -> Output {
    let rest = format!("operations: {{ address: \"{operations}\" }}\nauthentication: {{ mode: disabled }}\n{rest}");
    let path = site.write("drain.yaml", configuration("http://127.0.0.1:1", &rest));
    command(&["drain", "--config", path.to_str().unwrap()], "")
}

fn wait_for_log(doorward: &Doorward, text: &str) {
    eventually(text, || doorward.stderr().contains(text).then_some(()));
}

fn wait_for_closed_port(doorward: &Doorward) {
    eventually("the port's end", || TcpStream::connect(doorward.traffic).is_err().then_some(()));
}

#[test]
fn the_command_makes_it_not_ready_at_once_and_end_with_0() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    // As the port is named by an operator who listens everywhere, on one family or both.
    for operations in ["127.0.0.1", "0.0.0.0", "[::]"] {
        let mut doorward = site.start(&configuration(&upstream.url(), &open("drain_delay: 4s, drain: 5s")));
        let begun = Instant::now();
        let output = drain(&site, &format!("{operations}:{}", doorward.operations.port()), "");
        assert_eq!(output.status.code(), Some(0), "{operations}: {}", said(&output));
        assert_eq!(doorward.get("/readyz").0, 503);
        assert_eq!(doorward.get("/livez").0, 200);
        assert!(TcpStream::connect(doorward.traffic).is_ok(), "served during drain_delay");
        assert!(begun.elapsed() < Duration::from_secs(4), "the machine is too slow for this test");
        assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
        assert!(begun.elapsed() >= Duration::from_millis(3900), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn the_way_down_is_that_of_sigterm() {
    let (upstream, release) = RawUpstream::holding();
    let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 200ms, drain: 10s")));
    let mut frames = Frames::open(&doorward).await;
    frames.request(1, &frames::grpc_fields("/demo.v1.Echo/Unary", &[])).await;
    upstream.reached(1).await;
    assert_eq!(doorward.ask("POST", "/drain").0, 200);
    let first = frames.until(kind::GOAWAY).await.unwrap();
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0));
    assert!(TcpStream::connect(doorward.traffic).is_err(), "closed before anybody is sent away, lest they come back");
    release.notify_one();
    let (mut last, mut finished) = (None, false);
    while let Some(frame) = frames.next().await {
        match frame.kind {
            kind::GOAWAY => last = Some((frame.number(0), frame.number(4))),
            kind::HEADERS if frame.stream == 1 && frame.flags & frames::END_STREAM != 0 => finished = true,
            kind::PING if frame.flags & frames::ACK == 0 => frames.send(kind::PING, frames::ACK, 0, &frame.payload).await,
            _ => {}
        }
    }
    assert_eq!((last, finished), (Some((1, 0)), true), "the second GOAWAY names the last stream, whose call finishes");
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
}

#[tokio::test]
async fn sigterm_after_the_command_goes_on_draining_a_second_signal_ends_at_once() {
    for second_signal in [false, true] {
        let (upstream, release) = RawUpstream::holding();
        let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 0s, drain: 1h")));
        let mut wire = Wire::connect(&doorward).await;
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/Unary", &[])).await.unwrap();
        stream.send_data(wire::message(b""), true).unwrap();
        upstream.reached(1).await;
        assert_eq!(doorward.ask("POST", "/drain").0, 200);
        wait_for_closed_port(&doorward);
        doorward.signal("TERM");
        wait_for_log(&doorward, "draining already");
        assert!(doorward.is_running());
        if second_signal {
            doorward.signal("INT");
            doorward.wait_exit(Duration::from_secs(5));
            assert_ne!(answer.await.grpc_status(), Some(0));
        } else {
            release.notify_one();
            assert_eq!(answer.await.grpc_status(), Some(0), "in flight when the signal came");
            assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
        }
    }
}

#[test]
fn sigterm_does_not_shorten_the_delay_and_sigint_does() {
    let upstream = RawUpstream::echo();
    for (signal, delay_goes_on) in [("TERM", true), ("INT", false)] {
        let mut doorward = Site::new().start(&configuration(&upstream.url(), &open("drain_delay: 1h, drain: 1h")));
        assert_eq!(doorward.ask("POST", "/drain").0, 200);
        doorward.signal(signal);
        if delay_goes_on {
            wait_for_log(&doorward, "draining already");
            assert!(TcpStream::connect(doorward.traffic).is_ok() && doorward.is_running());
        } else {
            assert_eq!(doorward.wait_exit(Duration::from_secs(5)).code(), Some(0));
        }
    }
}

/// Its ports are not in the log either, so they are chosen here.
#[test]
fn a_log_that_is_quiet_changes_nothing() {
    let site = Site::new();
    for signal in ["TERM", "INT"] {
        let operations = free_address();
        let rest = format!("{}operations: {{ address: \"{operations}\" }}\nlog: {{ level: error }}\n", open("drain_delay: 0s, drain: 1h"));
        let path = site.write("quiet.yaml", configuration("http://127.0.0.1:1", &rest));
        let mut process = Process::spawn(Command::new(env!("CARGO_BIN_EXE_doorward")).arg("run").arg("--config").arg(path));
        // Whoever answers there has its signal handlers already.
        eventually("the operations port", || {
            let mut stream = TcpStream::connect(operations).ok()?;
            stream.write_all(b"GET /startupz HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
            stream.read_exact(&mut [0]).ok()
        });
        process.signal(signal);
        assert_eq!(process.wait(Duration::from_secs(5)).code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn a_drain_asked_for_twice_is_one() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    let mut doorward = site.start(&configuration(&upstream.url(), &open("drain_delay: 1s, drain: 5s")));
    let operations = doorward.operations.to_string();
    for _ in 0..2 {
        assert_eq!(drain(&site, &operations, "").status.code(), Some(0));
    }
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
    let announced = doorward.stderr().lines().filter(|line| line.contains("as POST /drain asked")).count();
    assert_eq!(announced, 1, "{}", doorward.stderr());
}

#[test]
fn it_says_why_nothing_was_begun() {
    let site = Site::new();
    let free = free_address();
    let stranger = answering("SSH-2.0-stranger\r\n");
    let other_server = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    for (operations, word) in [
        (free.to_string(), "refused"),
        (stranger.to_string(), "HTTP"),
        (other_server.to_string(), "404"),
        ("10.0.0.7:9902".to_owned(), "loopback only"),
        ("127.0.0.1:0".to_owned(), "port 0"),
    ] {
        let output = drain(&site, &operations, "");
        assert_eq!(output.status.code(), Some(1), "{operations}: {}", said(&output));
        assert!(said(&output).contains(word) && output.stdout.is_empty(), "{operations}: {}", said(&output));
    }
    assert_eq!(command(&["drain"], "").status.code(), Some(64));
    assert_eq!(command(&["drain", "--config", "/nowhere.yaml"], "").status.code(), Some(78));
    let output = drain(&site, "nowhere", "");
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    assert!(said(&output).contains("operations.address"), "{}", said(&output));
}

/// The proxy that runs goes on with what it had before the file was spoilt.
#[test]
fn an_error_elsewhere_in_the_file_does_not_keep_it_running() {
    let upstream = RawUpstream::echo();
    let site = Site::new();
    let mut doorward = site.start(&configuration(&upstream.url(), &open("drain_delay: 0s, drain: 5s")));
    let output = drain(&site, &doorward.operations.to_string(), "nonsense: 1\nauthorization: { default: maybe }\n");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(doorward.wait_exit(PATIENCE).code(), Some(0));
}

/// A server that says this to its one client.
fn answering(words: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(words.as_bytes());
    });
    address
}
