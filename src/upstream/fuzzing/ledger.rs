//! What has gone over a connection, read once more and in another way: what an upstream may find in it, and what calls may be given of it.

use std::collections::{BTreeMap, VecDeque};

/// Both directions of one connection. It counts what has been read of the socket, and what it has taken.
pub(super) struct Ledger {
    heard: Vec<u8>,
    said: Vec<u8>,
    greeted: bool,
    streams: BTreeMap<u32, Told>,
    /// What the upstream grants in all, beyond what was sent; and each stream, by the SETTINGS that have been acknowledged.
    granted: i64,
    initial: i64,
    /// Not yet acknowledged.
    settings: VecDeque<Option<u32>>,
    pings: VecDeque<Vec<u8>>,
    /// The stream of a header block that has not come to its end, and whether it ends its stream; in either direction.
    block: Option<(u32, bool)>,
    saying: Option<(u32, Vec<u8>)>,
    /// What it grants: in all, and to each stream.
    window: u64,
    stream_window: u64,
    /// Bytes of DATA that came, and that the upstream was told of as done with.
    came: u64,
    updated: u64,
    /// WINDOW_UPDATEs that were sent, and what may be a reason for two of them.
    updates: usize,
    reasons: usize,
    gone_away: bool,
    bytes: usize,
}

#[derive(Default)]
struct Told {
    head: Vec<u8>,
    head_last: bool,
    put: Vec<u8>,
    /// The request was ended by its call.
    put_last: bool,
    opened: bool,
    sent: usize,
    /// END_STREAM, RST_STREAM was sent.
    ended: bool,
    reset: bool,
    granted: i64,
    /// What came of the answer, up to its end or RST_STREAM.
    came: Vec<u8>,
    came_ended: bool,
    lost: bool,
    /// Of DATA, with padding.
    bytes: u64,
    updated: u64,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// The first frame, and how long it is with its head.
fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let ([l0, l1, l2, kind, flags, stream @ ..], rest) = bytes.split_first_chunk::<9>()?;
    let length = number(&[*l0, *l1, *l2]) as usize;
    let payload = rest.get(..length)?;
    Some((Frame { kind: *kind, flags: *flags, stream: number(stream) & 0x7fff_ffff, payload }, 9 + length))
}

impl Ledger {
    pub(super) fn new(window: u32, stream_window: u32) -> Ledger {
        Ledger {
            heard: Vec::new(),
            said: Vec::new(),
            greeted: false,
            streams: BTreeMap::new(),
            granted: 65_535,
            initial: 65_535,
            settings: VecDeque::new(),
            pings: VecDeque::new(),
            block: None,
            saying: None,
            window: u64::from(window),
            stream_window: u64::from(stream_window),
            came: 0,
            updated: 0,
            updates: 0,
            reasons: 1,
            gone_away: false,
            bytes: 0,
        }
    }

    /// Grows with everything that goes over the socket.
    pub(super) fn progress(&self) -> usize {
        self.bytes
    }

    /// A call has opened a stream.
    pub(super) fn opened(&mut self, id: u32, head: &[u8], last: bool) {
        let head = if id == 1 { [&[0x20], head].concat() } else { head.to_vec() };
        self.streams.insert(id, Told { head, head_last: last, put_last: last, ..Told::default() });
    }

    /// A call has sent something.
    pub(super) fn put(&mut self, id: u32, data: &[u8], last: bool) {
        let told = self.streams.get_mut(&id).expect("opened");
        told.put.extend_from_slice(data);
        told.put_last = last;
    }

    /// A call has given something back.
    pub(super) fn released(&mut self) {
        self.reasons += 1;
    }

    fn told(&self, id: u32) -> &Told {
        self.streams.get(&id).expect("opened")
    }

    /// A call has been given no more than came, in its order.
    pub(super) fn given(&self, id: u32, given: &[u8]) {
        assert!(self.told(id).came.starts_with(given), "stream {id} was given what did not come");
    }

    /// A call has been told that its answer has ended.
    pub(super) fn ended(&self, id: u32, given: &[u8]) {
        assert!(self.told(id).came_ended && self.told(id).came == given, "stream {id} has not ended there");
    }

