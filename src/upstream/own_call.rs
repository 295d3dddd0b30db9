//! A call of our own to the upstream: for its health and its reflection. Not on the way of anybody else's.

use super::http2::{Failure, Requests, Stream};
use super::request_head::RequestHead;
use crate::grpc::{Code, GRPC_STATUS};
use crate::http2::{Sink, Source};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use std::future::poll_fn;

/// One call; dropping it cancels it.
pub(super) struct OwnCall {
    stream: Stream,
    /// Once it has come.
    head: Option<HeaderMap>,
}

impl OwnCall {
    /// Begins it as soon as the upstream takes a stream.
    pub(super) async fn begin(
        requests: &Requests,
        scheme: &Scheme,
        authority: &Authority,
        path: &PathAndQuery,
    ) -> Result<OwnCall, Failure> {
        while requests.most_streams() == 0 && requests.connection().is_open() {
            requests.connection().until_driven().await;
        }
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        let head = RequestHead { scheme, authority, path, fields: &fields, identity: &[] }.encode();
        let stream = requests.open(head.block(), false).ok_or_else(Failure::no_connection)?;
        Ok(OwnCall { stream, head: None })
    }

    /// Sends one message, which may be the last. What becomes of it when it cannot be sent any more, the answer says.
    pub(super) async fn say(&mut self, mut message: Bytes, last: bool) {
        while !message.is_empty() {
            let Some(room) = poll_fn(|cx| self.stream.poll_room(cx, message.len())).await else { return };
            let part = message.split_to(room);
            let _ = self.stream.send(part, last && message.is_empty());
        }
    }

    /// The next bytes of the answer; `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.head.is_none() {
            self.head = Some(poll_fn(|cx| self.stream.poll_head(cx)).await?.into_parts().0.headers);
        }
        let data = poll_fn(|cx| self.stream.poll_data(cx)).await?;
        if let Some(data) = &data {
            self.stream.release(data.len());
        }
        Ok(data)
    }

    /// How it ended.
    pub(super) async fn code(&mut self) -> Result<Code, Failure> {
        while self.next().await?.is_some() {}
        let trailers = poll_fn(|cx| self.stream.poll_trailers(cx)).await?;
        let status = [trailers, self.head.take()].into_iter().flatten().find_map(|fields| fields.get(&GRPC_STATUS).cloned());
        Ok(status.map_or(Code::Unknown, |status| Code::from_header(status.as_bytes())))
    }
}
