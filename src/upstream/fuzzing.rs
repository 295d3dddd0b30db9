//! The narrow way into this room for the fuzz target `upstream` (`fuzz/`): an upstream that says anything, in any pieces, on a socket that
//! takes what it likes, and calls that do anything meanwhile. Nobody is polled who was not woken; what must hold is asserted by
//! `ledger.rs`, which reads both directions by itself, and whenever all is quiet.

mod ledger;
mod wire;

use super::http2::{Connection, Driver, Failure, Lost, Requests, Stream};
use crate::http2::{Sink, Source};
use bytes::Bytes;
use http::HeaderMap;
use ledger::Ledger;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use wire::{Flag, Socket, Wire};

/// For its timers, none of which ever ends.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// What each side sends at most, in bytes.
const BUDGET: usize = 1 << 20;

/// A connection from its beginning to its end; the first byte says how it is set up, the others what happens on it.
pub fn upstream(input: &[u8]) {
    let _entered = RUNTIME.enter();
    let mut steps = Steps(input);
    let Some(setup) = steps.byte() else { return };
    let mut play = Play::new(setup);
    while play.step(&mut steps).is_some() {
        play.settle();
        if setup & 0x80 == 0 {
            play.check();
        }
    }
    play.settle();
    play.check();
    play.end(setup >> 4 & 3);
}

struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    /// As many as a byte says, or as there are.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Some(bytes)
    }
}

/// One call, and what it waits for.
struct Call {
    id: u32,
    stream: Stream,
    flag: Arc<Flag>,
    head: bool,
    /// Chunks.
    data: usize,
    /// Bytes to be sent, and whether they are the last.
    room: Option<(usize, bool)>,
    given: Vec<u8>,
    unreleased: usize,
    /// Heard to its end.
    over: bool,
}

impl Call {
    fn waits(&self) -> bool {
        self.head || self.data > 0 || self.room.is_some()
    }

    /// Does what can be done; whether that is anything.
    fn poll(&mut self, ledger: &RefCell<Wire>) -> bool {
        let waker = Waker::from(self.flag.clone());
        let cx = &mut Context::from_waker(&waker);
        let mut moved = false;
        if self.head
            && let Poll::Ready(head) = self.stream.poll_head(cx)
        {
            (self.head, moved) = (false, true);
            if let Err(failure) = head {
                self.failed(&failure, ledger);
            }
        }
        while self.data > 0 {
            let Poll::Ready(data) = self.stream.poll_data(cx) else { break };
            moved = true;
            self.data -= 1;
            match data {
                Ok(Some(data)) => {
                    assert!(!data.is_empty());
                    self.given.extend_from_slice(&data);
                    self.unreleased += data.len();
                    ledger.borrow_mut().ledger.given(self.id, &self.given);
                }
                Ok(None) => {
                    (self.data, self.over) = (0, true);
                    ledger.borrow_mut().ledger.ended(self.id, &self.given);
                    let trailers = self.stream.poll_trailers(cx);
                    assert!(matches!(trailers, Poll::Ready(Ok(_))) && self.stream.is_over());
                }
                Err(failure) => {
                    (self.data, self.over) = (0, true);
                    self.failed(&failure, ledger);
                }
            }
        }
        while let Some((wanted, last)) = self.room {
            let room = if wanted == 0 { Poll::Ready(Some(0)) } else { self.stream.poll_room(cx, wanted) };
            let Poll::Ready(room) = room else { break };
            moved = true;
            self.room = None;
            let Some(room) = room else { break };
            assert!(room <= wanted && (room > 0 || wanted == 0));
            let ends = last && room == wanted;
            let data: Vec<u8> = (0..room).map(|at| at as u8 ^ self.id as u8).collect();
            if self.stream.send(Bytes::from(data.clone()), ends).is_some() {
                ledger.borrow_mut().ledger.put(self.id, &data, ends);
            }
            if room < wanted {
                self.room = Some((wanted - room, last));
            }
        }
        moved
    }

    fn failed(&self, failure: &Failure, wire: &RefCell<Wire>) {
        let wire = wire.borrow();
        if failure.unseen {
            assert!(wire.ledger.may_be_unseen(self.id), "it has been seen: {failure}");
        }
        let whole = match &failure.lost {
            // No code of ours: the upstream's.
            Lost::Reset(reason) => u32::from(*reason) > 0x10,
            Lost::Connection(why) => !why.contains("broke the rules") && !wire.broken,
            Lost::Oversized => false,
        };
        if whole && self.over {
            wire.ledger.given_whole(self.id, &self.given);
        }
    }
}