    /// A call has been given all that came, as its stream had not been lost by then.
    pub(super) fn given_whole(&self, id: u32, given: &[u8]) {
        assert!(self.told(id).came == given, "stream {id} was not given all that came");
    }

    /// Whether the upstream says that it has not seen a call, or cannot have seen it.
    pub(super) fn may_be_unseen(&self, id: u32) -> bool {
        !self.told(id).opened || self.told(id).lost
    }

    /// All is written, on a connection that lives; `nobody`: there is no call any more.
    pub(super) fn settled(&self, nobody: bool) {
        assert!(self.said.is_empty() && self.saying.is_none(), "frames are written whole");
        assert!(self.settings.is_empty() && self.pings.is_empty(), "what asks for it is acknowledged");
        assert!(self.came <= self.window + self.updated, "more than the connection's window");
        for (id, told) in &self.streams {
            let within = told.bytes <= self.stream_window + told.updated || told.reset || told.lost || told.came_ended;
            assert!(within, "more than the window of stream {id}");
            assert!(told.opened && told.sent == told.put.len() && (told.ended || !told.put_last || told.reset || told.lost), "stream {id}");
        }
        let owed = self.came - self.updated;
        assert!(!nobody || owed == 0 || owed < (self.window - owed) / 2, "{owed} bytes have not been given back");
    }

    /// Bytes of the upstream have been read.
    pub(super) fn heard(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.heard.extend_from_slice(bytes);
        let heard = std::mem::take(&mut self.heard);
        let mut rest = &heard[..];
        while let Some((frame, length)) = first(rest) {
            self.hear(&frame);
            rest = rest.get(length..).unwrap_or_default();
        }
        self.heard = rest.to_vec();
    }

