//! Flow control towards the upstream (RFC 9113 §5.2 and §6.9): nothing is sent beyond a window, everything once there is room. The
//! service itself sees to the first, with every frame of every test here.

use super::*;
use bytes::Bytes;
use h2::Reason;

/// Different at every place, so that nothing can be lost, doubled or moved unseen.
fn bytes(count: usize) -> Bytes {
    (0..count).map(|at| u8::try_from((at ^ at >> 8 ^ at >> 16) & 0xff).unwrap()).collect::<Vec<_>>().into()
}

/// An upload: its name, the service's first SETTINGS, how it takes it, and how many bytes there are.
type Upload<'a> = (&'a str, &'a [(u16, u32)], Play, usize);

/// Answers how many bytes have come, and whether they are those of [`bytes`].
async fn answer(peer: &mut Peer, stream: u32, body: Vec<u8>) {
    let checked = body == bytes(body.len());
    let count = body.len().to_string();
    let fields = [("grpc-status", "0"), ("x-count", &*count), ("x-same", if checked { "yes" } else { "no" })];
    peer.burst(&[head(stream), frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))].concat()).await;
}

/// Gives back every byte as it comes.
fn reading() -> Play {
    play(|peer, stream| {
        Box::pin(async move {
            let body = peer.body(stream).await;
            answer(peer, stream, body).await;
        })
    })
}

/// Reads until so many bytes of the body have come, and then until everything that was sent before a PING has; `true` at the end.
async fn read_until(peer: &mut Peer, stream: u32, body: &mut Vec<u8>, count: usize) -> bool {
    while body.len() < count {
        let frame = peer.next().await.expect("more of the body");
        if (frame.kind, frame.stream) == (kind::DATA, stream) {
            body.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                return true;
            }
        }
    }
    peer.wire.send(kind::PING, 0, 0, b"until it").await;
    loop {
        let frame = peer.next().await.expect("the answer to a PING");
        match frame.kind {
            kind::PING => return false,
            kind::DATA => {
                body.extend_from_slice(&frame.payload);
                if frame.flags & END_STREAM != 0 {
                    return true;
                }
            }
            _ => {}
        }
    }
}

async fn upload((what, settings, play, count): Upload<'_>) {
    let stage = Stage::new(settings, vec![play]);
    let mut wire = stage.wire().await;
    // The second time Doorward knows the windows when the call begins.
    for _ in 0..2 {
        let answer = wire.call_with(request("/demo.v1.Echo/R0", &[]), bytes(count), None).await;
        let seen = (answer.refusal(), answer.field("x-count"), answer.field("x-same"));
        assert_eq!(seen, (owned(OK), Some(&*count.to_string()), Some("yes")), "{what}: {answer:?}");
    }
    assert_eq!(stage.opened(), 1, "{what}");
}

const fn window(size: u32) -> (u16, u32) {
    (setting::INITIAL_WINDOW_SIZE, size)
}

#[tokio::test]
async fn uploads_pass_whole_through_windows_of_any_size() {
    let uploads: [Upload<'_>; 8] = [
        ("the usual windows", &[], reading(), 1 << 20),
        ("windows of 10 bytes", &[window(10)], reading(), 5_000),
        ("windows of 1000 bytes", &[window(1000)], reading(), 1 << 20),
        ("windows of a byte", &[window(1)], reading(), 300),
        ("a stream's window larger than all", &[window(1 << 20)], reading(), 1 << 20),
        ("the largest windows", &[window((1 << 31) - 1)], reading(), 1 << 20),
        ("frames of up to 64 KiB", &[window(1 << 20), (setting::MAX_FRAME_SIZE, 65_536)], reading(), 1 << 20),
        ("frames of up to 16 MiB", &[window(1 << 20), (setting::MAX_FRAME_SIZE, (1 << 24) - 1)], reading(), 1 << 20),
    ];
    for each in uploads {
        upload(each).await;
    }
}

