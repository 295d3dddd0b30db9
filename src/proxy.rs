//! ONE CALL, start to finish: the product. Each line of `serve_call` is a phase, each phase one call into one room; the
//! order of the phases is the interface's order of refusals, so that nobody unauthenticated can probe what exists.
//!
//! Rooms decide; this file only sequences and answers. [`call`] answers, `serve_call` uses `?`.

use crate::authentication::{self, Authenticated, Authenticator, Caller, Failure, FailureKind, TokenDigests};
use crate::authorization::{Denied, Permit, Policy, Route};
use crate::bell::LocalBell;
use crate::drain::Drain;
use crate::grpc::{Code, GRPC_TIMEOUT, MethodPath, parse_timeout};
use crate::http2::{HeaderLimits, MalformedAuthority, Unacceptable, authority};
use crate::identity::Identity;
use crate::identity_headers::IdentityHeaders;
use crate::rate_limits::RateLimits;
use crate::refusal::Refusal;
use crate::telemetry::{AuthKind, CacheOutcome, CallRecord, Limit, RequestIds, RouteMetrics, Telemetry};
use crate::tls::PeerCertificate;
use crate::upstream::{ClientStream, Connector, Ended, Finished, Passage, Pool, RequestHead, forward};
use arc_swap::ArcSwap;
use h2::Reason;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request};
use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
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
    /// How often somebody may do something.
    pub rate_limits: RateLimits,
    /// Our own header limits.
    pub limits: HeaderLimits,
    /// Keep `authorization` and the API-key header on the way to the upstream.
    pub forward_credentials: bool,
    /// `authentication.insecure_audit`.
    pub insecure_audit: bool,
    /// How the upstream is reached.
    pub connector: Arc<Connector>,
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
    /// This worker's connections to the upstream of that generation.
    pub pool: RefCell<Rc<Pool>>,
    /// How far down we are.
    pub drain: Drain,
    /// Rings when something has happened that may end running calls.
    pub bell: LocalBell,
    /// Of the tokens that this worker's calls come with.
    pub digests: TokenDigests,
    /// This worker's ids.
    pub request_ids: RequestIds,
}

/// What a call keeps to its end.
struct Snapshot {
    generation: Arc<Generation>,
    pool: Rc<Pool>,
}

impl Proxy {
    /// For a call that begins now. When a reload has changed how the upstream is reached, this opens a pool
    /// of its own: calls of the generation before keep theirs, whose connections end with the last of them.
    fn snapshot(&self) -> Snapshot {
        let generation = self.generation.load_full();
        let mut pool = self.pool.borrow_mut();
        if !pool.reaches_by(&generation.connector) {
            *pool = Pool::new(generation.connector.clone(), generation.telemetry.metrics.clone());
        }
        Snapshot { generation, pool: pool.clone() }
    }
}

/// How a call ended, as its connection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client got an answer, whosever it was.
    Answered,
    /// The client reset the stream, made us reset it in mid-course, or is gone: the upstream worked for nothing.
    ClientGone,
}

