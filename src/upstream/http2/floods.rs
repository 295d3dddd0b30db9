//! What an upstream that means ill, or whose socket takes nothing, can make a connection hold and do. Tests only.

use super::connection::Connection;
use super::driver::{Driver, MOST_UNWRITTEN};
use super::stream::Stream;
use crate::http2::{Io, Sink, Source};
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::task::{LocalSet, yield_now};

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEAD: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
const REQUEST: [u8; 1] = [0x83];
const WINDOW: u32 = 32 * 1024;

/// Runs `test` with a connection that is up, and its other end.
fn connected<T: Future<Output = ()>>(test: impl FnOnce(super::Requests, Rc<Connection>, UnixStream) -> T) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let near = Io::Unix(tokio::net::UnixStream::from_std(near).unwrap());
        let connection = Connection::new((1 << 31) - 1, WINDOW, 16_384);
        let (driver, requests) = Driver::new(connection.clone(), near, Duration::from_secs(60));
        tokio::task::spawn_local(driver);
        far.write_all(&SETTINGS).unwrap();
        while !connection.is_up() {
            yield_now().await;
        }
        test(requests, connection, far).await;
    });
}

fn read_all(far: &mut UnixStream) {
    while far.read(&mut [0; 1 << 16]).is_ok_and(|bytes| bytes > 0) {}
}

/// As much as is taken in some turns; how many bytes that is.
async fn write_some(far: &mut UnixStream, mut bytes: &[u8]) -> usize {
    let whole = bytes.len();
    for _ in 0..100 {
        match far.write(bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        yield_now().await;
    }
    whole - bytes.len()
}

async fn fill(stream: &mut Stream, connection: &Connection) {
    while !connection.is_blocked() && connection.send_window.get().room() > 0 {
        if let Poll::Ready(Some(room)) = poll_fn(|cx| Poll::Ready(stream.poll_room(cx, 16_384))).await {
            stream.send(Bytes::from(vec![0; room]), false).unwrap();
        }
        yield_now().await;
    }
}

#[test]
fn who_takes_no_answers_is_not_read_until_it_does() {
    connected(async |requests, connection, mut far| {
        let mut answered = requests.open(&REQUEST, true).unwrap();
        let mut upload = requests.open(&REQUEST, false).unwrap();
        // A window for all that the socket has no room for.
        far.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0]).unwrap();
        far.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 3, 0x3f, 0, 0, 0]).unwrap();
        yield_now().await;
        fill(&mut upload, &connection).await;
        assert!(connection.is_blocked());
        far.write_all(&HEAD).unwrap();
        // All of a window but a byte, which its call does not give back.
        let body = |length: usize| [&[0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 0, 1][..], &vec![0; length]].concat();
        let most = [body(16_384), body(16_383)].concat();
        assert_eq!(write_some(&mut far, &most).await, most.len());
        assert!(poll_fn(|cx| answered.poll_head(cx)).await.is_ok());
        assert!(poll_fn(|cx| answered.poll_data(cx)).await.unwrap().is_some());
        // Nothing but padding: each frame is given back at once.
        let padding = [0, 0, 1, 0, 8, 0, 0, 0, 1, 0].repeat(400_000);
        let taken = write_some(&mut far, &padding).await;
        assert!(taken < padding.len(), "all was read");
        assert!(connection.unwritten() < 2 * MOST_UNWRITTEN, "{}", connection.unwritten());
        assert!(connection.ended.borrow().is_none());
        connection.take_heard();
        for _ in 0..1000 {
            read_all(&mut far);
            yield_now().await;
        }
        assert!(connection.take_heard() && !connection.is_blocked(), "it is read on");
    });
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_for_the_connections_window_is_woken_when_there_is_some_and_not_by_each_turn() {
    connected(async |requests, connection, mut far| {
        let mut first = requests.open(&REQUEST, false).unwrap();
        let reading = async {
            loop {
                read_all(&mut far);
                yield_now().await;
            }
        };
        tokio::select! {
            () = fill(&mut first, &connection) => {}
            () = reading => {}
        }
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(wakes.clone());
        let mut others: Vec<Stream> = (0..100).map(|_| requests.open(&REQUEST, false).unwrap()).collect();
        others.iter_mut().for_each(|stream| assert!(stream.poll_room(&mut Context::from_waker(&waker), 1).is_pending()));
        let mut turns = async |bytes: &[u8]| {
            far.write_all(bytes).unwrap();
            for _ in 0..10 {
                read_all(&mut far);
                yield_now().await;
            }
            wakes.0.load(Ordering::Relaxed)
        };
        assert_eq!(turns(&PING).await, 0);
        // Who goes meanwhile is not waited for.
        others.truncate(30);
        assert_eq!(connection.waiting(), 30);
        assert_eq!(turns(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]).await, 30);
        assert_eq!(connection.waiting(), 0);
    });
}

#[test]
fn only_the_last_of_a_frames_window_sizes_counts_and_many_are_a_part_of_the_work() {
    connected(async |requests, connection, mut far| {
        let mut stream = requests.open(&REQUEST, false).unwrap();
        let settings = |sizes: &[u32]| {
            let sizes: Vec<u8> = sizes.iter().flat_map(|size| [&[0, 4][..], &size.to_be_bytes()].concat()).collect();
            [&[0, (sizes.len() >> 8) as u8, sizes.len() as u8, 4, 0, 0, 0, 0, 0][..], &sizes].concat()
        };
        let mut room = async |sizes: &[u32]| {
            far.write_all(&settings(sizes)).unwrap();
            for _ in 0..10 {
                yield_now().await;
            }
            poll_fn(|cx| Poll::Ready(stream.poll_room(cx, 1 << 20))).await
        };
        // Each in between would be more than there can be.
        assert_eq!(room(&[0x7fff_ffff, 100, 0x7fff_ffff, 300]).await, Poll::Ready(Some(300)));
        assert_eq!(room(&[0x7fff_ffff, 200]).await, Poll::Ready(Some(200)));
        assert!(connection.ended.borrow().is_none());
        let toil = connection.toil.get();
        connection.receive(super::frame::Head { length: 6, kind: 4, flags: 0, stream: 0 }, &[0, 4, 0, 0, 0, 1]).unwrap();
        assert!(connection.toil.get() > toil);
    });
}