    fn hear(&mut self, frame: &Frame<'_>) {
        let &Frame { kind, flags, stream, payload } = frame;
        let told = self.streams.get_mut(&stream);
        match (kind, told) {
            (0, told) => {
                self.came += payload.len() as u64;
                self.reasons += 1;
                let Some(told) = told else { return };
                told.bytes += payload.len() as u64;
                let (padding, data) = match payload.split_first() {
                    Some((padding, data)) if flags & 8 != 0 => (usize::from(*padding), data),
                    _ => (0, payload),
                };
                let Some(length) = data.len().checked_sub(padding).filter(|_| !told.lost && !told.came_ended) else { return };
                told.came.extend_from_slice(data.get(..length).unwrap_or_default());
                told.came_ended = flags & 1 != 0;
            }
            (1 | 9, _) => {
                if kind == 1 {
                    self.block = Some((stream, flags & 1 != 0));
                }
                if flags & 4 != 0
                    && let Some((stream, last)) = self.block.take()
                    && let Some(told) = self.streams.get_mut(&stream).filter(|told| !told.lost)
                {
                    told.came_ended |= last;
                }
            }
            (3, Some(told)) => told.lost |= payload.len() == 4,
            (4, _) if flags & 1 == 0 => {
                let windows = payload.chunks_exact(6).filter_map(|setting| setting.strip_prefix(&[0, 4]));
                self.settings.push_back(windows.map(number).last());
            }
            (6, _) if flags & 1 == 0 => self.pings.push_back(payload.to_vec()),
            (7, _) => {
                let last = payload.get(..4).map_or(u32::MAX, number) & 0x7fff_ffff;
                self.streams.range_mut(last.saturating_add(1)..).for_each(|(_, told)| told.lost = true);
            }
            (8, told) => {
                let by = i64::from(number(payload) & 0x7fff_ffff);
                match told {
                    Some(told) => told.granted += by,
                    None if stream == 0 => self.granted += by,
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Bytes have been written to the upstream.
    pub(super) fn said(&mut self, bytes: &[u8]) {
        /// RFC 9113 §3.4.
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        self.bytes += bytes.len();
        self.said.extend_from_slice(bytes);
        let said = std::mem::take(&mut self.said);
        let mut rest = &said[..];
        if !self.greeted && rest.len() >= PREFACE.len() {
            rest = rest.strip_prefix(PREFACE).expect("the preface");
            self.greeted = true;
        }
        while self.greeted
            && let Some((frame, length)) = first(rest)
        {
            self.say(&frame);
            rest = rest.get(length..).unwrap_or_default();
        }
        assert!(rest.len() < 9 + 16_384, "larger than a frame may be");
        self.said = rest.to_vec();
    }

    fn say(&mut self, frame: &Frame<'_>) {
        let &Frame { kind, flags, stream, payload } = frame;
        assert!(payload.len() <= 16_384, "larger than a frame may be");
        assert!(!self.gone_away, "nothing comes after GOAWAY");
        if let Some((within, block)) = &mut self.saying {
            assert!((kind, stream) == (9, *within), "nothing comes between the frames of a header block");
            block.extend_from_slice(payload);
            return self.say_block(flags);
        }
        if kind == 4 || kind == 6 {
            assert_eq!(stream, 0);
            return self.say_to_connection(frame);
        }
        if kind == 7 {
            assert!(stream == 0 && payload.len() == 8);
            self.gone_away = true;
            return;
        }
        if kind == 8 {
            return self.say_window(stream, number(payload));
        }
        if kind == 1 {
            let told = self.streams.get_mut(&stream).expect("opened by a call");
            assert!(!told.ended && !told.reset, "nothing comes after the end");
            told.ended = flags & 1 != 0;
            self.saying = Some((stream, payload.to_vec()));
            return self.say_block(flags);
        }
        let told = self.streams.get_mut(&stream).expect("opened by a call");
        assert!(told.opened && !told.reset, "nothing comes before HEADERS or after RST_STREAM");
        match kind {
            0 => {
                let length = payload.len();
                assert!(!told.ended && told.put.get(told.sent..told.sent + length) == Some(payload), "stream {stream} says something else");
                told.ended = flags & 1 != 0;
                assert!(!told.ended || told.put_last && told.sent + length == told.put.len());
                told.sent += length;
                told.granted -= length as i64;
                self.granted -= length as i64;
                let within = length == 0 || (self.granted >= 0 && self.initial + told.granted >= 0);
                assert!(within, "more than the windows of stream {stream}");
            }
            3 => told.reset = true,
            _ => panic!("a frame of type {kind}"),
        }
    }

    fn say_block(&mut self, flags: u8) {
        if flags & 4 == 0 {
            return;
        }
        let (stream, block) = self.saying.take().expect("begun");
        let before = self.streams.range(..stream).all(|(_, told)| told.opened);
        let told = self.streams.get_mut(&stream).expect("opened by a call");
        if told.opened {
            assert!(told.ended && told.sent == told.put.len(), "trailers are last");
        } else {
            assert!(block == told.head && told.ended == told.head_last, "another head");
            assert!(before, "streams are opened in their order");
            told.opened = true;
        }
    }

    fn say_to_connection(&mut self, frame: &Frame<'_>) {
        match (frame.kind, frame.flags) {
            (4, 1) => {
                if let Some(window) = self.settings.pop_front().expect("SETTINGS came") {
                    self.initial = i64::from(window);
                }
            }
            (6, 1) => assert_eq!(self.pings.pop_front().as_deref(), Some(frame.payload), "another PING came"),
            (4, 0) => assert!(self.streams.values().all(|told| !told.opened)),
            _ => panic!("a PING that nobody asked for"),
        }
    }

    fn say_window(&mut self, stream: u32, increment: u32) {
        assert!(increment > 0);
        self.updates += 1;
        // 26 bytes at most for a frame of 10: padding of one byte in windows that are used up.
        assert!(self.updates <= 2 * self.reasons, "more WINDOW_UPDATEs than there are reasons for");
        let increment = u64::from(increment);
        if stream != 0 {
            let told = self.streams.get_mut(&stream).expect("opened by a call");
            told.updated += increment;
            assert!(told.opened && !told.reset && told.updated <= told.bytes, "more than came");
        } else if self.updates == 1 && self.window > 65_535 {
            assert_eq!(increment, self.window - 65_535);
        } else {
            self.updated += increment;
            assert!(self.updated <= self.came, "more than came");
        }
    }
}
