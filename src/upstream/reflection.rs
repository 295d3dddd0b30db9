//! What the upstream says it has: its services and methods by gRPC server reflection
//! (<https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>), v1 or, where that is not there, v1alpha. One stream
//! of its own connection, a question at a time. For commands; no call waits for it.

use super::connect::{Connected, Connector};
use super::http2::{Failure as Lost, Requests};
use super::own_call::OwnCall;
use crate::grpc::{Code, NoDescriptors, NotProtobuf, Services, frame_field, length_delimited, split_frame};
use crate::http2::OWN_CONNECTION_WINDOW;
use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use std::time::Duration;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of all answers together: far above the descriptors of any server.
const MOST_BYTES: usize = 64 << 20;
const MOST_SERVICES: usize = 10_000;

/// Numbers in `ServerReflectionRequest` and `ServerReflectionResponse`.
mod field {
    pub(super) const FILE_CONTAINING_SYMBOL: u8 = 4;
    pub(super) const LIST_SERVICES: u8 = 7;
    pub(super) const FILES: u64 = 4;
    pub(super) const SERVICES: u64 = 6;
    pub(super) const ERROR: u64 = 7;
}

impl Connector {
    /// Asks the upstream which services and methods it has.
    ///
    /// # Errors
    /// Why it cannot be known, in words for the operator.
    pub async fn reflect(&self, scheme: &Scheme, authority: &Authority) -> Result<Services, String> {
        let asked = async {
            let Connected { requests, driver, .. } = self.connect(OWN_CONNECTION_WINDOW).await.map_err(|why| why.0.to_string())?;
            tokio::select! {
                _ = driver => Err("the connection ended".to_owned()),
                services = reflect(&requests, scheme, authority) => services,
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, asked).await;
        in_time.unwrap_or_else(|_| Err(format!("no whole answer within {} s", PATIENCE.as_secs())))
    }
}

async fn reflect(requests: &Requests, scheme: &Scheme, authority: &Authority) -> Result<Services, String> {
    for version in ["v1", "v1alpha"] {
        match services(requests, scheme, authority, version).await {
            Err(Failure::Unimplemented) => {}
            Err(Failure::Other(why)) => return Err(format!("grpc.reflection.{version}: {why}")),
            Ok(services) => return Ok(services),
        }
    }
    Err("it has no reflection service (grpc.reflection.v1 or v1alpha); --descriptors takes a file instead".to_owned())
}

enum Failure {
    Unimplemented,
    Other(String),
}

impl From<Lost> for Failure {
    fn from(error: Lost) -> Failure {
        Failure::Other(error.to_string())
    }
}

impl From<NotProtobuf> for Failure {
    fn from(NotProtobuf: NotProtobuf) -> Failure {
        Failure::Other("an answer is no protobuf message".to_owned())
    }
}

impl From<NoDescriptors> for Failure {
    fn from(why: NoDescriptors) -> Failure {
        Failure::Other(match why {
            NoDescriptors::Malformed => "an answer is no file descriptor".to_owned(),
            other => other.to_string(),
        })
    }
}

async fn services(requests: &Requests, scheme: &Scheme, authority: &Authority, version: &str) -> Result<Services, Failure> {
    let mut stream = Stream::open(requests, scheme, authority, version).await?;
    let list = stream.ask(field::LIST_SERVICES, "", field::SERVICES).await?;
    let mut services = Services::default();
    for (number, entry) in length_delimited(&list).enumerate() {
        if number == MOST_SERVICES {
            return Err(Failure::Other(format!("it lists more than {MOST_SERVICES} services")));
        }
        for name in length_delimited(entry?.1) {
            let (1, name) = name? else { continue };
            let name = std::str::from_utf8(name).map_err(|_| NotProtobuf)?;
            if services.methods(name).is_some() {
                continue; // it came with another of its file
            }
            let files = stream.ask(field::FILE_CONTAINING_SYMBOL, name, field::FILES).await?;
            for file in length_delimited(&files) {
                services.add_file(file?.1)?;
            }
            if services.methods(name).is_none() {
                return Err(Failure::Other("a service that it lists is not in the file that it gives for it".to_owned()));
            }
        }
    }
    Ok(services)
}

/// One call of `ServerReflectionInfo`.
struct Stream {
    call: OwnCall,
    buffer: BytesMut,
    received: usize,
}

impl Stream {
    async fn open(requests: &Requests, scheme: &Scheme, authority: &Authority, version: &str) -> Result<Stream, Failure> {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let path = PathAndQuery::try_from(path).expect("a service's name makes a path");
        let call = OwnCall::begin(requests, scheme, authority, &path).await?;
        Ok(Stream { call, buffer: BytesMut::new(), received: 0 })
    }

    /// Asks one question; the content of the answer's field `expected`.
    async fn ask(&mut self, question: u8, text: &str, expected: u64) -> Result<Bytes, Failure> {
        // When it cannot be asked any more, what it has sent says why.
        self.call.say(frame_field(question, text), false).await;
        let answer = self.message().await?;
        for field in length_delimited(&answer) {
            match field? {
                (number, content) if number == expected => return Ok(answer.slice_ref(content)),
                (field::ERROR, _) => return Err(Failure::Other("it answers with an error".to_owned())),
                _ => {}
            }
        }
        // A list of nothing has no bytes, and an empty message may be left out.
        Ok(Bytes::new())
    }

    /// The next whole message.
    async fn message(&mut self) -> Result<Bytes, Failure> {
        loop {
            let whole = split_frame(&self.buffer, MOST_BYTES);
            let whole = whole.map_err(|_| Failure::Other("an answer is compressed or too large".to_owned()))?;
            if let Some((message, rest)) = whole {
                let (length, end) = (message.len(), self.buffer.len() - rest.len());
                return Ok(self.buffer.split_to(end).split_off(end - length).freeze());
            }
            let Some(data) = self.call.next().await? else { break };
            self.received += data.len();
            if self.received > MOST_BYTES {
                return Err(Failure::Other("its answers are larger than 64 MiB".to_owned()));
            }
            self.buffer.extend_from_slice(&data);
        }
        Err(match self.call.code().await? {
            Code::Unimplemented => Failure::Unimplemented,
            code => Failure::Other(format!("it ended with {}", code.name())),
        })
    }
}
