//! TLS in front: versions, and the one named way to do without.

use crate::harness::*;
use serde_json::json;
use tokio_rustls::rustls::version::{TLS12, TLS13};

const OPEN: &str = "authentication: { mode: disabled }\n";

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let upstream = RawUpstream::echo();
    let doorward = Site::new().start(&configuration(&upstream.url(), OPEN));
    for version in [&TLS12, &TLS13] {
        let stream = wire::tls_of(&doorward, &[b"h2"], &[version]).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn minimum_version_refuses_what_is_older() {
    let upstream = RawUpstream::echo();
    let rest = format!(
        "{OPEN}listen: {{ address: 127.0.0.1:0, tls: {{ certificate: tls.crt, private_key: tls.key, minimum_version: \"1.3\" }} }}\n"
    );
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    assert!(wire::tls_of(&doorward, &[b"h2"], &[&TLS12]).await.is_err());
    assert!(wire::tls_of(&doorward, &[b"h2"], &[&TLS13]).await.is_ok());
}

#[test]
fn insecure_plaintext_serves_h2c() {
    let upstream = PythonUpstream::start();
    let rest = format!("{OPEN}listen: {{ address: 127.0.0.1:0, insecure_plaintext: true }}\n");
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let order = json!({"target": doorward.traffic.to_string(), "plaintext": true});
    assert_eq!(doorward.calls_as(&order, &[call("/demo.v1.Echo/Unary")])[0].code(), 0);
    assert!(doorward.stderr().contains("insecure_plaintext"), "warned about: {}", doorward.stderr());
}
