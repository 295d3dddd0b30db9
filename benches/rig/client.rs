//! A client that looks at every answer: a load generator that counts HTTP 200 would take a refusal for a success.

use super::folder::Folder;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Request, Uri};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// What a call presents.
pub type Credential = (HeaderName, HeaderValue);

/// `authorization: Bearer` and the token, as clients should send it: HPACK never indexes it.
pub fn bearer(token: &str) -> Credential {
    secret(http::header::AUTHORIZATION, &format!("Bearer {token}"))
}

/// A field that HPACK never indexes.
pub fn secret(name: HeaderName, value: &str) -> Credential {
    let mut value = HeaderValue::from_str(value).expect("printable ASCII");
    value.set_sensitive(true);
    (name, value)
}

/// TLS 1.3 with AES-128-GCM, as all load of the benchmarks has it, towards whoever has the folder's certificate.
pub fn tls(folder: &Folder) -> TlsConnector {
    TlsConnector::from(Arc::new(tls_config(folder)))
}

/// The same for a client that is not of tokio. One key exchange, so that it costs everybody the same; no session is resumed.
pub fn tls_config(folder: &Folder) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path("tls.crt")).expect("our certificate")).expect("a root");
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// With TLS.
pub async fn connect(port: u16, tls: &TlsConnector) -> SendRequest<Bytes> {
    let name = ServerName::try_from("localhost").expect("a name");
    handshake(tls.connect(name, tcp(port).await).await.expect("TLS")).await
}

/// Without TLS.
pub async fn connect_plain(port: u16) -> SendRequest<Bytes> {
    handshake(tcp(port).await).await
}

async fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream
}

async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

/// The address of a method.
pub fn uri(method: &str) -> Uri {
    Uri::try_from(format!("https://localhost{method}")).expect("a path")
}

/// grpc-status and body of one call; with no bytes at all for a message the stream ends with its headers.
pub async fn call(
    client: &SendRequest<Bytes>,
    uri: &Uri,
    credential: Option<&Credential>,
    message: &'static [u8],
) -> Result<(String, Vec<u8>), h2::Error> {
    let mut request = Request::post(uri.clone()).header("content-type", "application/grpc").header("te", "trailers");
    if let Some((name, value)) = credential {
        request = request.header(name, value);
    }
    let mut ready = client.clone().ready().await?;
    let (response, mut stream) = ready.send_request(request.body(()).expect("a request"), message.is_empty())?;
    if !message.is_empty() {
        // A refusal may have closed the stream already.
        let _ = stream.send_data(Bytes::from_static(message), true);
    }
    answer(response).await
}

async fn answer(response: ResponseFuture) -> Result<(String, Vec<u8>), h2::Error> {
    let response = response.await?;
    let of_headers = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    let of_trailers = body.trailers().await?.and_then(|trailers| trailers.get("grpc-status").cloned());
    let status = of_trailers.or(of_headers).and_then(|status| status.to_str().ok().map(str::to_owned)).unwrap_or_default();
    Ok((status, bytes))
}
