//! A client on the `h2` crate: says what grpcio would never say, and sees the answer as it is on the wire.

use super::{Doorward, PATIENCE, Site};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A TLS connection to the traffic port that offers `protocols`.
pub async fn tls(doorward: &Doorward, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    tls_of(doorward, protocols, rustls::DEFAULT_VERSIONS).await
}

/// The same with only these versions.
pub async fn tls_of(
    doorward: &Doorward,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect(doorward, protocols, versions, None).await
}

/// A connection for HTTP/2 that shows the certificate `<name>.crt` of the site.
pub async fn tls_as(doorward: &Doorward, site: &Site, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let certificate = CertificateDer::from_pem_file(site.path(&format!("{name}.crt"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(site.path(&format!("{name}.key"))).unwrap();
    connect(doorward, &[b"h2"], rustls::DEFAULT_VERSIONS, Some((certificate, key))).await
}

async fn connect(
    doorward: &Doorward,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&doorward.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(doorward.traffic).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

pub struct Wire {
    pub send: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl Wire {
    pub async fn connect(doorward: &Doorward) -> Wire {
        Wire::connect_with(doorward, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(doorward: &Doorward, builder: &h2::client::Builder) -> Wire {
        let stream = tls(doorward, &[b"h2"]).await.unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        Wire { send, connection: tokio::spawn(connection) }
    }

    /// A whole unary call with one empty message.
    pub async fn call(&mut self, request: Request<()>) -> WireAnswer {
        self.call_with(request, message(b""), None).await
    }

    /// A whole call: this body, then these trailers.
    pub async fn call_with(&mut self, request: Request<()>, body: Bytes, trailers: Option<HeaderMap>) -> WireAnswer {
        match self.open(request).await {
            Ok((answer, mut stream)) => {
                // A refusal may have reset the stream already: what counts is the answer.
                let _ = stream.send_data(body, trailers.is_none());
                if let Some(trailers) = trailers {
                    let _ = stream.send_trailers(trailers);
                }
                answer.await
            }
            Err(error) => WireAnswer::failed(&error),
        }
    }

    /// Opens a stream and leaves its request open; the answer is a future of its own.
    pub async fn open(
        &mut self,
        request: Request<()>,
    ) -> Result<(impl Future<Output = WireAnswer> + Send + 'static, SendStream<Bytes>), h2::Error> {
        let mut ready = self.send.clone().ready().await?;
        let (response, stream) = ready.send_request(request, false)?;
        Ok((within(WireAnswer::read(response)), stream))
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer in time")
}

/// A gRPC request for `path` with these fields after the usual ones; a name given twice is sent twice.
pub fn request(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(Method::POST).uri(format!("https://localhost{path}")).body(()).unwrap();
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request
}

/// One gRPC message: flag, length, bytes.
pub fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), bytes].concat().into()
}

/// An answer as it came, or how its stream ended.
#[derive(Debug)]
pub struct WireAnswer {
    /// HTTP status, 0 when there was no answer.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The stream or its connection ended with this.
    pub error: Option<Reason>,
}

impl WireAnswer {
    /// Waits for all of an answer, however long it takes.
    pub async fn read(response: h2::client::ResponseFuture) -> WireAnswer {
        match response.await {
            Ok(response) => WireAnswer::rest(response).await,
            Err(error) => WireAnswer::failed(&error),
        }
    }

    /// The same once its head has come.
    pub async fn rest(response: Response<RecvStream>) -> WireAnswer {
        let (parts, mut body): (_, RecvStream) = response.into_parts();
        let mut answer =
            WireAnswer { status: parts.status.as_u16(), headers: parts.headers, body: Vec::new(), trailers: None, error: None };
        while let Some(chunk) = body.data().await {
            match chunk {
                Ok(chunk) => {
                    let _ = body.flow_control().release_capacity(chunk.len());
                    answer.body.extend_from_slice(&chunk);
                }
                Err(error) => return WireAnswer { error: Some(reason(&error)), ..answer },
            }
        }
        match body.trailers().await {
            Ok(trailers) => answer.trailers = trailers,
            Err(error) => answer.error = Some(reason(&error)),
        }
        answer
    }

    fn failed(error: &h2::Error) -> WireAnswer {
        WireAnswer { status: 0, headers: HeaderMap::new(), body: Vec::new(), trailers: None, error: Some(reason(error)) }
    }

    /// A field of the trailers, or of a trailers-only answer.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref().and_then(|trailers| trailers.get(name)).or_else(|| self.headers.get(name))?.to_str().ok()
    }

    pub fn grpc_status(&self) -> Option<u16> {
        self.field("grpc-status")?.parse().ok()
    }

    /// Whether this is a gRPC answer made of headers only, as every refusal is.
    pub fn is_trailers_only(&self) -> bool {
        self.status == 200
            && self.trailers.is_none()
            && self.body.is_empty()
            && self.headers.contains_key("grpc-status")
            && self.headers.get("content-type").is_some_and(|value| value == "application/grpc")
    }

    /// grpc-status and ErrorInfo reason, for tables. `(0, "")` is success; 99 stands for no grpc-status.
    pub fn refusal(&self) -> (u16, String) {
        (self.grpc_status().unwrap_or(99), self.error_info().map(|info| info.reason).unwrap_or_default())
    }

    pub fn error_info(&self) -> Option<ErrorInfo> {
        let any_padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let status = GeneralPurpose::new(&alphabet::STANDARD, any_padding).decode(self.field("grpc-status-details-bin")?).ok()?;
        let any = fields(&status).into_iter().find(|(number, _)| *number == 3)?.1;
        let any = fields(&any);
        assert_eq!(any[0], (1, b"type.googleapis.com/google.rpc.ErrorInfo".to_vec()));
        let mut info = ErrorInfo::default();
        for (number, value) in fields(&any[1].1) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            match number {
                1 => info.reason = text(&value),
                2 => info.domain = text(&value),
                _ => {
                    let entry = fields(&value);
                    info.metadata.insert(text(&entry[0].1), text(&entry[1].1));
                }
            }
        }
        Some(info)
    }
}

#[derive(Debug, Default)]
pub struct ErrorInfo {
    pub reason: String,
    pub domain: String,
    pub metadata: BTreeMap<String, String>,
}

/// Length-delimited fields of a protobuf message; numbers are skipped.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = varint(&mut bytes);
        if tag & 7 == 2 {
            let (field, rest) = bytes.split_at(usize::try_from(value).unwrap());
            found.push((tag >> 3, field.to_vec()));
            bytes = rest;
        }
    }
    found
}

fn reason(error: &h2::Error) -> Reason {
    error.reason().unwrap_or(Reason::NO_ERROR)
}
