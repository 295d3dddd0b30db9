//! ONE CALL, start to finish: the product. Each line of `serve_call` is a phase, each phase one call into one room; the
//! order of the phases is the interface's order of refusals, so that nobody unauthenticated can probe what exists.
//!
//! Rooms decide; this file only sequences and answers. [`call`] answers, `serve_call` uses `?`.

use crate::authentication::{self, Authenticated, Authenticator, Failure};
use crate::authorization::{Denied, Permit, Policy};
use crate::drain::{Drain, LocalEnd};
use crate::grpc::{Code, MethodPath, parse_timeout};
use crate::http2::{HeaderLimits, Unacceptable};
use crate::identity::Identity;
use crate::identity_headers::IdentityHeaders;
use crate::refusal::{Refusal, Status};
use crate::telemetry::{AuthKind, CacheOutcome, CallRecord, Limit, RequestIds, RouteMetrics, Telemetry};
use crate::tls::PeerCertificate;
use crate::upstream::{ClientStream, Ended, Finished, Passage, Pool, forward};
use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Uri};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Everything one configuration generation decides with. A call takes one snapshot and keeps it to its end.
pub struct Generation {
    /// Who is calling.
    pub authenticator: Authenticator,
    /// May they.
    pub policy: Arc<Policy>,
    /// What the upstream is told.
    pub identity_headers: Arc<IdentityHeaders>,
    /// Our own header limits.
    pub limits: HeaderLimits,
    /// Keep `authorization` and the API-key header on the way to the upstream.
    pub forward_credentials: bool,
    /// `authentication.insecure_audit`.
    pub insecure_audit: bool,
    /// Towards the upstream.
    pub upstream_scheme: Scheme,
    /// Sent when the client names none.
    pub upstream_authority: Authority,
    /// Counters of the policy's routes.
    pub routes: Arc<RouteMetrics>,
    /// Where records go.
    pub telemetry: Arc<Telemetry>,
}

/// What one worker thread carries its calls with.
pub struct Proxy {
    /// The generation that new calls use.
    pub generation: Arc<ArcSwap<Generation>>,
    /// This worker's connections to the upstream.
    pub pool: Rc<Pool>,
    /// How far down we are.
    pub drain: Drain,
    /// When what is left ends.
    pub end: LocalEnd,
    /// This worker's ids.
    pub request_ids: RequestIds,
}

/// How a call ended, as its connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client got an answer, whosever it was.
    Answered,
    /// The client reset the stream, or is gone.
    ClientGone,
}

/// Carries one call from its request head to the end of its answer.
///
/// `certificate` is the verified one of its connection.
pub async fn call(
    proxy: Rc<Proxy>,
    peer: Option<SocketAddr>,
    certificate: Option<Rc<PeerCertificate>>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Ending {
    let generation = proxy.generation.load_full();
    let mut record = CallRecord::begin(generation.telemetry.clone(), proxy.request_ids.next(), peer, std::time::Instant::now());
    let (head, body) = request.into_parts();
    let mut client = ClientStream::new(body, respond);
    let outcome = tokio::select! {
        biased;
        outcome = serve_call(&proxy, &generation, Request::from_parts(head, ()), certificate.as_deref(), &mut client, &mut record) => outcome,
        // What is left when the drain's time is up.
        () = proxy.end.reached() => Err(NotServed::Refused(Refusal::Draining)),
    };
    record.bytes_in(client.bytes_in());
    match outcome {
        Ok(finished) => {
            record.bytes_out(finished.bytes_out);
            record.finish(finished.code);
        }
        Err(NotServed::Refused(refusal)) => refuse(&refusal, &mut client, record),
        Err(NotServed::Malformed) => {
            client.reset(Reason::PROTOCOL_ERROR);
            record.refused("REQUEST_MALFORMED", None);
            record.finish(Code::Internal);
        }
        Err(NotServed::ClientGone) => {
            record.finish(Code::Cancelled);
            return Ending::ClientGone;
        }
    }
    Ending::Answered
}

/// Why the upstream's own answer was not passed on.
enum NotServed {
    /// We answer.
    Refused(Refusal),
    /// Malformed in the sense of RFC 9113 §8.1.1: the stream is reset.
    Malformed,
    /// The client reset the stream or is gone.
    ClientGone,
}

impl From<Refusal> for NotServed {
    fn from(refusal: Refusal) -> NotServed {
        NotServed::Refused(refusal)
    }
}

/// The phases of a call. The order is a security decision: see the module.
async fn serve_call(
    proxy: &Proxy,
    generation: &Generation,
    mut request: Request<()>,
    certificate: Option<&PeerCertificate>,
    client: &mut ClientStream,
    record: &mut CallRecord,
) -> Result<Finished, NotServed> {
    let arrived = Instant::now();
    note_client(record, request.headers());
    check_headers(generation, &request)?;
    check_http(&request)?;
    let path = MethodPath::from_uri(request.uri()).ok_or(Refusal::MethodMalformed)?;
    record.method(&path);
    let deadline = read_deadline(request.headers(), arrived)?;
    check_drain(&proxy.drain)?;
    let route = generation.policy.route(&path);
    record.route(&generation.routes, route.index());
    // A public method is never looked at: no credential is read, none forwarded, no identity written.
    let admitted = match generation.policy.permit_public(route) {
        Some(permit) => Admitted { permit, caller: None, public: true },
        None => {
            let admission = admit(generation, route, request.headers(), certificate, deadline, record);
            client.unless_gone(admission).await.unwrap_or(Err(NotServed::ClientGone))?
        }
    };
    rewrite(generation, &mut request, &path, &admitted)?;
    let scrub = |trailers: &mut HeaderMap| {
        generation.identity_headers.remove(trailers);
        generation.authenticator.remove_credentials(trailers);
    };
    let passage = Passage { pool: &proxy.pool, limits: generation.limits, scrub: &scrub, deadline, record };
    let ended = forward(admitted.permit, passage, request, client).await;
    record.upstream_ended();
    ended.map_err(|ended| not_served(generation, ended))
}

fn note_client(record: &mut CallRecord, headers: &HeaderMap) {
    if let Some(user_agent) = headers.get(USER_AGENT) {
        record.user_agent(user_agent);
    }
    if let Some(traceparent) = headers.get("traceparent") {
        record.traceparent(traceparent);
    }
}

/// 431, and what RFC 9113 calls malformed but h2 lets through.
fn check_headers(generation: &Generation, request: &Request<()>) -> Result<(), NotServed> {
    generation.limits.examine_request(request).map_err(|why| {
        count_unacceptable(generation, why);
        match why {
            Unacceptable::Bytes | Unacceptable::Fields => NotServed::Refused(Refusal::HeadersTooLarge(why)),
            Unacceptable::Malformed => NotServed::Malformed,
        }
    })?;
    // §8.3.1: no userinfo in the authority; and two `host` fields contradict each other.
    let userinfo = request.uri().authority().is_some_and(|authority| authority.as_str().contains('@'));
    if userinfo || request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(NotServed::Malformed);
    }
    Ok(())
}

