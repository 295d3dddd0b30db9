//! The configurations of docs/recipes as they stand there, in front of a real service, with the callers they are for.

use crate::harness::go::grpcurl;
use crate::harness::node::ReflectingServer;
use crate::harness::pages::recipe;
use crate::harness::token::RSA;
use crate::harness::*;
use rcgen::{CertificateParams, SanType};
use serde_json::json;
use std::path::Path;

const GET: &str = "/demo.v1.Users/Get";
const CHANGE: &str = "/demo.v1.Users/Change";

fn page(name: &str) -> String {
    format!("docs/recipes/{name}.md")
}

/// With the files of the page.
fn site(name: &str) -> Site {
    Site::of(Path::new(&page(name)))
}

const ALLOWED: (u64, &str) = (0, "");
const MISSING: (u64, &str) = (7, "PERMISSION_MISSING");

#[test]
fn openid_connect() {
    let (site, upstream) = (site("openid-connect"), PythonUpstream::start());
    let mut provider = OpenIdProvider::start(&site);
    let changes = [
        ("https://auth.example.com/realms/users", provider.issuer.as_str()),
        ("[users-api]", "[users-api, https://users.test/, web]"),
        ("[RS256]", "[RS256, ES256]"),
        ("discovery: true", "discovery: true\n      jwks_ca: ca.pem"),
        // This provider's name for Keycloak's azp.
        ("azp", "client_id"),
    ];
    let doorward = site.start(&recipe(&page("openid-connect"), &upstream.url(), &changes));
    let (_, of_alice) = provider.sign_in("alice");
    let (_, of_bob) = provider.sign_in("bob");
    let of_batch = provider.client_token("https://users.test/", "users:read");
    let elsewhere = provider.client_token("https://orders.test/", "users:read");
    let answers = doorward.calls(&[
        call(CHANGE).bearer(&of_alice),
        call(CHANGE).bearer(&of_bob),
        call(GET).bearer(&of_batch),
        call(CHANGE).bearer(&of_batch),
        call(GET).bearer(&elsewhere),
    ]);
    assert_eq!(refusals(&answers), [ALLOWED, MISSING, ALLOWED, MISSING, (16, "TOKEN_AUDIENCE")]);
    assert_eq!(
        (answers[0].upstream_saw("roles"), answers[2].upstream_saw("client_id")),
        (vec!["editor,viewer".into()], vec!["batch".into()])
    );
}

