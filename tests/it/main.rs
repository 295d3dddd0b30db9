//! The integration tests: the real binary between real peers. One module a subject, each test named after the line it proves.
#![allow(missing_docs, unreachable_pub)] // nothing here is anybody's interface
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a panic is how a test fails, in its helpers too

mod access_log; // one JSON line a call, no secret in it
mod architecture; // imports only go down; files say what they are for
mod authorization; // which rule decides, and what a refusal says
mod calls; // every kind of call passes unchanged
mod check; // what `check` says of a configuration: summary, likely mistakes, methods that the upstream does not have
mod claim_names; // nested roles, scopes, clients: tokens as widespread providers shape them
mod client_certificates; // callers known by a name in their certificate
mod client_examples; // the programs of docs/clients.md
mod commands; // the command line and its exit codes
mod configuration; // every error at once, nothing bound when bad
mod credentials; // every refusal of authentication
mod dashboards; // dashboard and alert rules name only metrics that exist
mod dependencies; // licences and sources of what is linked
mod documentation; // pages, examples and code agree
mod drain; // SIGTERM
mod drain_command; // `doorward drain`, POST /drain, and the signals that follow
mod drain_under_load; // real clients lose no call
mod explain_running; // `doorward explain --running`, POST /explain
mod exposure; // an upstream that others can reach
mod floods; // frames, resets and connections without end
mod foreign_tokens; // tokens of other people's libraries: every algorithm, and every shape that is none of ours
mod google; // Google ID tokens
mod grpc_go_interop; // gRPC's own interop programs on both sides
mod guide_token; // the typical service of the gRPC guides
mod h2spec; // the conformance suite of HTTP/2
mod harness; // the binary, the Python peers, the hostile peers
mod header_limits; // header lists over their limit, both directions
mod hostile_clients; // handshakes without end, floods, bad frames
mod hostile_key_servers; // hangs, drips, bombs, garbage, and keys that change every second
mod hostile_upstream; // bad frames, floods and lies from the service
mod identity_headers; // what the upstream is told, and by nobody else
mod jwks; // key sets from a URL
mod long_calls; // calls that outlive their credential
mod manifests; // deploy/: images, Kustomize, Helm
mod memory; // what one connection can make us hold
mod oidc_provider; // a real OpenID provider: grants, discovery, key rotation
mod operations; // probes, metrics, gRPC health
mod paths_and_authority; // what is decided on is what the upstream sees
mod peers; // every gRPC client with every gRPC server
mod policy_tests; // `doorward test`
mod protocol; // early answers, half-closed streams, resets, deadlines: as it is on the wire
mod rate_limits; // how often a caller may call, and a peer fail
mod recipes; // the configurations of docs/recipes, called
mod refusal_order; // 431, 405, 415, … authentication, authorization
mod refusal_reasons; // the same reason in answer, log, metric and explanation
mod reload; // files that change while Doorward runs
mod revocations; // the revocations file
mod shared_upstream; // many clients' calls on one upstream connection
mod starting; // `run` until it serves: nothing bound before everything is right
mod time_limits; // stalled peers, idle calls, idle and old connections
mod tls; // versions, and doing without
mod traces; // a span a call at a real collector, and collectors that are none
mod upstream_failures; // missing, dying, misbehaving upstreams
mod upstream_http2; // RFC 9113 towards the upstream, frame by frame: windows, answers, errors, requests
mod upstream_retries; // calls made again, and those that never are
mod upstream_silence; // an upstream that freezes, and one that is only quiet
