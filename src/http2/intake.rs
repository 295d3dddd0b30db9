//! What has come from a client and h2 has not yet taken: here long values are written in plain ([`append_plainly`]). Client connections
//! are many and mostly idle, so that what they read with is their worker thread's, and one holds only what h2 has no room for and
//! the beginning of a header block; h2 can do nothing with it before the rest has come.

use super::plain_literals::{Appended, WAITED_FOR, append_plainly};
use crate::memo::Memo;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};
use tokio::io::ReadBuf;

/// The most that is read at a time, in bytes.
const AT_A_TIME: usize = 8 * 1024;

/// As much is read also where h2 has less room. Not more, since what has been read is decoded before anybody asks what it has grown to.
const AT_LEAST: usize = 2 * 1024;

/// What the client connections of a worker thread read with.
#[derive(Default)]
pub struct Intakes {
    /// What values in Huffman code stand for.
    memo: RefCell<Memo<Vec<u8>>>,
    /// To read into: what has begun and what comes. Allocated when it is first used.
    scratch: Cell<Box<[u8]>>,
    /// To write to, while no connection holds it.
    spare: Cell<Vec<u8>>,
}

impl Intakes {
    /// Forgets credentials that nobody has sent since this was last done.
    pub fn forget_unused(&self) {
        self.memo.borrow_mut().forget_unused();
    }
}

/// Between the socket of one client and h2.
pub(super) struct Intake {
    shared: Rc<Intakes>,
    bytes: Vec<u8>,
    taken: usize,
    /// Up to here they may be taken; then comes the beginning of a frame.
    whole: usize,
}

/// Credentials are in it, as in what it shares.
impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Intake(…)")
    }
}

impl Intake {
    pub(super) fn new(shared: Rc<Intakes>) -> Intake {
        Intake { shared, bytes: Vec::new(), taken: 0, whole: 0 }
    }

