//! Flow control towards us: what is read is given back to the last byte, to streams and connection; who sends beyond it is cut off.

use super::*;
use crate::harness::frames::PADDED;
use bytes::Bytes;
use h2::Reason;

/// Calls of one client connection that go on the connection all share; what comes beyond has its own, with a window.
const SHARE: usize = 32;
const STREAM_WINDOW: usize = ::doorward::http2::UPSTREAM_STREAM_WINDOW as usize;

/// Sends so many bytes as exactly as the windows allow, so many a frame, each with this much padding.
fn download(bytes: usize, each: usize, padding: u8) -> Play {
    play(move |peer, stream| {
        Box::pin(async move {
            peer.burst(&head(stream)).await;
            let mut left = bytes;
            while left > 0 {
                let now = left.min(each);
                let filled = vec![b'x'; now];
                let sent = match padding {
                    0 => peer.data(0, stream, &filled).await,
                    padding => peer.data(PADDED, stream, &[&[padding][..], &filled, &vec![0; usize::from(padding)]].concat()).await,
                };
                if !sent {
                    return;
                }
                left -= now;
            }
            peer.end(stream).await;
        })
    })
}

#[tokio::test]
async fn window_comes_back_to_the_last_byte_also_of_padding() {
    let downloads: [(&str, usize, usize, u8); 6] = [
        ("frames as large as they may be", 4 << 20, 16_384, 0),
        ("frames that fill no window evenly", 1 << 20, 7919, 0),
        ("frames of one byte", 100_000, 1, 0),
        ("padding", 1 << 20, 1000, 255),
        ("more padding than data", 10_000, 1, 255),
        ("frames as large as they may be, with padding", 1 << 20, 16_384 - 256, 255),
    ];
    let stage = Stage::new(&[], downloads.iter().map(|(_, bytes, each, padding)| download(*bytes, *each, *padding)).collect());
    // The client's library takes many small frames for an attack, unless told otherwise.
    let mut wire = Wire::connect_with(&stage.doorward, h2::client::Builder::new().data_frame_budget(1 << 30)).await;
    for (number, (what, bytes, _, _)) in downloads.iter().enumerate() {
        let answer = wire.call(request(&format!("/demo.v1.Echo/R{number}"), &[])).await;
        assert_eq!((answer.refusal(), answer.body.len(), answer.error), (owned(OK), *bytes, None), "{what}");
    }
    assert_eq!(stage.opened(), 1);
}

#[tokio::test]
async fn frames_of_nothing_but_padding_take_no_window_for_good() {
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                peer.burst(&head(stream)).await;
                // Most of a stream's window, in fewer empty frames than are taken for a flood; then as much as has room only with it.
                for _ in 0..90 {
                    peer.data(PADDED, stream, &[&[255][..], &[0; 255]].concat()).await;
                }
                for _ in 0..4 {
                    peer.data(0, stream, &[0; 16_384]).await;
                }
                peer.end(stream).await;
            })
        })],
    );
    assert_eq!(stage.wire().await.call(request("/demo.v1.Echo/R0", &[("grpc-timeout", "30S")])).await.refusal(), owned(OK));
}

/// A client whose calls take nothing: every byte waits with Doorward.
async fn unreading(stage: &Stage) -> Wire {
    let mut windows = h2::client::Builder::new();
    windows.initial_window_size(0);
    Wire::connect_with(&stage.doorward, &windows).await
}

/// A call whose body nobody reads.
async fn unread(wire: &mut Wire, method: &str) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let mut ready = wire.send.clone().ready().await.unwrap();
    let (response, stream) = ready.send_request(request(&format!("/demo.v1.Echo/{method}"), &[]), false).unwrap();
    (tokio::time::timeout(PATIENCE, response).await.expect("its head, in time").unwrap(), stream)
}

