//! gRPC's own interop programs of grpc-go, unchanged, on both sides: every case that asks for no account in a cloud.

use crate::harness::*;

/// The client's cases. `pick_first_unary` needs several servers that say who they are.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// The API key, as the client takes further metadata.
const KEY: [&str; 2] = ["-additional_metadata", "x-api-key:key-of-the-analytics-service"];

/// Reports of an upstream's load go over calls of the channel's own, without the client's metadata: hence public.
const RULES: &str = "
authentication:
  public_methods: [/xds.service.orca.v3.OpenRcaService/*]
  api_keys: { header: x-api-key, file: api-keys.yaml }
authorization:
  methods:
    /grpc.testing.TestService/*: authenticated
    /grpc.testing.UnimplementedService/*: authenticated
";

fn running() -> (GoServer, Doorward) {
    let server = GoServer::start();
    let rest = format!("{RULES}upstream: {{ address: \"{}\", insecure_exposed: true }}\n", server.url);
    let doorward = Site::new().start(&configuration("", &rest));
    (server, doorward)
}

/// What each case says that goes wrong.
fn failures(doorward: &Doorward, cases: &[&'static str], more: &[&str]) -> Vec<(&'static str, String)> {
    let flags = [&KEY, more].concat();
    let running = cases.iter().map(|case| (*case, GoClient::start(doorward, doorward.traffic.port(), case, &flags)));
    let running: Vec<_> = running.collect();
    running.into_iter().filter_map(|(case, client)| Some((case, client.result().err()?))).collect()
}

#[test]
fn every_case_passes() {
    let (_server, doorward) = running();
    assert_eq!(failures(&doorward, &CASES, &[]), []);
    // Some cases make several calls, and some of those may end after their client has.
    let started = doorward.metric("grpc_server_started_total", &[]);
    assert!(started >= 14.0, "{started} calls came through Doorward");
}

#[test]
fn the_soak_cases_pass() {
    let (_server, doorward) = running();
    let soak = ["-soak_iterations", "100", "-soak_num_threads", "4", "-soak_overall_timeout_seconds", "140"];
    // What is asked here is that no call fails, not how long one takes on a busy machine.
    let patient = [&soak[..], &["-soak_per_iteration_max_acceptable_latency_ms", "15000"]].concat();
    assert_eq!(failures(&doorward, &["rpc_soak", "channel_soak"], &patient), []);
    assert_eq!(doorward.metric("grpc_server_handled_total", &["grpc_code=\"OK\""]), 200.0);
}

#[test]
fn load_reports_pass_in_trailers_and_out_of_band() {
    let (_server, doorward) = running();
    let balancer = ["-service_config_json", "{\"loadBalancingConfig\":[{\"test_backend_metrics_load_balancer\":{}}]}"];
    assert_eq!(failures(&doorward, &["orca_per_rpc", "orca_oob"], &balancer), []);
}

#[test]
fn without_its_key_the_client_fails() {
    let (_server, doorward) = running();
    let why = GoClient::start(&doorward, doorward.traffic.port(), "empty_unary", &[]).result().unwrap_err();
    assert!(why.contains("Unauthenticated") && why.contains("credentials are needed"), "{why}");
}
