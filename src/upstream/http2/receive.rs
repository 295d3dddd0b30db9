//! What a frame from the upstream does (RFC 9113 §5 and §6). A breach on a stream ends that stream; any other, the connection.

use super::connection::{Connection, PING};
use super::failure::Failure;
use super::frame::{Head, STREAM, content, flag, kind, setting};
use super::stream::{Next, StreamState};
use crate::http2::hpack::HeaderList;
use h2::Reason;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use std::rc::Rc;

/// What is the end of a connection.
pub(super) type Breach = Reason;

impl Connection {
    /// Takes a frame that is no part of a header block ([`Connection::receive_headers`]).
    pub(super) fn receive(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if !self.settings_seen.get() && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match head.kind {
            kind::DATA => self.receive_data(head, payload),
            kind::RST_STREAM => self.receive_reset(head, payload),
            kind::SETTINGS => self.receive_settings(head, payload),
            kind::PING => self.receive_ping(head, payload),
            kind::GOAWAY => self.receive_goaway(head, payload),
            kind::WINDOW_UPDATE => self.receive_window(head, payload),
            kind::PRIORITY if payload.len() != 5 => Err(Reason::FRAME_SIZE_ERROR),
            kind::PRIORITY if head.stream == 0 => Err(Reason::PROTOCOL_ERROR),
            kind::PUSH_PROMISE | kind::CONTINUATION => Err(Reason::PROTOCOL_ERROR),
            _ => Ok(()),
        }
    }

    /// The stream of a frame; `None` when it is over already. One that we have not opened is a breach.
    fn stream(&self, head: Head) -> Result<Option<Rc<StreamState>>, Breach> {
        if head.stream.is_multiple_of(2) || head.stream >= self.next_stream.get() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        Ok(self.streams.borrow().get(&head.stream).cloned())
    }

    /// Ends a stream whose frames break the rules: what had come whole stays good.
    fn break_off(&self, stream: &StreamState, reason: Reason, failure: Failure) {
        self.streams.borrow_mut().remove(&stream.id());
        self.reset(stream.id(), reason);
        stream.fail(failure);
    }

    fn breach(&self, stream: &StreamState, reason: Reason) {
        self.break_off(stream, reason, Failure::breach(reason));
    }

    fn receive_data(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        self.message.set(true);
        let stream = self.stream(head)?;
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.receive_window.borrow_mut().take(bytes)?;
        let data = content(head, payload)?;
        let Some(stream) = stream else {
            self.give_back(bytes);
            return Ok(());
        };
        match stream.data(data, bytes, head.has(flag::END_STREAM)) {
            Ok(padding) => {
                self.give_back(padding.all);
                if let Some(increment) = padding.update {
                    self.window_update(head.stream, increment);
                }
            }
            Err(reason) => {
                self.give_back(bytes);
                self.breach(&stream, reason);
            }
        }
        Ok(())
    }

    /// Takes a whole header block; `head` is that of its HEADERS.
    pub(super) fn receive_headers(&self, head: Head, block: &[u8]) -> Result<(), Breach> {
        if !self.settings_seen.get() {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.message.set(true);
        let stream = self.stream(head)?;
        let list = self.decoder.borrow_mut().decode(block, self.header_bytes).map_err(|_| Reason::COMPRESSION_ERROR)?;
        let Some(stream) = stream else { return Ok(()) };
        if list.oversized {
            self.break_off(&stream, Reason::PROTOCOL_ERROR, Failure::oversized());
        } else if let Err(reason) = stream.headers(list, head.has(flag::END_STREAM)) {
            self.breach(&stream, reason);
        }
        Ok(())
    }

    /// A header block that nobody reads to its end: whose fault it was that the connection ends.
    pub(super) fn receive_too_large(&self, head: Head) {
        if let Some(stream) = self.streams.borrow().get(&head.stream) {
            stream.fail(Failure::oversized());
        }
    }

    fn receive_reset(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let reason = Reason::from(u32::from_be_bytes(exactly(payload)?));
        if let Some(stream) = self.stream(head)? {
            self.streams.borrow_mut().remove(&head.stream);
            stream.fail(Failure::reset_by_upstream(reason));
        }
        Ok(())
    }

    fn receive_settings(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || (head.has(flag::ACK) && !payload.is_empty()) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        let mut peer = self.peer.get();
        for [n0, n1, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*n0, *n1]) {
                setting::ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => return Err(Reason::PROTOCOL_ERROR),
                setting::MAX_CONCURRENT_STREAMS => peer.streams = value,
                setting::INITIAL_WINDOW_SIZE if value > STREAM => return Err(Reason::FLOW_CONTROL_ERROR),
                setting::INITIAL_WINDOW_SIZE => peer.initial_window = i64::from(value),
                _ => {}
            }
        }
        let by = peer.initial_window - self.peer.replace(peer).initial_window;
        if by != 0 {
            self.change_windows(by)?;
        }
        self.settings_seen.set(true);
        self.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    /// Changes what every stream may send.
    fn change_windows(&self, by: i64) -> Result<(), Breach> {
        /// About as long as a stream's change takes, as many bytes of a flood are looked at.
        const A_STREAM: usize = 8;
        let streams = self.streams.borrow();
        self.toil.set(self.toil.get() + A_STREAM * streams.len());
        streams.values().try_for_each(|stream| stream.window(by))
    }

