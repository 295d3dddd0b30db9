//! Whether the upstream answers, for readiness: one connection of the control thread's own, over which
//! `grpc.health.v1.Health/Check` is asked now and then; or the connection alone.

use super::connect::{Connected, Connector};
use super::http2::{Failure, Requests};
use super::own_call::OwnCall;
use crate::config::UpstreamHealth;
use crate::grpc::{Code, frame_text};
use crate::http2::OWN_CONNECTION_WINDOW;
use crate::readiness::ReadinessGuard;
use http::uri::{Authority, PathAndQuery, Scheme};
use std::sync::Arc;
use std::time::Duration;

/// How soon a failed connection is tried again: recovery must show within a second.
const RETRY: Duration = Duration::from_millis(250);

/// How often a healthy upstream is asked. Each question is a call with data of its own, so a server that counts pings
/// (too_many_pings) has nothing to object to.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often an upstream that is connected but not serving is asked.
const INTERVAL_NOT_SERVING: Duration = Duration::from_millis(500);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps `guard` true to the upstream's state until dropped. Runs on a `LocalSet`.
pub async fn watch_health(connector: Arc<Connector>, scheme: Scheme, authority: Authority, health: UpstreamHealth, guard: ReadinessGuard) {
    let mut was_ready = false;
    loop {
        match connector.connect(OWN_CONNECTION_WINDOW).await {
            Err(why) => {
                if std::mem::take(&mut was_ready) {
                    tracing::warn!(reason = %why.0, "the upstream does not answer");
                }
                guard.not_ready(why.0.to_string());
            }
            Ok(Connected { requests, driver, peer }) => {
                let connection = requests.connection().clone();
                tokio::select! {
                    _ = driver => {}
                    // Not a word about it: the next connection tells how its new address does.
                    () = connector.left_by(peer) => continue,
                    () = ask(&requests, &scheme, &authority, &health, &guard, &mut was_ready) => {}
                }
                guard.not_ready(if connection.going_away() { "it sent GOAWAY" } else { "its connection ended" });
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks over one connection until it fails.
async fn ask(
    requests: &Requests,
    scheme: &Scheme,
    authority: &Authority,
    health: &UpstreamHealth,
    guard: &ReadinessGuard,
    was_ready: &mut bool,
) {
    let UpstreamHealth::Service(service) = health else {
        guard.ready();
        return std::future::pending().await;
    };
    loop {
        let check = check(requests, scheme, authority, service);
        let pause = match tokio::time::timeout(TIMEOUT, check).await {
            Ok(Ok(Health::Serving)) => {
                if !std::mem::replace(was_ready, true) {
                    tracing::info!("the upstream answers");
                }
                guard.ready();
                INTERVAL
            }
            Ok(Ok(Health::Not(why))) => {
                *was_ready = false;
                guard.not_ready(why);
                INTERVAL_NOT_SERVING
            }
            Ok(Err(_)) => return,
            Err(_) => {
                guard.not_ready("it did not answer the health check in time");
                return;
            }
        };
        tokio::time::sleep(pause).await;
    }
}

enum Health {
    Serving,
    Not(String),
}

async fn check(requests: &Requests, scheme: &Scheme, authority: &Authority, service: &str) -> Result<Health, Failure> {
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let mut call = OwnCall::begin(requests, scheme, authority, &path).await?;
    // HealthCheckRequest { service }
    call.say(frame_text(service), true).await;
    let mut answer = Vec::new();
    while let Some(data) = call.next().await? {
        // The answer is seven bytes; whoever sends more is no health service.
        if answer.len() < 64 {
            answer.extend_from_slice(&data);
        }
    }
    Ok(verdict(call.code().await?, &answer))
}

/// UNIMPLEMENTED counts as ready: most services have no health service, and this one answered.
fn verdict(code: Code, answer: &[u8]) -> Health {
    match (code, answer) {
        (Code::Unimplemented, _) => Health::Serving,
        // HealthCheckResponse { status: SERVING }
        (Code::Ok, [0, 0, 0, 0, 2, 0x08, 0x01]) => Health::Serving,
        (Code::Ok, _) => Health::Not("its health service says NOT_SERVING".to_owned()),
        (code, _) => Health::Not(format!("its health service answered {}", code.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unimplemented_is_ready_and_not_serving_is_not() {
        let ready = |code, answer| matches!(verdict(code, answer), Health::Serving);
        assert!(ready(Code::Unimplemented, b""));
        assert!(ready(Code::Ok, b"\0\0\0\0\x02\x08\x01"));
        assert!(!ready(Code::Ok, b"\0\0\0\0\x02\x08\x02"));
        assert!(!ready(Code::NotFound, b""));
        assert!(!ready(Code::Unknown, b""));
    }
}