/// Carries one call from its request head to the end of its answer.
///
/// `certificate` is the verified one of its connection; `arrived` is when its head had come; `ended` is told when all is done.
///
/// Calls are many and their futures are most of what they hold. A future holds each one that it awaits, an `async fn` each
/// argument twice, and once more where it is passed on: hence a block, a closure for what comes after, and a boxed request.
pub fn call(
    proxy: Rc<Proxy>,
    peer: Option<SocketAddr>,
    certificate: Option<Rc<PeerCertificate>>,
    request: Box<Request<()>>,
    mut client: ClientStream,
    arrived: Instant,
    ended: impl FnOnce(Ending),
) -> impl Future<Output = ()> {
    let snapshot = proxy.snapshot();
    let telemetry = snapshot.generation.telemetry.clone();
    let mut record = CallRecord::begin(telemetry, proxy.request_ids.next(), peer, arrived.into_std());
    async move {
        let generation = &snapshot.generation;
        let caller = OnceCell::new();
        let outcome = tokio::select! {
            biased;
            outcome = serve_call(&proxy, &snapshot, request, certificate.as_deref(), &mut client, &mut record, &caller) => outcome,
            refusal = ended_by_us(&proxy, generation, &caller) => Err(NotServed::Refused(refusal)),
        };
        record.bytes_in(client.bytes_in());
        // A request that became malformed once it was forwarded was taken back by its client, in its own way.
        let gone = matches!(outcome, Err(NotServed::ClientGone | NotServed::Malformed { forwarded: true }));
        match outcome {
            Ok(finished) => {
                record.bytes_out(finished.bytes_out);
                record.finish(finished.code);
            }
            Err(NotServed::Refused(refusal)) => refuse(&refusal, &mut client, record),
            Err(NotServed::Malformed { .. }) => {
                client.reset(Reason::PROTOCOL_ERROR);
                record.refused("REQUEST_MALFORMED", || None);
                record.finish(Code::Internal);
            }
            Err(NotServed::ClientStalled) => {
                // Trailers would wait behind what it does not take. gRPC clients read this code as RESOURCE_EXHAUSTED.
                client.reset(Reason::ENHANCE_YOUR_CALM);
                record.refused("CLIENT_STALLED", || Some("no window for limits.stalled".to_owned()));
                record.finish(Code::from_reset(Reason::ENHANCE_YOUR_CALM));
            }
            Err(NotServed::ClientGone) => record.finish(Code::Cancelled),
        }
        ended(if gone { Ending::ClientGone } else { Ending::Answered });
    }
}

/// Waits for what ends a call that runs: the drain's time is up, or its caller's credentials are revoked.
///
/// Nothing rings unheard: all this is one thread, so what changes after a phase of the call has looked rings only when
/// the call waits, and it waits here from its first wait on.
async fn ended_by_us(proxy: &Proxy, generation: &Generation, caller: &OnceCell<Arc<Caller>>) -> Refusal {
    loop {
        proxy.bell.rung().await;
        if proxy.drain.is_refusing() {
            return Refusal::Draining;
        }
        // What is revoked is asked of the newest generation, also for a call of an older one.
        let revoked = caller.get().and_then(|caller| proxy.generation.load().authenticator.revoked(caller));
        if let Some(failure) = revoked.filter(|_| !generation.insecure_audit) {
            return Refusal::Authentication(failure);
        }
    }
}

/// Why the upstream's own answer was not passed on.
enum NotServed {
    /// We answer.
    Refused(Refusal),
    /// Malformed in the sense of RFC 9113 §8.1.1: the stream is reset.
    Malformed {
        /// Found when the upstream had the call already.
        forwarded: bool,
    },
    /// The client does not take its answer: the stream is reset.
    ClientStalled,
    /// The client reset the stream or is gone.
    ClientGone,
}

impl From<Refusal> for NotServed {
    fn from(refusal: Refusal) -> NotServed {
        NotServed::Refused(refusal)
    }
}

impl From<MalformedAuthority> for NotServed {
    fn from(_: MalformedAuthority) -> NotServed {
        NotServed::Malformed { forwarded: false }
    }
}

/// The phases of a call. The order is a security decision: see the module.
async fn serve_call(
    proxy: &Proxy,
    Snapshot { generation, pool }: &Snapshot,
    mut request: Box<Request<()>>,
    certificate: Option<&PeerCertificate>,
    client: &mut ClientStream,
    record: &mut CallRecord,
    known: &OnceCell<Arc<Caller>>,
) -> Result<Finished, NotServed> {
    note_client(record, request.headers());
    let authority = check_headers(generation, &request)?;
    check_http(&request)?;
    let path = MethodPath::from_uri(request.uri()).ok_or(Refusal::MethodMalformed)?;
    record.method(&path);
    let deadline = read_deadline(request.headers(), record.started().into())?;
    check_drain(&proxy.drain)?;
    let route = generation.policy.route(&path);
    record.route(&generation.routes, route.index());
    // A public method is never looked at: no credential is read, none forwarded, no identity written.
    let Admitted { permit, caller, public } = match generation.policy.permit_public(route) {
        Some(permit) => Admitted { permit, caller: None, public: true },
        None => {
            // Pinned here and passed on by reference: by value the call would hold it three times.
            let admission = pin!(admit(proxy, generation, route, request.headers(), certificate, deadline, record));
            client.unless_gone(admission).await.unwrap_or(Err(NotServed::ClientGone))?
        }
    };
    let caller = caller.map(|caller| &**known.get_or_init(|| caller));
    scrub(generation, request.headers_mut(), public);
    let head = RequestHead {
        scheme: &generation.upstream_scheme,
        authority: authority.as_ref().unwrap_or(&generation.upstream_authority),
        // The very bytes that were authorised.
        path: path.path_and_query(),
        fields: request.headers(),
        identity: caller.map_or(&[], |caller| caller.headers.block()),
    };
    let head = head.encode();
    drop((request, path, authority));
    let scrub_trailers = |trailers: &mut HeaderMap| {
        generation.identity_headers.remove(trailers);
        generation.authenticator.remove_credentials(trailers);
    };
    let passage = Passage { pool, limits: generation.limits, scrub: &scrub_trailers, deadline, record };
    let ended = tokio::select! {
        biased;
        ended = forward(permit, passage, head, client) => ended,
        expired = expired(generation, caller) => return Err(Refusal::Authentication(expired).into()),
    };
    record.upstream_ended();
    ended.map_err(|ended| not_served(generation, ended))
}