#[tokio::test]
async fn who_sends_beyond_a_streams_window_is_cut_off() {
    // A window's worth is taken; one byte more is not.
    let exactly = play(|peer, stream| {
        Box::pin(async move {
            peer.burst(&head(stream)).await;
            let room = usize::try_from(peer.takes(stream)).unwrap();
            for part in vec![b'x'; room].chunks(16_384) {
                peer.data(0, stream, part).await;
            }
            assert!(peer.seen().await, "the connection lives");
            assert!(peer.bodies[&stream].reset.is_none(), "all of it had room");
            peer.burst(&frame(kind::DATA, 0, stream, b"x")).await;
            peer.reset(stream).await;
        })
    });
    let stage = Stage::new(&[], vec![exactly]);
    let mut wire = unreading(&stage).await;
    let mut other = stage.wire().await;
    let (response, _request) = unread(&mut wire, "R0").await;
    let mut body = response.into_body();
    // It has failed as soon as Doorward has seen that byte, which the client learns in one way or another: a status, or a reset.
    let serve = other.call(request("/demo.v1.Echo/Unary", &[])).await;
    assert_eq!(serve.refusal(), owned(OK));
    body.flow_control().release_capacity(0).unwrap();
    eventually("its failure", || {
        let lines = stage.doorward.access_log();
        lines.iter().any(|line| line["grpc.method"] == "R0" && line["reason"] == "UPSTREAM_RESET").then_some(())
    });
    assert_eq!(stage.opened(), 1);
}

#[tokio::test]
async fn who_sends_beyond_the_window_of_a_clients_own_connection_loses_it() {
    // Each stream of it has room, all together have not.
    let beyond = play(|peer, stream| {
        Box::pin(async move {
            peer.burst(&head(stream)).await;
            while peer.window > 0 && peer.initial + peer.windows.get(&stream).copied().unwrap_or_default() > 0 {
                let room = usize::try_from(peer.takes(stream)).unwrap();
                peer.data(0, stream, &vec![b'x'; room.min(16_384)]).await;
            }
            if peer.window == 0 {
                assert!(peer.seen().await, "all that was sent had room");
                peer.burst(&frame(kind::DATA, 0, stream, b"x")).await;
            }
        })
    });
    let stage = Stage::new(&[], vec![beyond]);
    let mut other = stage.wire().await;
    let (held, _request) = hold(&mut other).await;
    let mut wire = unreading(&stage).await;
    let mut calls = Vec::new();
    for _ in 0..SHARE {
        calls.push(unread(&mut wire, "Held").await);
    }
    // The last of them finds none of the connection's window left once it has used its own.
    const CALLS: usize = ::doorward::http2::OWN_CONNECTION_WINDOW as usize / STREAM_WINDOW;
    for number in 0..CALLS {
        let mut ready = wire.send.clone().ready().await.unwrap();
        let (response, stream) = ready.send_request(request("/demo.v1.Echo/R0", &[]), false).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.expect("its head, in time").unwrap();
        assert_eq!(response.status(), 200, "call {number}");
        calls.push((response, stream));
    }
    stage.ended(1).await;
    assert_eq!(stage.opened(), 2, "the shared one and its own");
    eventually("the loss of all calls on it", || {
        let lines = stage.doorward.access_log();
        let lost = lines.iter().filter(|line| line["grpc.method"] == "R0" && line["reason"] == "UPSTREAM_UNAVAILABLE").count();
        (lost == CALLS).then_some(())
    });
    assert_eq!(other.call(request("/demo.v1.Echo/Unary", &[])).await.refusal(), owned(OK));
    drop(held);
    drop(calls);
}

#[tokio::test]
async fn what_comes_for_calls_that_were_given_up_uses_up_no_window() {
    // On the client's own connection, whose window is seventeen of a stream's: more of it than there is, in each of these ways.
    const ROUNDS: usize = 60;
    // A window's worth on each; and once more after the reset, as if it had been under way.
    let stage = Stage::new(
        &[],
        vec![play(|peer, stream| {
            Box::pin(async move {
                peer.burst(&head(stream)).await;
                for _ in 0..STREAM_WINDOW / 8192 / 2 {
                    peer.data(0, stream, &[b'x'; 8192]).await;
                }
                peer.reset(stream).await.expect("its reset");
                for _ in 0..STREAM_WINDOW / 8192 / 2 {
                    while peer.window < 8192 {
                        peer.next().await.expect("window comes back");
                    }
                    peer.burst(&frame(kind::DATA, PADDED, stream, &[&[91][..], &[b'x'; 8192 - 1]].concat())).await;
                }
            })
        })],
    );
    let mut wire = unreading(&stage).await;
    let mut held = Vec::new();
    for _ in 0..SHARE {
        held.push(unread(&mut wire, "Held").await);
    }
    for _ in 0..ROUNDS {
        let (response, mut stream) = unread(&mut wire, "R0").await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
    }
    let (response, _stream) = unread(&mut wire, "Held").await;
    drop(response);
    assert_eq!(stage.opened(), 2, "the shared one and its own");
}