fn count_unacceptable(generation: &Generation, why: Unacceptable) {
    let hits = &generation.telemetry.metrics.limit_hits;
    match why {
        Unacceptable::Bytes => hits.inc(Limit::HeaderBytes),
        Unacceptable::Fields => hits.inc(Limit::HeaderFields),
        Unacceptable::Malformed => {}
    }
}

/// 405 and 415: what is no gRPC request at all.
fn check_http(request: &Request<()>) -> Result<(), Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::NotPost);
    }
    let mut types = request.headers().get_all(CONTENT_TYPE).iter();
    let is_grpc = types.next().is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    if is_grpc && types.next().is_none() { Ok(()) } else { Err(Refusal::NotGrpc) }
}

/// The moment `grpc-timeout` names; `None` without one, or when it is farther than a clock can tell.
fn read_deadline(headers: &HeaderMap, arrived: Instant) -> Result<Option<Instant>, Refusal> {
    let mut timeouts = headers.get_all("grpc-timeout").iter();
    let Some(timeout) = timeouts.next() else { return Ok(None) };
    if timeouts.next().is_some() {
        return Err(Refusal::TimeoutMalformed);
    }
    let timeout = parse_timeout(timeout.as_bytes()).map_err(|_| Refusal::TimeoutMalformed)?;
    /// Longer than any call; tokio's timers end at some years.
    const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
    Ok((timeout < FOREVER).then(|| arrived + timeout))
}

fn check_drain(drain: &Drain) -> Result<(), Refusal> {
    if drain.is_refusing() { Err(Refusal::Draining) } else { Ok(()) }
}

/// A call that may be forwarded, and as whom.
struct Admitted {
    permit: Permit,
    caller: Option<Authenticated>,
    public: bool,
}

/// Authentication, then authorization.
async fn admit(
    generation: &Generation,
    route: crate::authorization::Route,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    deadline: Option<Instant>,
    record: &mut CallRecord,
) -> Result<Admitted, NotServed> {
    let authenticated = match authenticate(generation, headers, certificate, deadline, record).await? {
        Ok(authenticated) => authenticated,
        Err(failure) if generation.insecure_audit => {
            let refusal = Refusal::Authentication(failure);
            record.audited(refusal.answer().reason, refusal.detail());
            return Ok(Admitted { permit: Permit::insecure_authentication_audit(), caller: None, public: false });
        }
        Err(failure) => return Err(Refusal::Authentication(failure).into()),
    };
    let caller = authenticated.caller.as_deref().map(|caller| (&caller.identity, &caller.grants));
    let permit = match generation.policy.authorize(route, caller) {
        // A refusal of authentication all the same, though only the rule shows that a credential is needed.
        Err(denied @ Denied::CredentialsMissing) if generation.insecure_audit => {
            let refusal = Refusal::Authorization(denied);
            record.audited(refusal.answer().reason, refusal.detail());
            return Ok(Admitted { permit: Permit::insecure_authentication_audit(), caller: None, public: false });
        }
        decided => decided.map_err(Refusal::Authorization)?,
    };
    match permit.audited().cloned().map(Refusal::Authorization) {
        Some(refusal) => record.audited(refusal.answer().reason, refusal.detail()),
        None => record.authorized(),
    }
    Ok(Admitted { permit, caller: Some(authenticated), public: false })
}

