//! A load generator whose every call presents another credential, which h2load cannot do.

use crate::rig::client::{Credential, call, connect, uri};
use crate::rig::{BODY, METHOD};
use bytes::Bytes;
use h2::client::SendRequest;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 8;
/// On each connection.
const CALLS_AT_A_TIME: usize = 16;

/// As the result page says it.
pub const SHAPE: &str = "8 connections with 16 calls at a time";

/// What is sent with each call, and the grpc-status that has to come back.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    message: &'static [u8],
    status: &'static str,
}

/// A call that reaches the service.
pub const ANSWERED: Expected = Expected { message: BODY, status: "0" };
/// A call that must not. Who only wants to cost something sends no message.
pub const REFUSED: Expected = Expected { message: b"", status: "16" };

/// One call for each of `credentials`. Returns how many connections it took beyond the first ones, as the proxy ended those.
/// Ends the program when a call is not answered as expected.
pub fn run(port: u16, tls: &TlsConnector, credentials: impl Iterator<Item = Credential> + 'static, expected: Expected) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let calls = Rc::new(RefCell::new(Calls { first: Box::new(credentials), again: Vec::new() }));
    runtime.block_on(LocalSet::new().run_until(async {
        let lines: Vec<_> = (0..CONNECTIONS).map(|_| line(port, tls, &calls, expected)).collect();
        let mut connections = 0;
        for line in lines.into_iter().map(spawn_local).collect::<Vec<_>>() {
            connections += line.await.expect("calls that are answered as they should be");
        }
        connections - CONNECTIONS
    }))
}

/// The calls still to be made.
struct Calls {
    first: Box<dyn Iterator<Item = Credential>>,
    /// Their connection ended before the answer.
    again: Vec<Credential>,
}

impl Calls {
    fn next(&mut self) -> Option<Credential> {
        self.again.pop().or_else(|| self.first.next())
    }
}

/// Makes calls on one connection, and on another one when that is ended, until none is left; how many connections it took.
fn line(port: u16, tls: &TlsConnector, calls: &Rc<RefCell<Calls>>, expected: Expected) -> impl Future<Output = usize> + use<> {
    let (tls, calls) = (tls.clone(), calls.clone());
    async move {
        let mut connections = 0;
        loop {
            let client = connect(port, &tls).await;
            connections += 1;
            let callers: Vec<_> = (0..CALLS_AT_A_TIME).map(|_| spawn_local(caller(client.clone(), calls.clone(), expected))).collect();
            let mut ended = false;
            for caller in callers {
                ended |= !caller.await.expect("calls that are answered as they should be");
            }
            if !ended {
                return connections;
            }
        }
    }
}

/// Makes one call after the other until none is left: `false` when the connection was ended before.
async fn caller(client: SendRequest<Bytes>, calls: Rc<RefCell<Calls>>, expected: Expected) -> bool {
    let uri = uri(METHOD);
    loop {
        let Some(credential) = calls.borrow_mut().next() else { return true };
        match call(&client, &uri, Some(&credential), expected.message).await {
            Ok((status, _)) => assert_eq!(status, expected.status, "grpc-status"),
            Err(_) => {
                calls.borrow_mut().again.push(credential);
                return false;
            }
        }
    }
}