    fn receive_ping(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let payload: [u8; 8] = exactly(payload)?;
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if !head.has(flag::ACK) {
            self.frame(kind::PING, flag::ACK, 0, &payload);
            return Ok(());
        }
        if payload == *PING && self.asked.take() {
            self.answered.notify_one();
        }
        Ok(())
    }

    /// Streams above the last that it has seen are lost, and it has surely not seen them (§6.8).
    fn receive_goaway(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let (last, rest) = payload.split_first_chunk().ok_or(Reason::FRAME_SIZE_ERROR)?;
        let (reason, _) = rest.split_first_chunk().ok_or(Reason::FRAME_SIZE_ERROR)?;
        if head.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let (last, reason) = (u32::from_be_bytes(*last) & STREAM, Reason::from(u32::from_be_bytes(*reason)));
        self.going_away.set(true);
        let why: Rc<str> = format!("it sent GOAWAY: {reason}").into();
        self.streams.borrow_mut().retain(|number, stream| {
            if *number > last {
                stream.fail(Failure::connection(why.clone(), true));
            }
            *number <= last
        });
        if reason != Reason::NO_ERROR {
            self.complaint.replace(Some(why));
        }
        Ok(())
    }

    fn receive_window(&self, head: Head, payload: &[u8]) -> Result<(), Breach> {
        let increment = u32::from_be_bytes(exactly(payload)?) & STREAM;
        if head.stream == 0 {
            let mut window = self.send_window.get();
            window.change(i64::from(increment))?;
            self.send_window.set(window);
            self.moved.set(true);
            return if increment == 0 { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) };
        }
        let Some(stream) = self.stream(head)? else { return Ok(()) };
        let changed = if increment == 0 { Err(Reason::PROTOCOL_ERROR) } else { stream.window(i64::from(increment)) };
        if let Err(reason) = changed {
            self.breach(&stream, reason);
        }
        Ok(())
    }
}

/// A payload of one length only.
fn exactly<const N: usize>(payload: &[u8]) -> Result<[u8; N], Breach> {
    payload.try_into().map_err(|_| Reason::FRAME_SIZE_ERROR)
}

/// What of a DATA frame is done with at once.
struct Padding {
    all: u32,
    /// What the stream is to be told.
    update: Option<u32>,
}

impl StreamState {
    /// DATA of so many `bytes` with padding has come.
    fn data(&self, data: &[u8], bytes: u32, last: bool) -> Result<Padding, Reason> {
        let inner = &mut *self.inner.borrow_mut();
        match inner.next {
            Next::Head => return Err(Reason::PROTOCOL_ERROR),
            Next::Data => {}
            Next::Nothing => return Err(Reason::STREAM_CLOSED),
        }
        inner.receive_window.take(bytes)?;
        if let Some(promised) = &mut inner.promised {
            *promised = promised.checked_sub(data.len() as u64).ok_or(Reason::PROTOCOL_ERROR)?;
            if last && *promised > 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
        }
        let padding = bytes - u32::try_from(data.len()).unwrap_or(u32::MAX);
        inner.in_flight += bytes - padding;
        if inner.received.is_empty() {
            inner.received.reserve_exact(data.len()); // mostly all there is
        }
        inner.received.extend_from_slice(data);
        let update = inner.receive_window.give_back(padding).filter(|_| !last);
        if last {
            inner.next = Next::Nothing;
        }
        inner.wake();
        Ok(Padding { all: padding, update })
    }

