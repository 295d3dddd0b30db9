//! Before anything is measured: does the peer refuse what it should, and does a good call really come back with its
//! message and `grpc-status: 0`? h2load itself would count a refusal with HTTP 200 as a success.

use crate::material::{BODY, Material};
use crate::peer::{Kind, Peer};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// The method that is called and allowed.
pub const METHOD: &str = "/demo.v1.Echo/Unary";

/// Ends the program when the peer does not do what its name says.
pub fn validate(peer: &Peer, material: &Material) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // One connection a call: some peers close theirs after a refusal.
        let ask = async |method, token| call(&mut connect(peer, material).await, method, token).await;
        assert_eq!(ask(METHOD, Some(&material.token)).await, ("0".to_owned(), BODY.to_vec()), "{:?}: a good call", peer.kind);
        if peer.kind.checks() {
            for (why, token) in &material.bad_tokens {
                assert_eq!(ask(METHOD, Some(token)).await.0, "16", "{:?}: a token {why}", peer.kind);
            }
            assert_eq!(ask(METHOD, None).await.0, "16", "{:?}: no token", peer.kind);
            assert_eq!(ask("/demo.v1.Echo/Other", Some(&material.token)).await.0, "7", "{:?}: another method", peer.kind);
        }
    });
}

async fn connect(peer: &Peer, material: &Material) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(("127.0.0.1", peer.port)).await.expect("a connection");
    if peer.kind == Kind::Direct {
        return handshake(stream).await;
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(material.path("tls.crt")).expect("our certificate")).expect("a root");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    handshake(TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")).await
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

/// grpc-status and body of one call.
async fn call(client: &mut SendRequest<Bytes>, method: &str, token: Option<&str>) -> (String, Vec<u8>) {
    let uri = format!("https://localhost{method}");
    let mut request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut ready = client.clone().ready().await.expect("a stream");
    let (response, mut stream) = ready.send_request(request.body(()).expect("a request"), false).expect("a stream");
    // A refusal may have closed the stream already.
    let _ = stream.send_data(Bytes::from_static(BODY), true);
    let response = response.await.expect("an answer");
    let of_headers = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    let of_trailers = body.trailers().await.ok().flatten().and_then(|trailers| trailers.get("grpc-status").cloned());
    let status = of_trailers.or(of_headers).and_then(|status| status.to_str().ok().map(str::to_owned)).unwrap_or_default();
    (status, bytes)
}