fn note_client(record: &mut CallRecord, headers: &HeaderMap) {
    if let Some(user_agent) = headers.get(USER_AGENT) {
        record.user_agent(user_agent);
    }
    record.trace(headers);
}

/// 431, and what RFC 9113 calls malformed but h2 lets through; gives the authority that the client names.
fn check_headers(generation: &Generation, request: &Request<()>) -> Result<Option<Authority>, NotServed> {
    generation.limits.examine_request(request).map_err(|why| {
        count_unacceptable(generation, why);
        match why {
            Unacceptable::Bytes | Unacceptable::Fields => NotServed::Refused(Refusal::HeadersTooLarge(why)),
            Unacceptable::Malformed => NotServed::Malformed { forwarded: false },
        }
    })?;
    Ok(authority(request.uri(), request.headers())?)
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
    let mut timeouts = headers.get_all(&GRPC_TIMEOUT).iter();
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
    caller: Option<Arc<Caller>>,
    public: bool,
}

/// Authentication, then authorization, and only then how often: what is refused for another reason does not count.
async fn admit(
    proxy: &Proxy,
    generation: &Generation,
    route: Route,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    deadline: Option<Instant>,
    record: &mut CallRecord,
) -> Result<Admitted, NotServed> {
    let authenticated = match authenticate(proxy, generation, headers, certificate, deadline, record).await? {
        Ok(authenticated) => authenticated,
        Err(failure) if generation.insecure_audit => {
            let refusal = Refusal::Authentication(failure);
            record.audited(refusal.answer().reason, || refusal.detail());
            return Ok(Admitted { permit: Permit::insecure_authentication_audit(), caller: None, public: false });
        }
        Err(failure) => return Err(Refusal::Authentication(failure).into()),
    };
    let caller = authenticated.caller.as_deref().map(|caller| (&caller.identity, &caller.grants));
    let permit = match generation.policy.authorize(route, caller) {
        // A refusal of authentication all the same, though only the rule shows that a credential is needed.
        Err(denied @ Denied::CredentialsMissing) if generation.insecure_audit => {
            let refusal = Refusal::Authorization(denied);
            record.audited(refusal.answer().reason, || refusal.detail());
            return Ok(Admitted { permit: Permit::insecure_authentication_audit(), caller: None, public: false });
        }
        decided => decided.map_err(Refusal::Authorization)?,
    };
    match permit.audited().cloned().map(Refusal::Authorization) {
        Some(refusal) => record.audited(refusal.answer().reason, || refusal.detail()),
        None => record.authorized(),
    }
    if let Some(caller) = &authenticated.caller {
        check_rate(generation, caller)?;
    }
    Ok(Admitted { permit, caller: authenticated.caller, public: false })
}

