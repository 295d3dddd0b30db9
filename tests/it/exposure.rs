//! An upstream on loopback whose port others can reach: said in the log, the metric and readiness; served all the same.

use crate::harness::*;
use h2::server::Builder;
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener};

const OPEN: &str = "authentication: { mode: disabled }\n";

fn echo_at(address: SocketAddr) -> RawUpstream {
    RawUpstream::start_at(address, Builder::new(), |call| call.answer("0"))
}

/// Everybody's interface, on this port.
fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Reached over loopback wherever it listens.
fn url(upstream: &RawUpstream) -> String {
    format!("http://127.0.0.1:{}", upstream.address.port())
}

fn errors(doorward: &Doorward) -> usize {
    doorward.stderr().lines().filter(|line| line.contains("ERROR") && line.contains("go around")).count()
}

#[tokio::test]
async fn it_is_not_ready_until_it_is_bound_to_loopback_and_served_all_the_same() {
    let mut upstream = echo_at(everywhere(0));
    let port = upstream.address.port();
    let doorward = Site::new().start_unready(&configuration(&url(&upstream), OPEN));
    eventually("the metric", || (doorward.metric("doorward_upstream_exposed", &[]) == 1.0).then_some(()));
    eventually("the other parts", || doorward.get("/readyz?verbose").1.contains("[+] upstream\n").then_some(()));
    let (status, parts) = doorward.get("/readyz?verbose");
    assert_eq!(status, 503);
    let part = parts.lines().find(|line| line.starts_with("[-] upstream exposure: ")).unwrap_or_else(|| panic!("{parts}"));
    assert!(part.contains(&format!("0.0.0.0:{port}")) && part.contains("127.0.0.1"), "where, and what to do: {part}");
    eventually("what to do", || doorward.stderr().contains("unix:/path").then_some(()));
    let answer = Wire::connect(&doorward).await.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(answer.grpc_status(), Some(0), "a laptop works");

    upstream.stop();
    let _bound_well = echo_at(on_loopback(port));
    eventually("ready", || (doorward.get("/readyz").0 == 200).then_some(()));
    assert_eq!(doorward.metric("doorward_upstream_exposed", &[]), 0.0);
    eventually("its end in the log", || doorward.stderr().contains("(any more)").then_some(()));
    assert_eq!(errors(&doorward), 1, "once a change: {}", doorward.stderr());
}

#[test]
fn a_port_that_is_opened_later_is_seen_too() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    assert_eq!((errors(&doorward), doorward.metric("doorward_upstream_exposed", &[])), (0, 0.0));
    // The same port of the other family: nothing keeps another process, or the service itself, from taking it.
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.bind(&SocketAddr::from(([0; 8], upstream.address.port())).into()).unwrap();
    socket.listen(1).unwrap();
    eventually("not ready", || (doorward.get("/readyz").0 == 503).then_some(()));
    let address = format!("[::]:{}", upstream.address.port());
    eventually("the address in the log", || doorward.stderr().contains(&address).then_some(()));
}

#[test]
fn insecure_exposed_is_ready_with_a_warning_and_shows_all_the_same() {
    let upstream = echo_at(everywhere(0));
    let rest = format!("{OPEN}upstream: {{ address: \"{}\", insecure_exposed: true }}\n", url(&upstream));
    let doorward = Site::new().start(&configuration("", &rest));
    eventually("the metric", || (doorward.metric("doorward_upstream_exposed", &[]) == 1.0).then_some(()));
    assert_eq!(doorward.get("/readyz").0, 200);
    let stderr = doorward.stderr();
    assert!(stderr.lines().any(|line| line.starts_with("warning: ") && line.contains("upstream.insecure_exposed")), "{stderr}");
    assert_eq!(errors(&doorward), 0, "{stderr}");
}

#[test]
fn an_upstream_that_is_elsewhere_is_nobodys_business() {
    // Listens everywhere, as another machine's service may; a Unix socket has no port at all.
    let other = TcpListener::bind(everywhere(0)).unwrap();
    let site = Site::new();
    for address in [format!("http://192.0.2.1:{}", other.local_addr().unwrap().port()), format!("unix:{}", site.path("sock").display())] {
        let doorward = site.start_unready(&configuration(&address, OPEN));
        eventually("started", || (doorward.get("/startupz").0 == 200).then_some(()));
        assert!(!doorward.get("/readyz?verbose").1.contains("exposure"), "{address}");
    }
}