    /// Nothing can be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.whole
    }

    /// Neither is there the beginning of a frame.
    pub(super) fn holds_nothing(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes what `read` puts into it, and gives as much as there is room for in `to`; it is empty. `next_frame`: where in what comes a
    /// frame begins, if it is known. `false`: nothing has come, and nothing will.
    pub(super) fn pass(
        &mut self,
        next_frame: Option<usize>,
        to: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<bool>> {
        let mut scratch = self.shared.scratch.take();
        if scratch.is_empty() {
            scratch = vec![0; WAITED_FOR + AT_A_TIME].into();
        }
        let more = self.pass_through(&mut scratch, next_frame, to, read);
        self.shared.scratch.set(scratch);
        more
    }

    fn pass_through(
        &mut self,
        scratch: &mut [u8],
        next_frame: Option<usize>,
        to: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<bool>> {
        let begun = self.bytes.get(self.whole..).unwrap_or_default();
        let (before, free) = scratch.split_at_mut_checked(begun.len()).expect("no more than is waited for");
        before.copy_from_slice(begun);
        let room = to.remaining().clamp(AT_LEAST, AT_A_TIME);
        let mut came = ReadBuf::new(free.get_mut(..room).expect("as much is beside what is waited for"));
        ready!(read(&mut came))?;
        let (begun, came) = (begun.len(), came.filled().len());
        if came == 0 {
            self.whole = self.bytes.len();
            self.give(to);
            return Poll::Ready(Ok(false));
        }
        self.bytes = self.shared.spare.take();
        let all = scratch.get(..begun + came).unwrap_or_default();
        let start = if begun > 0 { Some(0) } else { next_frame };
        let Appended { mut up_to, whole } =
            append_plainly(all, start.unwrap_or(all.len()), &mut self.shared.memo.borrow_mut(), &mut self.bytes);
        if self.bytes.is_empty() {
            // Messages, mostly: copied once.
            let given = all.get(..whole.min(to.remaining())).unwrap_or_default();
            to.put_slice(given);
            up_to = given.len();
        }
        self.bytes.extend_from_slice(all.get(up_to..).unwrap_or_default());
        (self.taken, self.whole) = (0, self.bytes.len() - (all.len() - whole));
        self.give(to);
        Poll::Ready(Ok(true))
    }

    /// Gives as much as there is, or room for it.
    pub(super) fn give(&mut self, to: &mut ReadBuf<'_>) {
        let left = self.bytes.get(self.taken..self.whole).unwrap_or_default();
        let given = left.get(..to.remaining()).unwrap_or(left);
        to.put_slice(given);
        self.taken += given.len();
        if self.is_empty() {
            self.let_go();
        }
    }
    /// Keeps no more than the beginning of a frame, in a buffer of its own: nobody knows how long that will wait.
    fn let_go(&mut self) {
        let begun = self.bytes.get(self.whole..).unwrap_or_default().to_vec();
        let mut spare = std::mem::replace(&mut self.bytes, begun);
        (self.taken, self.whole) = (0, 0);
        if spare.capacity() > 0 {
            spare.clear();
            self.shared.spare.set(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{frame, text};
    use super::super::{FrameTap, Io};
    use super::*;
    use proptest::prelude::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;
    use tokio::time::Instant;

    const HOUR: Duration = Duration::from_secs(3600);
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn tapped(io: UnixStream, intakes: &Rc<Intakes>) -> (FrameTap, Rc<super::super::TapState>) {
        FrameTap::accepted(Io::Unix(io), intakes.clone(), Instant::now() + HOUR, HOUR, HOUR)
    }

    /// What h2 makes of what a client sends in these pieces, with the tap or without: each request, and how it ends.
    fn heard(pieces: &[&[u8]], tap: Option<&Rc<Intakes>>, header_bytes: u32) -> Vec<String> {
        runtime().block_on(async {
            let (mut client, server) = UnixStream::pair().unwrap();
            let send = async {
                for piece in pieces {
                    if client.write_all(piece).await.is_err() {
                        break;
                    }
                    // The server reads what there is before more comes.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.ok();
            };
            let mut settings = h2::server::Builder::new();
            settings.max_header_list_size(header_bytes);
            let hear = async {
                match tap {
                    None => requests(settings.handshake(Io::Unix(server)).await, || false).await,
                    Some(intakes) => {
                        let (io, state) = tapped(server, intakes);
                        requests(settings.handshake(io).await, || state.pause().map(|_| state.read_on()).is_some()).await
                    }
                }
            };
            tokio::join!(send, hear).1
        })
    }

    type Handshake<T> = Result<h2::server::Connection<T, bytes::Bytes>, h2::Error>;

    async fn requests<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        connection: Handshake<T>,
        read_on: impl Fn() -> bool,
    ) -> Vec<String> {
        let mut heard = Vec::new();
        let mut open = Vec::new();
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => return vec![format!("{error:?}")],
        };
        loop {
            let next = poll_fn(|cx| {
                loop {
                    let next = connection.poll_accept(cx);
                    if next.is_ready() || !read_on() {
                        return next;
                    }
                }
            });
            match next.await {
                Some(Ok((request, respond))) => {
                    let (head, body) = request.into_parts();
                    heard.push(format!("{head:?}"));
                    open.push((body, respond));
                }
                Some(Err(error)) => {
                    heard.push(format!("{error:?}"));
                    return heard;
                }
                None => return heard,
            }
        }
    }

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A field in one of the ways in which it may be written.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![
            prop::collection::vec(prop::sample::select((b'!'..=b'~').collect::<Vec<u8>>()), 0..20),
            prop::collection::vec(prop::sample::select((b'!'..=b'~').collect::<Vec<u8>>()), 90..700),
            prop::collection::vec(prop::sample::select((0x20..=0xff).filter(|octet| *octet != 0x7f).collect::<Vec<u8>>()), 0..300),
        ];
        let form = prop::sample::select(vec![0x00_u8, 0x10, 0x10, 0x40]);
        (form, prop::bool::weighted(0.7), 0..4_u8, value, prop::bool::weighted(0.8)).prop_map(|(form, known, name, value, encoded)| {
            let name = match (known, form) {
                (true, 0x40) => vec![0x40 | 23],
                (true, form) => vec![form | 0xf, 23 - 15],
                (false, form) => [vec![form], text(&[b'x', b'a' + name], name % 2 == 0)].concat(),
            };
            [name, text(&value, encoded)].concat()
        })
    }

    #[derive(Debug, Clone)]
    enum Odd {
        Nothing,
        Flipped(prop::sample::Index, u8),
        Cut(prop::sample::Index),
        Padded,
        Priority,
        Continued(prop::sample::Index),
        Reference(u8),
    }

    fn request() -> impl Strategy<Value = (Vec<Vec<u8>>, Odd)> {
        let odd = prop_oneof![
            8 => Just(Odd::Nothing),
            1 => (any::<prop::sample::Index>(), 0..8_u8).prop_map(|(at, bit)| Odd::Flipped(at, bit)),
            1 => any::<prop::sample::Index>().prop_map(Odd::Cut),
            1 => Just(Odd::Padded),
            1 => Just(Odd::Priority),
            1 => any::<prop::sample::Index>().prop_map(Odd::Continued),
            4 => (62..66_u8).prop_map(Odd::Reference),
        ];
        (prop::collection::vec(field(), 0..6), odd)
    }

    fn frames(stream: u8, fields: &[Vec<u8>], odd: &Odd) -> Vec<u8> {
        // POST https / of somebody.
        let mut block = [&[0x83, 0x87, 0x84, 0x01, 1, b'a'][..], &fields.concat()].concat();
        let mut flags = END_HEADERS;
        match odd {
            Odd::Nothing => {}
            Odd::Flipped(at, bit) => {
                let at = at.index(block.len());
                block[at] ^= 1 << bit;
            }
            Odd::Cut(at) => block.truncate(at.index(block.len())),
            Odd::Padded => (flags, block) = (flags | 8, [&[2], &block[..], &[0; 2]].concat()),
            Odd::Priority => (flags, block) = (flags | 0x20, [&[0, 0, 0, 0, 9], &block[..]].concat()),
            Odd::Continued(at) => {
                let (first, rest) = block.split_at(at.index(block.len()));
                return [frame(HEADERS, 0, stream, first), frame(9, END_HEADERS, stream, rest)].concat();
            }
            Odd::Reference(index) => block.push(0x80 | index),
        }
        [frame(HEADERS, flags, stream, &block), frame(0, 0, stream, b"\0\0\0\0\x03abc")].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn h2_hears_what_it_would_have_heard(
            requests in prop::collection::vec(request(), 1..14),
            header_bytes in prop::sample::select(vec![300_u32, 1000, 1 << 20]),
            cut in prop_oneof![1usize..40, 100usize..3000, 4000usize..40_000],
        ) {
            let requests = requests.iter().enumerate().map(|(index, (fields, odd))| frames(2 * index as u8 + 1, fields, odd));
            let sent = [PREFACE.to_vec(), requests.flatten().collect()].concat();
            let pieces: Vec<&[u8]> = sent.chunks(cut).collect();
            let intakes = Rc::default();
            let expected = heard(&[&sent], None, header_bytes);
            for pieces in [&pieces[..], &[&sent]] {
                let heard = heard(pieces, Some(&intakes), header_bytes);
                if heard.len() == expected.len() {
                    prop_assert_eq!(heard, expected.clone());
                    continue;
                }
                // Of what comes right before the end of a connection h2 does not always hand over everything.
                let both = heard.len().min(expected.len()) - 1;
                prop_assert_eq!(&heard[..both], &expected[..both]);
                prop_assert_eq!(heard.last(), expected.last());
                prop_assert!(expected.last().is_some_and(|last| last.contains("GoAway")), "{:?}", expected);
            }
        }
    }

    fn with_token(stream: u8) -> Vec<u8> {
        frames(stream, &[[vec![0x1f, 23 - 15], text(&[b'1'; 800], true)].concat()], &Odd::Nothing)
    }

    #[test]
    fn all_are_in_plain_however_they_are_cut_and_nothing_is_held_afterwards() {
        let calls: Vec<u8> = (0..100).map(|call| 2 * call + 1).flat_map(with_token).collect();
        let plain: usize = {
            let mut to = Vec::new();
            let call = with_token(1);
            let done = append_plainly(&call, 0, &mut Memo::default(), &mut to);
            (to.len() + call.len() - done.up_to) * 100
        };
        for (cut, room) in [(4096, 8192), (8192, 8192), (16_384, 3000), (100, 8192), (1, 500)] {
            let mut intake = Intake::new(Rc::default());
            let (mut got, mut scanner) = (Vec::new(), super::super::frames::FrameScanner::new(0));
            for mut piece in calls.chunks(cut) {
                while !piece.is_empty() {
                    let next_frame = scanner.next_frame();
                    let read = |to: &mut ReadBuf<'_>| {
                        let (now, later) = piece.split_at(piece.len().min(to.remaining()));
                        to.put_slice(now);
                        scanner.advance(now);
                        piece = later;
                        Poll::Ready(Ok(()))
                    };
                    let mut to = vec![0; room];
                    let mut to = ReadBuf::new(&mut to);
                    assert!(matches!(intake.pass(next_frame, &mut to, read), Poll::Ready(Ok(true))));
                    got.extend_from_slice(to.filled());
                    while !intake.is_empty() {
                        to.clear();
                        intake.give(&mut to);
                        got.extend_from_slice(to.filled());
                    }
                }
            }
            assert!(intake.bytes.is_empty() && intake.bytes.capacity() == 0);
            assert_eq!(got.len(), plain, "{cut}");
        }
    }

    #[test]
    fn what_has_begun_is_given_when_nothing_more_comes() {
        let mut intake = Intake::new(Rc::default());
        let begun = &with_token(1)[..100];
        let mut to = [0; 200];
        let mut to = ReadBuf::new(&mut to);
        let passed = intake.pass(Some(0), &mut to, |to| {
            to.put_slice(begun);
            Poll::Ready(Ok(()))
        });
        assert!(matches!(passed, Poll::Ready(Ok(true))) && to.filled().is_empty() && intake.is_empty() && !intake.holds_nothing());
        assert!(intake.pass(Some(400), &mut to, |_| Poll::Pending).is_pending() && intake.is_empty());
        assert!(matches!(intake.pass(Some(400), &mut to, |_| Poll::Ready(Ok(()))), Poll::Ready(Ok(false))));
        assert_eq!(to.filled(), begun);
        assert!(intake.holds_nothing());
    }

    #[test]
    fn a_beginning_that_waits_holds_no_more_than_itself() {
        let mut intake = Intake::new(Rc::default());
        let sent = [&with_token(1)[..], &with_token(3), &[0]].concat();
        let mut to = [0; 8192];
        let mut to = ReadBuf::new(&mut to);
        let passed = intake.pass(Some(0), &mut to, |to| {
            to.put_slice(&sent);
            Poll::Ready(Ok(()))
        });
        assert!(matches!(passed, Poll::Ready(Ok(true))) && to.filled().len() > sent.len());
        assert!(intake.is_empty() && !intake.holds_nothing() && intake.bytes.capacity() < 16, "{}", intake.bytes.capacity());
        // The large buffer serves others.
        assert!(intake.shared.spare.take().capacity() >= to.filled().len());
    }

    #[test]
    fn what_nobody_sends_any_more_is_forgotten() {
        let intakes = Intakes::default();
        append_plainly(&with_token(1), 0, &mut intakes.memo.borrow_mut(), &mut Vec::new());
        assert_eq!(intakes.memo.borrow().len(), 1);
        intakes.forget_unused();
        intakes.forget_unused();
        assert_eq!(intakes.memo.borrow().len(), 0);
    }
}