#[test]
fn google() {
    let (site, upstream, keys) = (site("google"), PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let url = format!("  google:\n    jwks_url: {}\n", keys.url());
    let doorward = site.start(&recipe(&page("google"), &upstream.url(), &[("  google:\n", &url)]));
    let of = |email: &str, domain: Option<&str>| {
        let (issuer, client) = ("https://accounts.google.com", "1234.apps.googleusercontent.com");
        let (mut whole, times) =
            (json!({"iss": issuer, "aud": client, "sub": "1001", "email": email, "email_verified": true}), (now() - 1, now() + 600));
        whole["iat"] = times.0.into();
        whole["exp"] = times.1.into();
        whole["hd"] = domain.into();
        if domain.is_none() {
            whole.as_object_mut().unwrap().remove("hd");
        }
        call(GET).bearer(&RSA.token(&whole))
    };
    let answers = doorward.calls(&[
        of("alice@example.com", Some("example.com")),
        of("bob@example.com", Some("example.com")),
        of("alice@example.com", None),
        of("nightly@example-project.iam.gserviceaccount.com", None),
        of("other@example-project.iam.gserviceaccount.com", None),
    ]);
    assert_eq!(refusals(&answers), [ALLOWED, MISSING, (16, "TOKEN_CLAIM"), ALLOWED, (16, "TOKEN_CLAIM")]);
}

#[test]
fn kubernetes_service_accounts() {
    let (site, upstream) = (site("kubernetes-service-accounts"), PythonUpstream::start());
    let keys = KeyServer::down_with_tls(&site, "tls");
    let set = json!({"keys": [&RSA.jwk]}).to_string();
    // The API server shows its keys to service accounts only.
    keys.act_at("/openid/v1/jwks", move |exchange| {
        let known = exchange.head.to_lowercase().contains("authorization: bearer token-of-the-pod\r\n");
        exchange.answer(if known { "200 OK" } else { "401 Unauthorized" }, &set);
    });
    let url = format!("{}/openid", keys.origin());
    let changes = [("https://kubernetes.default.svc/openid", url.as_str())];
    let doorward = site.start(&recipe(&page("kubernetes-service-accounts"), &upstream.url(), &changes));
    let of = |account: &str, audience: &str, lifetime: i64| {
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let claims = json!({
            "iss": issuer, "aud": [audience], "sub": format!("system:serviceaccount:billing:{account}"), "iat": now() - 10, "nbf": now() - 10,
            "exp": now() - 10 + lifetime, "kubernetes.io": {"namespace": "billing", "serviceaccount": {"name": account}},
        });
        call(GET).bearer(&RSA.token(&claims))
    };
    let answers = doorward.calls(&[
        of("nightly", "users-api", 3600),
        of("default", "users-api", 3600),
        of("nightly", "https://kubernetes.default.svc.cluster.local", 3600),
        of("nightly", "users-api", 30 * 24 * 3600),
    ]);
    assert_eq!(refusals(&answers), [ALLOWED, MISSING, (16, "TOKEN_AUDIENCE"), (16, "TOKEN_CLAIM")]);
    assert_eq!(answers[0].upstream_saw("user_id"), ["system:serviceaccount:billing:nightly"]);
}

#[test]
fn api_keys() {
    let (site, upstream) = (site("api-keys"), PythonUpstream::start());
    let configuration = site.write("doorward.yaml", recipe(&page("api-keys"), &upstream.url(), &[]));
    let create = ["keys", "create", "--config", configuration.to_str().unwrap(), "--id", "partner", "--client-id", "partner-co"];
    let key = command(&[create.as_slice(), &["--role", "partner", "--expires", "90d"]].concat(), "").stdout;
    let key = String::from_utf8(key).unwrap();
    let doorward = site.start(&std::fs::read_to_string(&configuration).unwrap());
    let answers = doorward.calls(&[GET, "/demo.v1.Users/Export", CHANGE].map(|method| call(method).api_key(key.trim())));
    assert_eq!(refusals(&answers), [ALLOWED, ALLOWED, (7, "METHOD_NOT_ALLOWED")]);
    assert_eq!(answers[0].upstream_saw("client_id"), ["partner-co"]);
}

#[test]
fn mtls_with_spiffe() {
    let (site, upstream) = (site("mtls-spiffe"), PythonUpstream::start());
    let doorward = site.start(&recipe(&page("mtls-spiffe"), &upstream.url(), &[]));
    let known_as = |file: &str, name: SanType| {
        site.certificate_with(file, |params: &mut CertificateParams| params.subject_alt_names = vec![name]);
        json!({"certificate": site.path(&format!("{file}.crt")), "key": site.path(&format!("{file}.key"))})
    };
    let worker = known_as("worker", SanType::URI("spiffe://cluster.local/ns/billing/sa/worker".try_into().unwrap()));
    let batch = known_as("batch", SanType::DnsName("batch.example.com".try_into().unwrap()));
    let nobody = known_as("nobody", SanType::URI("spiffe://cluster.local/ns/billing/sa/other".try_into().unwrap()));
    let delete = "/demo.v1.Users/Delete";
    for (who, client) in [(&worker, "billing-worker"), (&batch, "batch")] {
        let answers = doorward.calls_as(who, &[call(GET), call(delete)]);
        assert_eq!(refusals(&answers), [ALLOWED, ALLOWED]);
        assert_eq!(answers[0].upstream_saw("client_id"), [client]);
    }
    assert_eq!(refusals(&doorward.calls_as(&nobody, &[call(GET)])), [(16, "CREDENTIALS_MISSING")]);
    let by_key = doorward.calls(&[call(GET).api_key(API_KEY), call(delete).api_key(API_KEY)]);
    assert_eq!(refusals(&by_key), [ALLOWED, (7, "CREDENTIALS_NOT_ACCEPTED")]);
}

#[test]
fn reflection_in_v1_and_in_v1alpha() {
    for version in ["v1", "v1alpha"] {
        let (site, upstream) = (site("reflection"), ReflectingServer::start(version));
        let configuration =
            recipe(&page("reflection"), &upstream.url, &[]).replace("\nauthentication", "\n  health_service: none\nauthentication");
        let token = "  jwt: [{ name: corporate, issuer: \"https://issuer.test/\", audiences: [users-api], algorithms: [HS256], secret_file: hmac.secret }]\n";
        let configuration = configuration.replace("authentication:\n", &format!("authentication:\n{token}"));
        let doorward = site.start(&configuration);
        let key = format!("x-api-key: {API_KEY}");
        let by_key = ["-H", key.as_str()];
        let (code, listed) = grpcurl(&doorward, &by_key, &["list"]);
        assert_eq!((code, listed.trim()), (Some(0), "demo.v1.Greeter"), "{version}");
        let (code, described) = grpcurl(&doorward, &by_key, &["describe", "demo.v1.Greeter"]);
        assert!(code == Some(0) && described.contains("rpc SayHello ( .demo.v1.HelloRequest )"), "{version}: {described}");
        let hello = ["demo.v1.Greeter/SayHello"];
        let (code, answer) = grpcurl(&doorward, &[by_key.as_slice(), &["-d", r#"{"name": "world"}"#]].concat(), &hello);
        assert!(code == Some(0) && answer.contains("Hello, world! You are svc-analyticsanalytics-service."), "{version}: {answer}");

        // Nobody learns the schema without the permission, and the call itself has credentials of its own.
        let bearer = format!("authorization: Bearer {}", crate::harness::token(json!({"roles": ["viewer"]})));
        let (code, refused) = grpcurl(&doorward, &["-H", &bearer], &["list"]);
        assert!(code != Some(0) && refused.contains("a permission is missing"), "{version}: {refused}");
        let (code, refused) = grpcurl(&doorward, &[], &["list"]);
        assert!(code != Some(0) && refused.contains("credentials are needed"), "{version}: {refused}");
        let apart = ["-reflect-header", key.as_str(), "-rpc-header", &bearer, "-d", r#"{"name": "world"}"#];
        let (code, answer) = grpcurl(&doorward, &apart, &hello);
        assert!(code == Some(0) && answer.contains("Hello, world! You are alice."), "{version}: {answer}");
    }
}

#[test]
fn a_rule_for_the_other_version_of_reflection_alone_hides_it() {
    let (site, upstream) = (site("reflection"), ReflectingServer::start("v1alpha"));
    let rule = "    /grpc.reflection.v1.ServerReflection/ServerReflectionInfo: reflection:read\n";
    let configuration =
        recipe(&page("reflection"), &upstream.url, &[(rule, "")]).replace("\nauthentication", "\n  health_service: none\nauthentication");
    let doorward = site.start(&configuration);
    let (code, refused) = grpcurl(&doorward, &["-H", &format!("x-api-key: {API_KEY}")], &["list"]);
    assert!(code != Some(0) && refused.contains("this method is not allowed"), "{refused}");
}

#[test]
fn behind_a_mesh() {
    let (site, upstream) = (site("mesh"), PythonUpstream::start());
    let doorward = site.start(&recipe(&page("mesh"), &upstream.url(), &[("127.0.0.1:8080", "127.0.0.1:0")]));
    let order = json!({"target": doorward.traffic.to_string(), "plaintext": true});
    // What a mesh says of its caller decides nothing, and is forwarded as any other metadata is.
    let by_mesh = call(GET).metadata("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/billing/sa/worker");
    let answers = doorward.calls_as(&order, &[by_mesh.clone(), by_mesh.bearer(&token(json!({})))]);
    assert_eq!(refusals(&answers), [(16, "CREDENTIALS_MISSING"), ALLOWED]);
}