    /// A header list has come: the head of the answer, one that goes before it (1xx), or trailers.
    fn headers(&self, list: HeaderList, last: bool) -> Result<(), Reason> {
        let HeaderList { status, fields, malformed, .. } = list;
        if malformed {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let inner = &mut *self.inner.borrow_mut();
        match (inner.next, status) {
            (Next::Head, Some(status)) if status.is_informational() => {
                return if last || status == StatusCode::SWITCHING_PROTOCOLS { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) };
            }
            (Next::Head, Some(status)) => {
                inner.promised = promised(&fields, status)?;
                if last && inner.promised.is_some_and(|promised| promised > 0) {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                let mut head = Response::new(());
                (*head.status_mut(), *head.headers_mut()) = (status, fields);
                inner.head = Some(head);
            }
            (Next::Data, None) if last && inner.promised.is_none_or(|promised| promised == 0) => inner.trailers = Some(fields),
            (Next::Nothing, _) => return Err(Reason::STREAM_CLOSED),
            _ => return Err(Reason::PROTOCOL_ERROR),
        }
        inner.next = if last { Next::Nothing } else { Next::Data };
        inner.wake();
        Ok(())
    }

    /// The upstream changes what it takes.
    fn window(&self, by: i64) -> Result<(), Reason> {
        let mut inner = self.inner.borrow_mut();
        inner.send_window.change(by)?;
        inner.wake();
        Ok(())
    }
}

/// The bytes that an answer says it has (RFC 9110 §8.6), if they are to come.
fn promised(fields: &HeaderMap, status: StatusCode) -> Result<Option<u64>, Reason> {
    match fields.get(CONTENT_LENGTH) {
        None => Ok(None),
        Some(_) if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => Ok(None),
        Some(length) => {
            let digits = length.to_str().ok().filter(|length| !length.starts_with('+'));
            digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or(Reason::PROTOCOL_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::Lost;
    use super::super::testing::{OK, Once, STREAM_WINDOW, TRAILERS, WINDOW, frame, hears, up, written};
    use super::*;
    use crate::http2::Source;
    use std::task::{Context, Poll, Waker};

    const END: u8 = flag::END_HEADERS | flag::END_STREAM;

    fn head(stream: u32) -> Vec<u8> {
        frame(kind::HEADERS, flag::END_HEADERS, stream, OK)
    }

    fn reset(stream: u32, reason: Reason) -> Vec<u8> {
        frame(kind::RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes())
    }

    fn goaway(last: u32, reason: Reason) -> Vec<u8> {
        frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), u32::from(reason).to_be_bytes()].concat())
    }

    #[test]
    fn an_answer_that_has_ended_stays_whole_for_who_reads_it_late() {
        for after in [reset(1, Reason::NO_ERROR), reset(1, Reason::CANCEL), goaway(0, Reason::INTERNAL_ERROR)] {
            let (connection, requests) = up();
            let mut stream = requests.open(OK, false).unwrap();
            let answer = [head(1), frame(kind::DATA, 0, 1, b"data"), frame(kind::HEADERS, END, 1, TRAILERS)].concat();
            hears(&connection, &[answer, after].concat()).unwrap();
            connection.end("lost".into());
            assert_eq!(stream.head().unwrap().unwrap().status(), 200);
            assert_eq!(stream.data().unwrap().unwrap(), "data");
            assert!(stream.data().unwrap().unwrap().is_empty() && !stream.is_over());
            let Poll::Ready(trailers) = stream.poll_trailers(&mut Context::from_waker(Waker::noop())) else { unreachable!() };
            assert_eq!(&trailers.unwrap().unwrap()["a"], "b");
            assert!(stream.is_over());
        }
    }

    #[test]
    fn what_came_before_the_stream_was_lost_is_given_before_the_loss_is_told() {
        for lost in [reset(1, Reason::CANCEL), goaway(0, Reason::NO_ERROR), frame(kind::HEADERS, flag::END_HEADERS, 1, TRAILERS)] {
            let (connection, requests) = up();
            let mut stream = requests.open(OK, true).unwrap();
            hears(&connection, &[head(1), frame(kind::DATA, 0, 1, b"data"), lost].concat()).unwrap();
            assert!(stream.head().unwrap().is_ok());
            assert_eq!(stream.data().unwrap().unwrap(), "data");
            assert!(stream.data().unwrap().is_err());
        }
    }

    #[test]
    fn unseen_is_what_the_upstream_disowns_and_nothing_else() {
        for (says, unseen) in [
            (reset(3, Reason::REFUSED_STREAM), true),
            (reset(3, Reason::CANCEL), false),
            (goaway(1, Reason::NO_ERROR), true),
            (goaway(1, Reason::INTERNAL_ERROR), true),
            (frame(kind::DATA, 0, 3, b"before its head"), false),
        ] {
            let (connection, requests) = up();
            let (_first, mut stream) = (requests.open(OK, true), requests.open(OK, true).unwrap());
            written(&connection);
            hears(&connection, &says).unwrap();
            assert_eq!(stream.head().unwrap().unwrap_err().unseen, unseen, "{says:?}");
        }
        let (connection, requests) = up();
        let mut stream = requests.open(OK, true).unwrap();
        hears(&connection, &goaway(1, Reason::NO_ERROR)).unwrap();
        assert!(stream.head().is_none() && requests.open(OK, true).is_none(), "it goes on, and none after it");
    }

    #[test]
    fn a_lost_connection_has_not_seen_the_calls_of_which_no_byte_was_written() {
        for (more, unseen) in [(0, true), (1, false)] {
            let (connection, requests) = up();
            let _first = requests.open(OK, true).unwrap();
            written(&connection);
            let mut stream = requests.open(OK, true).unwrap();
            connection.written.set(connection.written.get() + more);
            connection.end("lost".into());
            assert_eq!(stream.head().unwrap().unwrap_err().unseen, unseen);
        }
    }

    /// The connection's window that was given back.
    fn given_back(connection: &Connection) -> u32 {
        let updates = written(connection).into_iter().filter(|(head, _)| head.kind == kind::WINDOW_UPDATE && head.stream == 0);
        updates.map(|(_, increment)| u32::from_be_bytes(increment.try_into().unwrap())).sum()
    }

    #[test]
    fn what_nobody_reads_of_a_dropped_stream_is_given_back_to_the_others() {
        let (connection, requests) = up();
        let mut streams: Vec<_> = (0..3).map(|_| requests.open(OK, true)).collect();
        let fill = |id: u32, bytes: u32| -> Vec<u8> {
            let frames = (0..bytes / 10_000).map(|_| frame(kind::DATA, 0, id, &[0; 10_000]));
            head(id).into_iter().chain(frames.flatten()).collect()
        };
        hears(&connection, &[fill(1, STREAM_WINDOW), fill(3, STREAM_WINDOW), fill(5, WINDOW - 2 * STREAM_WINDOW)].concat()).unwrap();
        assert_eq!(given_back(&connection), 0);
        streams.remove(0);
        assert_eq!(given_back(&connection), STREAM_WINDOW);
        // What still comes for it is nobody's, and given back as soon as that is worth while.
        hears(&connection, &frame(kind::DATA, 0, 1, &[0; 16_000])).unwrap();
        assert_eq!(given_back(&connection), 16_000);
    }

    #[test]
    fn no_more_is_taken_than_the_windows_allow() {
        let (connection, requests) = up();
        let mut stream = requests.open(OK, true).unwrap();
        let full = frame(kind::DATA, 0, 1, &[0; 10_000]).repeat(STREAM_WINDOW as usize / 10_000);
        hears(&connection, &[head(1), full, frame(kind::DATA, 0, 1, &[0])].concat()).unwrap();
        assert_eq!(stream.data().unwrap().unwrap().len(), STREAM_WINDOW as usize);
        assert!(matches!(stream.data().unwrap().unwrap_err().lost, Lost::Reset(Reason::FLOW_CONTROL_ERROR)));
        let left = WINDOW - STREAM_WINDOW; // the byte too many is given back
        let rest = frame(kind::DATA, 0, 1, &[0; 10_000]).repeat(left as usize / 10_000);
        hears(&connection, &rest).unwrap();
    }

    #[test]
    fn an_answer_that_is_not_as_long_as_it_says_is_no_answer() {
        const FIVE: &[u8] = &[0x88, 0x0f, 13, 1, b'5']; // content-length, 28 of the static table
        let says = |more: &[u8]| {
            let (connection, requests) = up();
            let mut stream = requests.open(OK, true).unwrap();
            hears(&connection, more).unwrap();
            (stream.head().unwrap().is_ok(), stream.data().map(|data| data.is_ok()))
        };
        let five = frame(kind::HEADERS, flag::END_HEADERS, 1, FIVE);
        assert_eq!(says(&[&five[..], &frame(kind::DATA, flag::END_STREAM, 1, b"12345")].concat()), (true, Some(true)));
        assert_eq!(says(&[&five[..], &frame(kind::DATA, flag::END_STREAM, 1, b"1234")].concat()), (true, Some(false)));
        assert_eq!(says(&[&five[..], &frame(kind::DATA, 0, 1, b"123456")].concat()), (true, Some(false)));
        assert_eq!(says(&[&five[..], &frame(kind::HEADERS, END, 1, TRAILERS)].concat()), (true, Some(false)));
        assert_eq!(says(&frame(kind::HEADERS, END, 1, FIVE)), (false, Some(false)), "its head is as malformed");
    }
}
