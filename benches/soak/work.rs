//! The clients of the soak: what each of the things they do is, how often it is done, and how it has to end.

use crate::rig::client::{bearer, connect, tls, uri};
use crate::rig::folder::Folder;
use crate::rig::upstream::{ask_for_stream, message};
use crate::rig::{BODY, METHOD};
use crate::token::{OTHER_RSA, RSA, claims, now};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// One of the things that clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Unary,
    /// With a token that nobody has seen yet.
    NewToken,
    /// 64 messages of 1 KiB.
    Stream,
    /// 256 KiB there and back.
    Upload,
    /// A download of 64 MiB that is given up at its beginning.
    Cancel,
    ForgedToken,
    NoToken,
    /// A connection for one call.
    NewConnection,
    /// The same, but the socket is closed in the middle of a download.
    Vanish,
}

/// In turn.
#[rustfmt::skip]
const TURNS: [Deed; 24] = {
    use Deed::{Cancel, ForgedToken, NewConnection, NewToken, NoToken, Stream, Unary, Upload, Vanish};
    [
        Unary, Stream, Unary, Cancel, Unary, ForgedToken, Unary, NewConnection, Unary, NewToken, Unary, Upload,
        Unary, NoToken, Unary, Cancel, Unary, ForgedToken, Unary, Vanish, Unary, Stream, Unary, Unary,
    ]
};

/// Connections that are kept for a while.
const KEPT: usize = 4;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How often each thing was done, and how often it did not end as it should.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub ended: u64,
    pub wrong: u64,
}

pub struct Crowd {
    port: u16,
    tls: TlsConnector,
    known: HeaderValue,
    kept: [RefCell<Option<Kept>>; KEPT],
    pub tally: RefCell<BTreeMap<Deed, Tally>>,
    pub under_way: Cell<usize>,
}

/// A connection, and since when it is there.
type Kept = (SendRequest<Bytes>, Instant);

/// A call's grpc-status.
type Ended = Result<String, h2::Error>;

impl Crowd {
    pub fn new(port: u16, folder: &Folder) -> Crowd {
        let known = token(0);
        Crowd { port, tls: tls(folder), known, kept: Default::default(), tally: RefCell::default(), under_way: Cell::new(0) }
    }

    /// The thing whose turn it is, from its beginning to its end.
    pub async fn one(self: Rc<Crowd>, number: u64) {
        let deed = TURNS.get(number as usize % TURNS.len()).copied().unwrap_or(Deed::Unary);
        self.under_way.set(self.under_way.get() + 1);
        let ended = self.do_it(deed, number).await;
        self.under_way.set(self.under_way.get() - 1);
        let expected = if matches!(deed, Deed::ForgedToken | Deed::NoToken) { "16" } else { "0" };
        let mut tally = self.tally.borrow_mut();
        let tally = tally.entry(deed).or_default();
        tally.ended += 1;
        if ended.as_deref().ok() != Some(expected) {
            tally.wrong += 1;
            eprintln!("{deed:?}: {ended:?}, expected {expected}");
        }
    }

    async fn do_it(&self, deed: Deed, number: u64) -> Ended {
        let kept = self.kept(number as usize % KEPT).await;
        let with = |token: HeaderValue, body: Vec<u8>| whole(&kept, Some(token), body);
        match deed {
            Deed::Unary => with(self.known.clone(), BODY.to_vec()).await,
            Deed::NewToken => with(token(number), BODY.to_vec()).await,
            Deed::Stream => with(self.known.clone(), ask_for_stream(64, 1_024)).await,
            Deed::Upload => with(self.known.clone(), message(&vec![b'x'; 1 << 18])).await,
            Deed::ForgedToken => with(forged(number), BODY.to_vec()).await,
            Deed::NoToken => whole(&kept, None, BODY.to_vec()).await,
            Deed::Cancel => beginning(&kept, self.known.clone()).await.map(|_| "0".to_owned()),
            Deed::NewConnection => whole(&connect(self.port, &self.tls).await, Some(self.known.clone()), BODY.to_vec()).await,
            Deed::Vanish => {
                // The connection ends with the last handle to it, and what is under way with it.
                let client = connect(self.port, &self.tls).await;
                beginning(&client, self.known.clone()).await.map(|_| "0".to_owned())
            }
        }
    }

    /// One of the connections that are kept, made anew when its time is over.
    async fn kept(&self, index: usize) -> SendRequest<Bytes> {
        let Some(place) = self.kept.get(index) else { unreachable!("one of {KEPT}") };
        let kept = place.borrow().clone();
        match kept {
            Some((client, since)) if since.elapsed() < KEPT_FOR => client,
            _ => {
                let client = connect(self.port, &self.tls).await;
                *place.borrow_mut() = Some((client.clone(), Instant::now()));
                client
            }
        }
    }
}

fn token(number: u64) -> HeaderValue {
    bearer(&RSA.token(&claims(json!({"exp": now() + 86_400, "jti": format!("soak-{number}"), "sub": format!("user-{number}")})))).1
}

fn forged(number: u64) -> HeaderValue {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": RSA.kid}).to_string();
    bearer(&OTHER_RSA.sign(&header, &claims(json!({"jti": format!("forged-{number}")})).to_string())).1
}

/// A call to its end: its grpc-status.
async fn whole(client: &SendRequest<Bytes>, token: Option<HeaderValue>, body: Vec<u8>) -> Ended {
    let (response, mut sending) = begin(client, token).await?;
    send(&mut sending, body.into()).await?;
    let response = response.await?;
    let of_headers = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    while let Some(chunk) = body.data().await {
        body.flow_control().release_capacity(chunk?.len())?;
    }
    let of_trailers = body.trailers().await?.and_then(|trailers| trailers.get("grpc-status").cloned());
    Ok(of_trailers.or(of_headers).and_then(|status| status.to_str().ok().map(str::to_owned)).unwrap_or_default())
}

/// A long download until its first bytes are here; it ends when what is returned is dropped.
async fn beginning(client: &SendRequest<Bytes>, token: HeaderValue) -> Result<RecvStream, h2::Error> {
    let (response, mut sending) = begin(client, Some(token)).await?;
    send(&mut sending, ask_for_stream(4_096, 16_384).into()).await?;
    let mut body = response.await?.into_body();
    body.data().await.transpose()?;
    Ok(body)
}

async fn begin(client: &SendRequest<Bytes>, token: Option<HeaderValue>) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let mut request = Request::post(uri(METHOD)).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    client.clone().ready().await?.send_request(request.body(()).expect("a request"), false)
}

/// All of it, as fast as it is taken. A refusal may have closed the stream already: then the answer says so.
async fn send(stream: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else { return Ok(()) };
        let piece = body.split_to(room.min(body.len()));
        if stream.send_data(piece, body.is_empty()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