#[tokio::test]
async fn windows_that_change_under_an_upload_are_kept() {
    // Nothing at first, then by SETTINGS a little, then by WINDOW_UPDATE the rest.
    let from_nothing = play(|peer, stream| {
        Box::pin(async move {
            let mut body = Vec::new();
            // A first look, at what may come before window has been heard of: nothing.
            assert!(!read_until(peer, stream, &mut body, 0).await);
            assert_eq!(body.len(), 0);
            peer.settle(&[window(1000)]).await.iter().for_each(|data| body.extend_from_slice(&data.payload));
            assert!(!read_until(peer, stream, &mut body, 1000).await);
            peer.give(stream, 19_000).await;
            while body.len() < 20_000 {
                assert!(!read_until(peer, stream, &mut body, 20_000).await || body.len() == 20_000);
            }
            peer.settings(&[window(0)]).await;
            peer.give(0, 20_000).await;
            answer(peer, stream, body).await;
        })
    });
    upload(("a window of nothing", &[window(0)], from_nothing, 20_000)).await;
    // Below nothing: what has been sent already is more than the new window.
    let below_nothing = play(|peer, stream| {
        Box::pin(async move {
            let mut body = Vec::new();
            read_until(peer, stream, &mut body, 5000).await;
            peer.settle(&[window(100)]).await.iter().for_each(|data| body.extend_from_slice(&data.payload));
            let sent = body.len();
            assert_eq!(sent, 5000);
            peer.give(stream, 4900).await; // which makes it 0
            read_until(peer, stream, &mut body, 0).await;
            assert_eq!(body.len(), sent, "there is no window");
            peer.give(stream, 1).await;
            read_until(peer, stream, &mut body, sent + 1).await;
            assert_eq!(body.len(), sent + 1);
            // Down again, and up by SETTINGS alone.
            peer.settle(&[window(0)]).await;
            read_until(peer, stream, &mut body, 0).await;
            assert_eq!(body.len(), sent + 1, "there is no window");
            peer.settings(&[window(5000)]).await;
            read_until(peer, stream, &mut body, sent + 1 + 4900).await;
            peer.give(stream, 15_000).await;
            while body.len() < 20_000 {
                read_until(peer, stream, &mut body, 20_000).await;
            }
            peer.give(0, 20_000).await;
            answer(peer, stream, body).await;
        })
    });
    upload(("a window below nothing", &[window(5000)], below_nothing, 20_000)).await;
}

#[tokio::test]
async fn frames_are_no_larger_than_the_upstream_wants_them_also_when_it_changes_its_mind() {
    let shrinking = play(|peer, stream| {
        Box::pin(async move {
            let frame_size = |size: u32| [(setting::MAX_FRAME_SIZE, size)];
            let mut body = Vec::new();
            for size in [65_536, 16_384, 20_000, 16_384] {
                // The service looks at each frame; what is larger must have come before this is acknowledged.
                peer.settle(&frame_size(size)).await.iter().for_each(|data| body.extend_from_slice(&data.payload));
                peer.give(0, 65_535).await;
                let some_more = (body.len() + 65_535).min(500_000);
                read_until(peer, stream, &mut body, some_more).await;
            }
            peer.give(0, 500_000).await;
            while body.len() < 500_000 {
                read_until(peer, stream, &mut body, 500_000).await;
            }
            answer(peer, stream, body).await;
        })
    });
    upload(("frames of changing sizes", &[window(1 << 20)], shrinking, 500_000)).await;
}

#[tokio::test]
async fn the_end_of_a_request_needs_no_window() {
    for with_trailers in [false, true] {
        let stage = Stage::new(
            &[window(1000)],
            vec![play(|peer, stream| {
                Box::pin(async move {
                    let mut frames = 0;
                    while let Some(frame) = peer.next().await {
                        frames += frame.payload.len();
                        if frame.stream == stream && frame.flags & END_STREAM != 0 && matches!(frame.kind, kind::DATA | kind::HEADERS) {
                            assert_eq!(frame.kind == kind::HEADERS, peer.field(stream, "x-trailer").is_some());
                            break;
                        }
                    }
                    assert!(frames >= 1000);
                    peer.give(0, 1000).await;
                    peer.burst(&ok(stream)).await;
                })
            })],
        );
        let mut wire = stage.wire().await;
        for _ in 0..3 {
            let (answer, mut stream) = wire.open(request("/demo.v1.Echo/R0", &[])).await.unwrap();
            stream.send_data(bytes(1000), false).unwrap();
            // The last byte of window is used when the end comes.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if with_trailers {
                stream.send_trailers(http::HeaderMap::from_iter([("x-trailer".parse().unwrap(), "1".parse().unwrap())])).unwrap();
            } else {
                stream.send_data(Bytes::new(), true).unwrap();
            }
            assert_eq!(answer.await.refusal(), owned(OK), "trailers: {with_trailers}");
        }
    }
}

