//! Requests to the proxy that runs on this machine, over its operations port: from loopback, where it takes them from.

use super::BAD_CONFIGURATION;
use crate::config::{self, Severity};
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Of a head: more than any of an answer of ours.
const LONGEST_HEAD: u64 = 8 * 1024;
/// Of a body.
const LONGEST_BODY: u64 = 1 << 20;

/// The answer to one request: its body has yet to be read.
pub(super) struct Answer {
    pub(super) status: u16,
    rest: BufReader<Take<TcpStream>>,
}

impl Answer {
    /// What follows the head, to the end of the connection.
    pub(super) fn body(mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while self.rest.read_until(b'\n', &mut line)? > 0 && line != b"\r\n" {
            line.clear();
        }
        self.rest.get_mut().set_limit(LONGEST_BODY);
        let mut body = Vec::new();
        self.rest.read_to_end(&mut body)?;
        Ok(body)
    }
}

/// `operations.address`. Errors anywhere else in the files do not matter: the proxy that runs goes on with what it had
/// before them, and must be reached all the same.
pub(super) fn address(paths: &[PathBuf]) -> Result<SocketAddr, ExitCode> {
    let config::Loaded { config, problems, .. } = config::load(paths);
    let errors: Vec<_> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let concerns_us = |key: &str| key == "operations" || key.starts_with("operations.");
    match config {
        Some(config) if !errors.iter().any(|error| concerns_us(&error.at.key)) => Ok(config.operations),
        config => {
            for error in errors.iter().filter(|error| config.is_none() || concerns_us(&error.at.key)) {
                eprintln!("{error}");
            }
            Err(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Sends `body` to `path` of the first address that can be connected to. `patience` is for the connection, and for each
/// step on it.
pub(super) fn post(operations: SocketAddr, path: &str, body: &[u8], patience: Duration) -> io::Result<Answer> {
    let mut failures = Vec::new();
    for address in candidates(operations, path)? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                let explained = |error: io::Error| explained(&error, address, patience);
                return ask(stream, address, path, body, patience).map_err(explained);
            }
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(io::Error::new(io::ErrorKind::NotConnected, failures.join("; ")))
}

/// Where a listener at `operations` is reached from this machine, over loopback, best first.
fn candidates(operations: SocketAddr, path: &str) -> io::Result<Vec<SocketAddr>> {
    let error = |message| Err(io::Error::new(io::ErrorKind::Unsupported, message));
    let ips = match operations.ip().to_canonical() {
        _ if operations.port() == 0 => return error("operations.address has port 0, so nobody knows its port".to_owned()),
        IpAddr::V4(ip) if ip.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        // `[::]` takes both families; loopback may have only one of them.
        IpAddr::V6(ip) if ip.is_unspecified() => vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()],
        ip if ip.is_loopback() => vec![ip],
        ip => return error(format!("{path} is taken from loopback only, and operations.address listens on {ip} alone")),
    };
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, operations.port())).collect())
}

fn explained(error: &io::Error, address: SocketAddr, patience: Duration) -> io::Error {
    let message = match error.kind() {
        // The kernel's words for a timeout say something else.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("{address}: no answer within {} s", patience.as_secs()),
        _ => format!("{address}: {error}"),
    };
    io::Error::other(message)
}

fn ask(mut stream: TcpStream, address: SocketAddr, path: &str, body: &[u8], patience: Duration) -> io::Result<Answer> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    // Whoever refuses a body may do so before its end, and take no more of it.
    let sent = stream.write_all(&[head.as_bytes(), body].concat());
    let mut line = Vec::new();
    let mut rest = BufReader::new(stream.take(LONGEST_HEAD));
    let read = rest.read_until(b'\n', &mut line);
    match status(&line) {
        Some(status) => Ok(Answer { status, rest }),
        None => sent.and(read).and(Err(io::Error::other("it did not answer in HTTP; is it Doorward's operations port?"))),
    }
}

/// The status of `HTTP/1.1 200 OK`.
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(operations: &str) -> Result<Vec<String>, String> {
        let found = candidates(operations.parse().unwrap(), "/drain");
        found.map(|found| found.iter().map(SocketAddr::to_string).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_port_is_reached_over_loopback_only() {
        assert_eq!(reached("0.0.0.0:9902").unwrap(), ["127.0.0.1:9902"]);
        assert_eq!(reached("[::]:9902").unwrap(), ["[::1]:9902", "127.0.0.1:9902"]);
        assert_eq!(reached("127.0.0.2:9902").unwrap(), ["127.0.0.2:9902"]);
        assert_eq!(reached("[::1]:9902").unwrap(), ["[::1]:9902"]);
        assert_eq!(reached("[::ffff:127.0.0.1]:9902").unwrap(), ["127.0.0.1:9902"]);
        for elsewhere in ["10.0.0.7:9902", "[2001:db8::1]:9902", "[::ffff:10.0.0.7]:9902"] {
            assert!(reached(elsewhere).unwrap_err().contains("loopback only"), "{elsewhere}");
        }
        assert!(reached("127.0.0.1:0").unwrap_err().contains("port 0"));
    }

    #[test]
    fn only_an_answer_in_http_is_one() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 403 Forbidden\r\n"), Some(403));
        for other in ["", "HTTP/1.1", "HTTP/1.1 \r\n", "HTTP/1.1 2\u{20ac}", "SSH-2.0-x 200", "HTTP/2 200"] {
            assert_eq!(status(other.as_bytes()), None, "{other}");
        }
    }
}
