//! A drain while real clients call without a pause, behind a balancer that sends new connections elsewhere, as Kubernetes
//! does: whatever a client had begun or begins, no call is lost.

use crate::harness::*;
use serde_json::json;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes each new connection to wherever it leads at that moment. Ends with the tests' process.
struct Balancer {
    port: u16,
    target: Arc<Mutex<SocketAddr>>,
}

impl Balancer {
    fn to(doorward: &Doorward) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let balancer = Balancer { port: listener.local_addr().unwrap().port(), target: Arc::new(Mutex::new(doorward.traffic)) };
        let target = balancer.target.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let target = *target.lock().unwrap();
                // Who connects to nothing is sent away.
                let Ok(server) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    from.set_nodelay(true).unwrap();
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        balancer
    }

    fn switch(&self, doorward: &Doorward) {
        *self.target.lock().unwrap() = doorward.traffic;
    }

    fn target(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

/// Two of the same, and a balancer before the first.
fn pair(configuration: &str) -> (Doorward, Doorward, Balancer) {
    let site = Site::new();
    let (first, second) = (site.start(configuration), site.start(configuration));
    let balancer = Balancer::to(&first);
    (first, second, balancer)
}

/// Lets new connections go to the second, then drains the first to its end.
fn replace(first: &mut Doorward, second: &Doorward, balancer: &Balancer) {
    balancer.switch(second);
    first.signal("TERM");
    assert_eq!(first.wait_exit(2 * PATIENCE).code(), Some(0));
}

const OPEN: &str = "authentication: { mode: disabled }\nlimits: { drain_delay: 0s, drain: 20s }\n";

#[test]
fn grpc_go_loses_no_call() {
    let server = GoServer::start();
    let upstream = format!("upstream: {{ address: \"{}\", insecure_exposed: true }}\n", server.url);
    let (mut first, second, balancer) = pair(&configuration("", &format!("{OPEN}{upstream}")));
    let soak = "-soak_iterations 1000 -soak_num_threads 8 -soak_min_time_ms_between_rpcs 10 -soak_overall_timeout_seconds 140 \
                -soak_request_size 5000 -soak_response_size 40000 -soak_per_iteration_max_acceptable_latency_ms 30000";
    let client = GoClient::start(&first, balancer.port, "rpc_soak", &soak.split_whitespace().collect::<Vec<_>>());
    first.access_lines(100);
    replace(&mut first, &second, &balancer);
    assert_eq!(client.result(), Ok(()));
    let (of_first, of_second) = (first.access_log().len(), second.access_lines(1).len());
    assert!(of_first < 1000, "{of_first} and {of_second}: it was drained too late");
}

/// Calls that are in flight meanwhile, and many one after the other.
fn many_calls() -> Vec<Call> {
    let long = (0..20).map(|number| {
        let method = if number % 2 == 0 { "/demo.v1.Echo/Unary" } else { "/demo.v1.Echo/Bidi" };
        call(method).with("together", true).behaviour(json!({"sleep": 0.1 * f64::from(number)}))
    });
    let quick = (0..300).map(|_| call("/demo.v1.Echo/Unary").behaviour(json!({"sleep": 0.002})));
    long.chain(quick).collect()
}

fn loses_no_call(make: impl Fn(&Doorward, &str, &[Call]) -> Vec<Answer> + Send) {
    let upstream = PythonUpstream::start();
    let (mut first, second, balancer) = pair(&configuration(&upstream.url(), OPEN));
    let target = balancer.target();
    let answers = std::thread::scope(|scope| {
        let (second, target) = (&second, &target);
        let client = scope.spawn(move || make(second, target, &many_calls()));
        first.access_lines(30);
        replace(&mut first, second, &balancer);
        client.join().unwrap()
    });
    let lost: Vec<_> = answers.iter().filter(|answer| answer.code() != 0).collect();
    assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), lost[0]);
    assert!(!second.access_lines(1).is_empty(), "it was drained too late");
}

#[test]
fn grpcio_loses_no_call() {
    // It sends again, as it does by default, what the second GOAWAY says was not taken: a stream that it begins while it reads
    // the first one leaves after its answer to our PING.
    loses_no_call(|doorward, target, calls| doorward.calls_as(&json!({"target": target, "retries": true}), calls));
}

#[test]
fn grpc_js_loses_no_call() {
    loses_no_call(|doorward, target, calls| node::calls_as(doorward, &json!({"target": target}), calls));
}