#[tokio::test]
async fn when_the_connections_window_opens_again_all_uploads_that_wait_for_it_go_on() {
    const UPLOADS: usize = 5;
    const EACH: usize = 200_000;
    let begun = Arc::new(AtomicBool::new(false));
    let seen = begun.clone();
    // Window of the connection is given in parts, and only when none is left.
    let stage = Stage::new(
        &[window(1 << 20)],
        vec![play(move |peer, first| {
            seen.store(true, Ordering::Relaxed);
            Box::pin(async move {
                let mut come = HashMap::from([(first, 0)]);
                let mut whole = 0;
                let mut others = None;
                while whole < UPLOADS {
                    let frame = peer.next().await.expect("more of the bodies");
                    if frame.kind == kind::HEADERS {
                        come.insert(frame.stream, 0);
                    }
                    if frame.kind == kind::DATA {
                        *come.get_mut(&frame.stream).unwrap() += frame.payload.len();
                        if frame.flags & END_STREAM != 0 {
                            others = others.or_else(|| Some(come.values().filter(|bytes| **bytes > 0).count()));
                            whole += 1;
                            peer.burst(&ok(frame.stream)).await;
                        }
                    }
                    // The first has used up what there was before the others came.
                    if peer.given == 0 && come.len() == UPLOADS {
                        peer.give(0, 40_000).await;
                    }
                }
                assert!(come.values().all(|bytes| *bytes == EACH), "{come:?}");
                assert_eq!(others, Some(UPLOADS), "each has had some of the window before the first was whole");
            })
        })],
    );
    let mut wires = Vec::new();
    let mut answers = Vec::new();
    for number in 0..UPLOADS {
        let mut wire = stage.wire().await;
        let method = if number == 0 { "R0" } else { "Unary" };
        let (answer, mut stream) = wire.open(request(&format!("/demo.v1.Echo/{method}"), &[])).await.unwrap();
        stream.send_data(bytes(EACH), true).unwrap();
        answers.push(tokio::spawn(answer));
        wires.push(wire);
        until("the first upload", || begun.load(Ordering::Relaxed)).await;
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().refusal(), owned(OK));
    }
}

#[tokio::test]
async fn an_upload_without_window_of_its_own_takes_none_from_others() {
    // One stream is never given any more; the connection's window, which is the usual one, stays for the others.
    let stage = Stage::new(&[], vec![play(|_, _| Box::pin(async {})), reading()]);
    let mut stuck = stage.wire().await;
    let (_answer, mut stream) = stuck.open(request("/demo.v1.Echo/R0", &[])).await.unwrap();
    stream.send_data(bytes(60_000), false).unwrap();
    let mut wire = stage.wire().await;
    for _ in 0..5 {
        let answer = wire.call_with(request("/demo.v1.Echo/R1", &[]), bytes(100_000), None).await;
        assert_eq!((answer.refusal(), answer.field("x-same")), (owned(OK), Some("yes")));
    }
}

#[tokio::test]
async fn what_an_upload_that_ended_had_reserved_is_there_for_others() {
    // Uploads that are cancelled while they wait for the connection's window, again and again.
    let stage = Stage::new(
        &[window(1 << 20)],
        vec![
            play(|peer, stream| {
                Box::pin(async move {
                    // Gives nothing until the reset.
                    peer.reset(stream).await;
                    let taken = peer.bodies[&stream].bytes.len();
                    peer.give(0, taken.max(1)).await;
                })
            }),
            reading(),
        ],
    );
    let mut wire = stage.wire().await;
    for round in 0..5 {
        let (answer, mut stream) = wire.open(request("/demo.v1.Echo/R0", &[])).await.unwrap();
        stream.send_data(bytes(300_000), false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        let answer = wire.call_with(request("/demo.v1.Echo/R1", &[]), bytes(200_000), None).await;
        assert_eq!((answer.refusal(), answer.field("x-same")), (owned(OK), Some("yes")), "round {round}");
    }
}

#[tokio::test]
async fn a_window_that_overflows_under_an_upload_ends_its_call() {
    const MOST: u32 = (1 << 31) - 1;
    // (what, what comes, whether that is an error of the connection)
    let rows: [(&str, Play, bool); 3] = [
        ("WINDOW_UPDATE of the stream", sends(|s| [head(s), window_update(s, MOST)].concat()), false),
        ("WINDOW_UPDATE of the stream, before a head", sends(|s| window_update(s, MOST)), false),
        (
            "INITIAL_WINDOW_SIZE and what the stream has beside it",
            sends(|s| [window_update(s, MOST - 70_000), settings_frame(&[window(100_000)])].concat()),
            true,
        ),
    ];
    let stage = Stage::new(&[], rows.iter().map(|row| row.1.clone()).collect());
    let (mut wire, mut other) = (stage.wire().await, stage.wire().await);
    for (number, (what, _, whole)) in rows.iter().enumerate() {
        let (held, _request) = hold(&mut other).await;
        let (answer, _upload) = wire.open(request(&format!("/demo.v1.Echo/R{number}"), &[("grpc-timeout", "20S")])).await.unwrap();
        let (own, others) = if *whole { (&[RESET, LOST][..], LOST) } else { (&[RESET][..], OK) };
        let answer = answer.await.refusal();
        assert!(own.iter().any(|own| owned(*own) == answer), "{what}: {answer:?}");
        assert_eq!(wire.call(request("/demo.v1.Echo/After", &[])).await.refusal(), owned(OK), "{what}");
        assert_eq!(WireAnswer::rest(held).await.refusal(), owned(others), "{what}");
    }
}