/// The warm path never waits; a wait for a key set ends with the call's deadline.
async fn authenticate(
    proxy: &Proxy,
    generation: &Generation,
    headers: &HeaderMap,
    certificate: Option<&PeerCertificate>,
    deadline: Option<Instant>,
    record: &mut CallRecord,
) -> Result<Result<Authenticated, Failure>, Refusal> {
    let authenticator = &generation.authenticator;
    let attempts = generation.rate_limits.attempts(record.peer().map(|peer| peer.ip()));
    let verdict = authenticator.authenticate(headers, certificate, &attempts, |token| proxy.digests.of(token), SystemTime::now());
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
        Err(failure) => {
            record.presented(authenticator.presented(headers, certificate), failure.provider.as_ref());
            if let FailureKind::RateLimited(_) = failure.kind {
                generation.telemetry.metrics.limit_hits.inc(Limit::FailedAuthenticationPerPeer);
            }
        }
    }
    Ok(verdict)
}

/// Anonymous callers have no identity to count by, and public methods are never looked at.
fn check_rate(generation: &Generation, caller: &Caller) -> Result<(), Refusal> {
    let counted = generation.rate_limits.count_call(&caller.identity, &caller.rate, std::time::Instant::now);
    counted.map_err(|over| {
        generation.telemetry.metrics.limit_hits.inc(Limit::PerIdentity);
        Refusal::RateLimited(over)
    })
}

/// Leaves what of a client's fields the upstream gets: nothing that we own, in any spelling, in any mode.
fn scrub(generation: &Generation, fields: &mut HeaderMap, public: bool) {
    fields.remove(HOST);
    generation.identity_headers.remove(fields);
    if public || !generation.forward_credentials {
        generation.authenticator.remove_credentials(fields);
    }
}

/// Waits for the end of the caller's credentials, if that ends the call; else forever.
async fn expired(generation: &Generation, caller: Option<&Caller>) -> Failure {
    let authenticator = &generation.authenticator;
    let expiry = caller.filter(|_| !generation.insecure_audit).and_then(|caller| Some((caller, authenticator.expiry(caller)?)));
    let Some((caller, at)) = expiry else { return std::future::pending().await };
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        // A clock that is set meanwhile must not keep the call much longer.
        tokio::time::sleep(left.min(Duration::from_secs(60)).max(Duration::from_millis(1))).await;
    }
    authenticator.expired(caller)
}

fn not_served(generation: &Generation, ended: Ended) -> NotServed {
    let hits = &generation.telemetry.metrics.limit_hits;
    match &ended {
        Ended::Headers(why) => count_unacceptable(generation, *why),
        Ended::Idle => hits.inc(Limit::StreamIdle),
        Ended::Stalled | Ended::ClientStalled => hits.inc(Limit::Stalled),
        _ => {}
    }
    NotServed::Refused(match ended {
        Ended::Unreachable(why) => Refusal::UpstreamUnavailable(why.0.to_string()),
        Ended::Lost(why) => Refusal::UpstreamUnavailable(why),
        Ended::Reset(reason) => Refusal::UpstreamReset(reason),
        Ended::Headers(why) => Refusal::UpstreamHeaders(why),
        Ended::Deadline => Refusal::Deadline,
        Ended::Idle => Refusal::StreamIdle,
        Ended::Stalled => Refusal::UpstreamStalled,
        Ended::ClientStalled => return NotServed::ClientStalled,
        Ended::ClientGone => return NotServed::ClientGone,
        Ended::ClientMalformed => return NotServed::Malformed { forwarded: true },
    })
}

/// The one place that answers a refusal: trailers-only while nothing has been sent, trailers afterwards. An error while
/// sending means that the client is gone.
///
/// A stream that the upstream refused is refused, for only that lets a client's library try again by itself.
fn refuse(refusal: &Refusal, client: &mut ClientStream, mut record: CallRecord) {
    let answer = refusal.answer();
    let request_id = record.request_id();
    if client.has_begun() {
        let _ = client.trailers(refusal.trailers(request_id));
    } else if let Refusal::UpstreamReset(Reason::REFUSED_STREAM) = refusal {
        client.reset(Reason::REFUSED_STREAM);
    } else {
        let (response, text) = refusal.response(request_id);
        let _ = client.head(response, text.is_none());
        if let Some(text) = text {
            client.text(text);
        }
    }
    record.refused(answer.reason, || refusal.detail());
    record.finish(answer.status.code());
}