struct Play {
    wire: Rc<RefCell<Wire>>,
    driver: Option<Pin<Box<Driver<Socket>>>>,
    flag: Arc<Flag>,
    requests: Option<Requests>,
    calls: Vec<Option<Call>>,
    /// What the upstream holds back.
    held: Vec<u8>,
    left: (usize, usize),
}

impl Play {
    fn new(setup: u8) -> Play {
        let window = if setup & 1 == 0 { 65_535 } else { 17 * 32 * 1024 };
        let stream_window = if setup & 2 == 0 { 32 * 1024 } else { 100 };
        let ledger = Ledger::new(window, stream_window);
        let wire = Wire::new(ledger);
        let connection = Connection::new(window, stream_window, if setup & 4 == 0 { 4096 } else { 64 });
        let (driver, requests) = Driver::new(connection, Socket(wire.clone()), Duration::from_secs(3600));
        let flag = Arc::new(Flag::default());
        flag.wake_by_ref();
        let (driver, requests, calls) = (Some(Box::pin(driver)), Some(requests), Vec::new());
        let mut play = Play { wire, driver, flag, requests, calls, held: Vec::new(), left: (BUDGET, BUDGET) };
        if setup & 8 == 0 {
            play.say(4, 0, 0, &[]);
        }
        play
    }