/// The warm path never waits; a wait for a key set ends with the call's deadline.
async fn authenticate(
    generation: &Generation,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    deadline: Option<Instant>,
    record: &mut CallRecord,
) -> Result<Result<Authenticated, Failure>, Refusal> {
    let authenticator = &generation.authenticator;
    let verdict = authenticator.authenticate(headers, certificate, SystemTime::now());
    let verdict = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, verdict).await.map_err(|_| Refusal::Deadline)?,
        None => verdict.await,
    };
    let token_cache = &generation.telemetry.metrics.token_cache;
    match &verdict {
        Ok(Authenticated { caller: Some(caller), cache }) => {
            record.authenticated(authenticator.presented(headers, certificate), &caller.identity);
            match cache {
                authentication::CacheOutcome::Hit => token_cache.inc(CacheOutcome::Hit),
                authentication::CacheOutcome::Miss => token_cache.inc(CacheOutcome::Miss),
                authentication::CacheOutcome::Unused => {}
            }
        }
        Ok(Authenticated { caller: None, .. }) => record.authenticated(AuthKind::NONE, &Identity::default()),
        Err(failure) => record.presented(authenticator.presented(headers, certificate), failure.provider.as_ref()),
    }
    Ok(verdict)
}

/// Makes the request that the upstream sees of the one the client sent, in place.
fn rewrite(generation: &Generation, request: &mut Request<()>, path: &MethodPath, admitted: &Admitted) -> Result<(), NotServed> {
    let authority = authority(request, &generation.upstream_authority)?;
    let uri = Uri::builder().scheme(generation.upstream_scheme.clone()).authority(authority);
    // The very bytes that were authorised.
    let uri = uri.path_and_query(path.path_and_query().clone()).build().map_err(|_| NotServed::Malformed)?;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.remove(HOST);
    // First every header we own, in any spelling, in every mode; then ours.
    generation.identity_headers.remove(headers);
    if admitted.public || !generation.forward_credentials {
        generation.authenticator.remove_credentials(headers);
    }
    if let Some(caller) = admitted.caller.as_ref().and_then(|authenticated| authenticated.caller.as_ref()) {
        caller.headers.write(headers);
    }
    Ok(())
}

/// The client's `:authority`; else its single `host`; else the upstream's address.
fn authority(request: &Request<()>, upstream: &Authority) -> Result<Authority, NotServed> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    match request.headers().get(HOST) {
        None => Ok(upstream.clone()),
        Some(host) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if !host.as_str().contains('@') => Ok(host),
            _ => Err(NotServed::Malformed),
        },
    }
}

fn not_served(generation: &Generation, ended: Ended) -> NotServed {
    if let Ended::Headers(why) = &ended {
        count_unacceptable(generation, *why);
    }
    NotServed::Refused(match ended {
        Ended::Unreachable(why) => Refusal::UpstreamUnavailable(why.0.to_string()),
        Ended::Lost(why) => Refusal::UpstreamUnavailable(why),
        Ended::Reset(reason) => Refusal::UpstreamReset(reason),
        Ended::Headers(why) => Refusal::UpstreamHeaders(why),
        Ended::Deadline => Refusal::Deadline,
        Ended::ClientGone => return NotServed::ClientGone,
        Ended::ClientMalformed => return NotServed::Malformed,
    })
}

/// The one place that answers a refusal: trailers-only while nothing has been sent, trailers afterwards. An error while
/// sending means that the client is gone.
fn refuse(refusal: &Refusal, client: &mut ClientStream, mut record: CallRecord) {
    let answer = refusal.answer();
    let request_id = record.request_id();
    if client.has_begun() {
        let _ = client.trailers(refusal.trailers(request_id));
    } else {
        let (response, text) = refusal.response(request_id);
        let _ = client.head(response, text.is_none());
        if let Some(text) = text {
            client.text(text);
        }
    }
    record.refused(answer.reason, refusal.detail());
    let code = match answer.status {
        Status::Grpc(code) => code,
        http @ Status::Http(_) => http.code(),
    };
    record.finish(code);
}
