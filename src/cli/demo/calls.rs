//! The calls that the demo makes itself, as any client would: over TLS that verifies the certificate, through Doorward, and
//! compared with what each is made to show.

use super::Result;
use super::credentials::Credentials;
use super::sample_service::{DELETE_GREETING, SAY_HELLO};
use crate::config::{InputFile, Position, Problems, UpstreamTls};
use crate::grpc::{Code, frame_text, framed_text, length_delimited};
use crate::secret::Secret;
use crate::tls;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use std::fs;
use std::path::Path;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// One call and what it must come to.
struct Case<'a> {
    what: &'static str,
    method: &'static str,
    metadata: Vec<(&'static str, &'a str)>,
    expected: Expected,
}

enum Expected {
    /// With a text that ends so: nothing more was told to the service.
    Answer(&'static str),
    Refusal(Code, &'static str),
}

/// What came back.
struct Answer {
    code: Code,
    /// Of `google.rpc.ErrorInfo`.
    reason: String,
    /// `grpc-message`, or the reply's text.
    words: String,
}

/// Makes the calls over one connection, prints each with its answer, and says whether all came out as expected.
pub(super) async fn make(socket: TcpStream, port: u16, ca: &Path, credentials: &Credentials) -> Result<bool> {
    let mut client = connect(socket, ca).await?;
    let bearer = |token: &str| format!("Bearer {token}");
    let (token, expired) = (bearer(&credentials.token), bearer(&credentials.expired_token));
    let mut all = true;
    for (index, case) in cases(&token, &expired, &credentials.api_key).iter().enumerate() {
        let answer = call(&mut client, port, case).await?;
        all &= report(index + 1, case, &answer);
    }
    Ok(all)
}

fn cases<'a>(token: &'a str, expired: &'a str, api_key: &'a str) -> [Case<'a>; 7] {
    let alice = "user_id=alice user_email=alice@demo.example user_name=Alice roles=greeter permissions=greetings:read";
    let nightly = "I was told client_id=nightly-job roles=greeter permissions=greetings:read api_key_id=nightly";
    let forged = [("user_id", "root"), ("user-id", "root"), ("roles", "editor")];
    let with = |credential: (&'static str, &'a str)| vec![credential];
    let case = |what, method, metadata, expected| Case { what, method, metadata, expected };
    let refusal = Expected::Refusal;
    [
        case("SayHello with Alice's token", SAY_HELLO, with(("authorization", token)), Expected::Answer(alice)),
        case(
            "DeleteGreeting with Alice's token, who has no role for it",
            DELETE_GREETING,
            with(("authorization", token)),
            refusal(Code::PermissionDenied, "PERMISSION_MISSING"),
        ),
        case(
            "SayHello with a token of Alice's that has expired",
            SAY_HELLO,
            with(("authorization", expired)),
            refusal(Code::Unauthenticated, "TOKEN_EXPIRED"),
        ),
        case("SayHello with an API key", SAY_HELLO, with(("x-api-key", api_key)), Expected::Answer(nightly)),
        case(
            "SayHello with the API key and forged metadata: user_id: root, user-id: root, roles: editor",
            SAY_HELLO,
            forged.into_iter().chain([("x-api-key", api_key)]).collect(),
            Expected::Answer(nightly),
        ),
        case("SayHello with forged metadata alone", SAY_HELLO, forged.to_vec(), refusal(Code::Unauthenticated, "CREDENTIALS_MISSING")),
        case("SayHello without a credential", SAY_HELLO, Vec::new(), refusal(Code::Unauthenticated, "CREDENTIALS_MISSING")),
    ]
}

/// Prints one call's outcome; whether it is the expected one.
fn report(number: usize, case: &Case, answer: &Answer) -> bool {
    let outcome = match answer.code {
        Code::Ok => "allowed".to_owned(),
        code => format!("refused, {} {}", code.name(), answer.reason),
    };
    println!("{number}. {}\n   {outcome}: {}", case.what, answer.words);
    let as_expected = match &case.expected {
        Expected::Answer(end) => answer.code == Code::Ok && answer.words.ends_with(end),
        Expected::Refusal(code, reason) => answer.code == *code && answer.reason == *reason,
    };
    if !as_expected {
        match &case.expected {
            Expected::Answer(end) => println!("   NOT AS EXPECTED, which is an answer that ends in: {end}"),
            Expected::Refusal(code, reason) => println!("   NOT AS EXPECTED, which is {} {reason}", code.name()),
        }
    }
    as_expected
}

async fn connect(socket: TcpStream, ca: &Path) -> Result<SendRequest<Bytes>> {
    let at = Position::default();
    let ca = InputFile { at: at.clone(), path: ca.to_owned(), content: Secret::new(fs::read(ca)?) };
    let client = UpstreamTls { ca: Some(ca), server_name: "localhost".to_owned(), client: None };
    let (config, name) = tls::client_config(&client, &at, &mut Problems::default()).ok_or("the certificate authority is refused")?;
    let stream = TlsConnector::from(config).connect(name, socket).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    // Its end shows at the calls.
    tokio::spawn(connection);
    Ok(client)
}

async fn call(client: &mut SendRequest<Bytes>, port: u16, case: &Case<'_>) -> Result<Answer> {
    let mut request = Request::post(format!("https://localhost:{port}{}", case.method))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in &case.metadata {
        request = request.header(*name, *value);
    }
    let (response, mut sending) = client.clone().ready().await?.send_request(request.body(())?, false)?;
    sending.send_data(frame_text("world"), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut message = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        message.extend_from_slice(&chunk);
    }
    // A refusal is trailers alone, which HTTP/2 calls headers.
    Ok(answer(&body.trailers().await?.unwrap_or(head.headers), &message))
}

fn answer(trailers: &HeaderMap, message: &[u8]) -> Answer {
    let value = |name: &str| trailers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
    let code = Code::from_header(value("grpc-status"));
    let words = match code {
        Code::Ok => framed_text(message).unwrap_or("an answer that is no HelloReply").to_owned(),
        _ => String::from_utf8_lossy(value("grpc-message")).into_owned(),
    };
    Answer { code, reason: reason(value("grpc-status-details-bin")).unwrap_or_default(), words }
}

/// `google.rpc.Status.details[0]`, an `Any` whose value is an `ErrorInfo`; of that the reason.
fn reason(details: &[u8]) -> Option<String> {
    let status = STANDARD_NO_PAD.decode(details).ok()?;
    let reason = field(field(field(&status, 3)?, 2)?, 1)?;
    String::from_utf8(reason.to_vec()).ok()
}

/// The first field `number` of a message.
fn field(message: &[u8], number: u64) -> Option<&[u8]> {
    length_delimited(message).map_while(|field| field.ok()).find(|(found, _)| *found == number).map(|(_, content)| content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{ErrorInfo, encode_details, frame_text};

    fn refusal() -> Answer {
        let info = ErrorInfo { reason: "TOKEN_EXPIRED", domain: "doorward", metadata: &[("request_id", "x")] };
        let details = encode_details(Code::Unauthenticated, "expired", &info, None);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "16".parse().unwrap());
        trailers.insert("grpc-message", "expired".parse().unwrap());
        trailers.insert("grpc-status-details-bin", details.parse().unwrap());
        answer(&trailers, b"")
    }

    fn ok(words: &str) -> Answer {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        answer(&trailers, &frame_text(words))
    }

    #[test]
    fn a_refusal_is_read_to_its_reason() {
        let answer = refusal();
        assert_eq!((answer.code, answer.reason.as_str(), answer.words.as_str()), (Code::Unauthenticated, "TOKEN_EXPIRED", "expired"));
        assert_eq!(super::answer(&HeaderMap::new(), b"").code, Code::Unknown);
        assert_eq!(reason(b"no base64!"), None);
    }

    #[test]
    fn only_the_expected_answer_passes() {
        let case = |expected| Case { what: "a call", method: SAY_HELLO, metadata: Vec::new(), expected };
        let told = case(Expected::Answer("I was told user_id=alice"));
        assert!(report(1, &told, &ok("Hello! I was told user_id=alice")));
        assert!(!report(1, &told, &ok("Hello! I was told user_id=alice user_id=root")));
        assert!(!report(1, &told, &refusal()));
        assert!(report(1, &case(Expected::Refusal(Code::Unauthenticated, "TOKEN_EXPIRED")), &refusal()));
        assert!(!report(1, &case(Expected::Refusal(Code::Unauthenticated, "TOKEN_SIGNATURE")), &refusal()));
        assert!(!report(1, &case(Expected::Refusal(Code::PermissionDenied, "TOKEN_EXPIRED")), &refusal()));
        assert!(!report(1, &case(Expected::Refusal(Code::Unauthenticated, "TOKEN_EXPIRED")), &ok("Hello!")));
    }
}