    /// The upstream sends a frame.
    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [.., l0, l1, l2] = payload.len().to_be_bytes();
        self.send(&[&[l0, l1, l2, kind, flags], &stream.to_be_bytes()[..], payload].concat(), 0);
    }

    /// The upstream sends bytes, the last of them later.
    fn send(&mut self, bytes: &[u8], later: usize) {
        if self.left.0 < bytes.len() {
            return;
        }
        self.left.0 -= bytes.len();
        self.held.extend_from_slice(bytes);
        let now = self.held.len().saturating_sub(later);
        let mut wire = self.wire.borrow_mut();
        wire.coming.extend(self.held.drain(..now));
        wire.changed();
    }

    fn call(&mut self, number: u8) -> Option<&mut Call> {
        self.calls.get_mut(usize::from(number))?.as_mut()
    }

    fn step(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let code = steps.byte()?;
        let (code, which) = (code & 15, code >> 4);
        let id = 2 * u32::from(which) + 1;
        match code {
            0 => self.open(which),
            1 => self.send(steps.bytes()?, usize::from(which)),
            2 => {
                let (kind, flags, stream) = (steps.byte()?, steps.byte()?, steps.byte()?);
                self.say(kind, flags, u32::from(stream), steps.bytes()?);
            }
            3 => {
                let (flags, length) = (steps.byte()?, steps.number()?);
                let payload: Vec<u8> = (0..length % 16_500).map(|at| (at / 3) as u8 ^ flags).collect();
                self.say(0, flags, id, &payload);
            }
            // The head of an answer, trailers.
            4 => self.say(1, 4, id, &[0x88]),
            5 => self.say(1, 5, id, &[0, 1, b'a', 1, b'b']),
            6 => {
                let stream = if steps.byte()? & 1 == 0 { 0 } else { id };
                let increment = u32::try_from(steps.number()?).unwrap_or_default();
                self.say(8, 0, stream, &increment.to_be_bytes());
            }
            7 => {
                let window = u32::try_from(steps.number()?).unwrap_or_default();
                self.say(4, 0, 0, &[&[0, 4], &window.to_be_bytes()[..]].concat());
            }
            8 => {
                let chunks = usize::from(steps.byte()?);
                let call = self.call(which)?;
                (call.head, call.data) = (call.head || call.given.is_empty() && !call.over && chunks == 0, call.data + chunks);
                call.flag.wake_by_ref();
            }
            9 => {
                let part = usize::from(steps.byte()?) + 1;
                let call = self.call(which)?;
                let bytes = call.unreleased * part / 256;
                call.unreleased -= bytes;
                call.stream.release(bytes);
                self.wire.borrow_mut().ledger.released();
            }
            10 => {
                let wanted = steps.number()?;
                self.left.1 = self.left.1.checked_sub(wanted)?;
                let call = self.call(which)?;
                call.room = call.room.or(Some((wanted & !1, wanted & 1 == 1)));
                call.flag.wake_by_ref();
            }
            11 => {
                let call = self.call(which)?;
                call.room = None;
                let mut trailers = HeaderMap::new();
                trailers.insert("a", http::HeaderValue::from_static("b"));
                call.stream.send_trailers(&trailers);
            }
            12 => {
                if let Some(call) = self.calls.get_mut(usize::from(which)) {
                    *call = None;
                }
                self.wire.borrow_mut().ledger.released();
            }
            13 => {
                let takes = steps.byte()?;
                let mut wire = self.wire.borrow_mut();
                wire.takes = if takes == 255 { usize::MAX } else { usize::from(takes) * 64 };
                wire.changed();
            }
            14 => self.wire.borrow_mut().piece = 1 + usize::from(steps.byte()?).pow(2),
            _ => match which {
                0 => self.requests = None,
                1 => self.requests = self.requests.as_ref().map(|requests| requests.clone()),
                2 => self.close(),
                3 => self.break_up(),
                4 => self.driver = None,
                _ => {}
            },
        }
        Some(())
    }

    fn open(&mut self, how: u8) {
        let Some(requests) = self.requests.as_ref().filter(|requests| self.calls.len() < 16 && requests.connection().takes_heads()) else {
            return;
        };
        let (last, head) = (how & 1 == 1, vec![0x82; if how & 2 == 0 { 20 } else { 40_000 }]);
        let Some(stream) = requests.open(&head, last) else { return };
        let id = 2 * self.calls.len() as u32 + 1;
        self.wire.borrow_mut().ledger.opened(id, &head, last);
        let flag = Arc::default();
        let call = Call { id, stream, flag, head: false, data: 0, room: None, given: Vec::new(), unreleased: 0, over: false };
        self.calls.push(Some(call));
    }

    fn close(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.closed = true;
        wire.changed();
    }

    fn break_up(&mut self) {
        let mut wire = self.wire.borrow_mut();
        wire.broken = true;
        wire.changed();
    }

    /// Everybody goes on who was woken, until all is quiet.
    fn settle(&mut self) {
        for _ in 0..3 * BUDGET {
            let mut quiet = true;
            if self.flag.take() {
                quiet = false;
                self.drive();
            }
            for call in self.calls.iter_mut().flatten() {
                if call.flag.take() {
                    quiet = false;
                    call.poll(&self.wire);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("they wake each other for ever");
    }

    fn drive(&mut self) {
        let Some(driver) = &mut self.driver else { return };
        let waker = Waker::from(self.flag.clone());
        if driver.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.driver = None;
        }
    }

    /// All is quiet: nobody could go on, and nothing is left undone.
    fn check(&mut self) {
        for call in self.calls.iter_mut().flatten() {
            assert!(!call.poll(&self.wire), "stream {} was not woken", call.id);
            assert!(self.driver.is_some() || !call.waits(), "stream {} waits for nobody", call.id);
            if call.data > 0 && !call.head {
                self.wire.borrow().ledger.given_whole(call.id, &call.given);
            }
        }
        let before = self.wire.borrow().ledger.progress();
        self.drive();
        assert_eq!(self.wire.borrow().ledger.progress(), before, "the driver was not woken");
        self.settle();
        let nobody = self.calls.iter().all(Option::is_none);
        assert!(self.driver.is_none() || self.requests.is_some() || !nobody, "nobody needs it");
        let wire = self.wire.borrow();
        if self.driver.is_some() && wire.takes > 0 {
            wire.ledger.settled(nobody);
        }
    }

    /// However it ends, every call comes to its end.
    fn end(&mut self, how: u8) {
        match how {
            0 => self.close(),
            1 => self.break_up(),
            2 => self.driver = None,
            _ => self.requests = None,
        }
        if how == 3 {
            self.calls.clear();
        }
        self.settle();
        // Who has much to write reads no more before some of it is taken.
        self.wire.borrow_mut().takes = usize::MAX;
        self.wire.borrow_mut().changed();
        self.settle();
        self.check();
        for call in self.calls.iter_mut().flatten() {
            // Once more, for those who come late.
            (call.data, call.room) = (usize::MAX, Some((2, false)));
            call.poll(&self.wire);
            assert!(self.driver.is_some() || !call.waits(), "stream {} waits for nobody", call.id);
        }
        assert!(self.driver.is_none() || how == 1, "it has ended");
    }
}
