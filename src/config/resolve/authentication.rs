//! `authentication`: the mode, and what the sources of credentials have to agree on among themselves.

use super::api_keys::api_keys;
use super::client_certificates::client_certificates;
use super::jwt::{Provider, provider};
use super::keys::default_remote;
use super::listen;
use crate::config::files::Content;
use crate::config::node::Value;
use crate::config::section::Field;
use crate::config::values::{A_URL, https_url};
use crate::config::{
    Authentication, Google, HttpsUrl, IdentityHeaders, InputFile, JwtProvider, KeyLocation, LongCall, LongCalls, Mode, PublicMethod,
};
use crate::grpc::MethodPattern;
use std::collections::HashMap;

/// Names of credentials that a provider cannot have.
const OTHER_SOURCES: [&str; 3] = ["google", "api_keys", "client_certificates"];
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
/// Google signs with either spelling.
const GOOGLE_ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// The section, and what rules may name of it.
pub(super) struct Resolved<'a> {
    pub(super) value: Authentication,
    /// Every credential a rule's `from` may name; also of providers that have problems.
    pub(super) credentials: Vec<String>,
    /// The roles that certificates have: names that must be defined.
    pub(super) certificate_roles: Vec<Field<'a>>,
}

pub(super) fn authentication<'a>(
    field: &Field<'a>,
    listen: &listen::Resolved,
    headers: &IdentityHeaders,
    memory: Option<u64>,
) -> Resolved<'a> {
    let mut value = Authentication {
        mode: Mode::Required,
        public_methods: Vec::new(),
        insecure_audit: false,
        jwt: Vec::new(),
        google: None,
        api_keys: None,
        revocations: None,
        long_calls: LongCalls::default(),
        client_certificates: Vec::new(),
        memory,
    };
    let mut credentials = Vec::new();
    let mut certificate_roles = Vec::new();
    let mut has_certificates = false;
    if let Some(mut section) = field.section() {
        value.mode = mode(&section.field("mode"));
        value.public_methods = public_methods(&section.field("public_methods"));
        value.insecure_audit = section
            .field("insecure_audit")
            .risky("calls that fail authentication reach the upstream as anonymous, whatever their rule says");
        let (jwt, google, keys) = (section.field("jwt"), section.field("google"), section.field("api_keys"));
        value.jwt = providers(&jwt, google.is_set(), &mut credentials);
        value.google = google_tokens(&google);
        value.api_keys = api_keys(&keys, &listen.value, headers);
        let certificates = section.field("client_certificates");
        (value.client_certificates, certificate_roles) = client_certificates(&certificates);
        has_certificates = matches!(certificates.value(), Some(Value::List(items)) if !items.is_empty());
        if has_certificates && listen.client_ca.is_none() {
            certificates.error("needs listen.tls.client_ca: without it no client is asked for a certificate");
        }
        value.revocations = revocations(&section.field("revocations"));
        value.long_calls = long_calls(&section.field("long_calls"));
        let others = [google.is_set(), keys.is_set(), has_certificates];
        credentials.extend(OTHER_SOURCES.iter().zip(others).filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()));
        section.finish();
    }
    if value.mode == Mode::Required && credentials.is_empty() {
        field.warning(
            "mode is required, but no source of credentials (jwt, google, api_keys, client_certificates) is configured: every call is refused",
        );
    }
    if let Some(client_ca) = listen.client_ca.as_ref().filter(|_| !has_certificates) {
        client_ca
            .warning("clients are asked for certificates, but authentication.client_certificates has no entry: nobody is known by one");
    }
    Resolved { value, credentials, certificate_roles }
}

fn mode(field: &Field) -> Mode {
    let mode = field.word(&[("required", Mode::Required), ("optional", Mode::Optional), ("disabled", Mode::Disabled)]);
    match mode {
        Some(Mode::Optional) => field.warning("callers without a credential may call the methods whose rule is anyone"),
        Some(Mode::Disabled) => field.warning("nobody's credentials are checked: whoever reaches the port may call everything"),
        Some(Mode::Required) | None => {}
    }
    mode.unwrap_or(Mode::Required)
}

fn public_methods(field: &Field) -> Vec<PublicMethod> {
    let items = field.items("a list of method patterns such as /grpc.health.v1.Health/*").unwrap_or_default();
    items.iter().filter_map(public_method).collect()
}

/// Of gRPC's own services (health, reflection) all versions may well be meant.
fn public_method(item: &Field) -> Option<PublicMethod> {
    let pattern = item.parse("a method pattern", parse_pattern)?;
    if let MethodPattern::Package(package) = &pattern
        && package.split('.').next() != Some("grpc")
    {
        item.warning("every method of every service in this package is public, also those to come; name the services that are meant");
    }
    Some(PublicMethod { pattern, at: item.position() })
}

pub(super) fn parse_pattern(text: &str) -> Result<MethodPattern, &'static str> {
    MethodPattern::parse(text).map_err(|_| "/package.Service/Method, /package.Service/* or /package.*")
}

fn revocations(field: &Field) -> Option<InputFile> {
    let mut section = field.section()?;
    let file = section.field("file").required("the path of a file with revoked tokens, users and keys");
    section.finish();
    file.followed_file(Content::Public)
}

fn long_calls(field: &Field) -> LongCalls {
    let Some(mut section) = field.section() else { return LongCalls::default() };
    let words = [("continue", LongCall::Continue), ("end", LongCall::End)];
    let (on_expiry, on_revocation) = (section.field("on_expiry").word(&words), section.field("on_revocation").word(&words));
    section.finish();
    let default = LongCalls::default();
    LongCalls { on_expiry: on_expiry.unwrap_or(default.on_expiry), on_revocation: on_revocation.unwrap_or(default.on_revocation) }
}

fn providers(field: &Field, google: bool, credentials: &mut Vec<String>) -> Vec<JwtProvider> {
    let items = field.items("a list of token providers").unwrap_or_default();
    let several = items.len() + usize::from(google) >= 2;
    let providers: Vec<Provider> = items.iter().filter_map(|item| provider(item, several)).collect();
    let mut names: HashMap<&str, &Provider> = HashMap::new();
    let mut issuers: HashMap<Option<&str>, &Provider> = HashMap::new();
    for provider in &providers {
        if let Some(name) = provider.name {
            if OTHER_SOURCES.contains(&name) {
                provider.name_field.error(format!("{name:?} is the name of another source of credentials, expected a name of its own"));
            } else if let Some(first) = names.insert(name, provider) {
                provider.name_field.error(format!("the name {name:?} is taken by {}", first.name_field.path()));
            } else {
                credentials.push(name.to_owned());
            }
        }
        let Some(issuer) = provider.issuer else { continue };
        if google && issuer.is_some_and(|issuer| GOOGLE_ISSUERS.contains(&issuer)) {
            provider.issuer_field.error("this issuer is Google's, and authentication.google takes its tokens already");
        }
        if let Some(first) = issuers.insert(issuer, provider) {
            let what = if issuer.is_some() { "this issuer is" } else { "tokens without issuer are" };
            provider.issuer_field.error(format!("{what} taken by {} already; only one provider can have it", first.issuer_field.path()));
        }
    }
    providers.into_iter().filter_map(|provider| provider.value).collect()
}

fn google_tokens(field: &Field) -> Option<Google> {
    let mut section = field.section()?;
    let a_list = "a list of OAuth client IDs";
    let client_ids = section.field("client_ids").required(a_list).some_texts(a_list);
    let hosted_domains = section.field("hosted_domains").some_texts("a list of Google Workspace domains");
    let accounts = section.field("service_accounts");
    let accounts = accounts.items("a list of e-mails of service accounts").unwrap_or_default();
    let an_account = "the e-mail of a service account or *@PROJECT.iam.gserviceaccount.com";
    let service_accounts = accounts.iter().filter_map(|item| item.parse(an_account, service_account)).collect();
    let prefix = section.field("user_id_prefix").any_text("a text").unwrap_or_default();
    let url = section.field("jwks_url").hiding_userinfo();
    let location = if url.is_set() { url.parse(A_URL, https_url) } else { Some(HttpsUrl(GOOGLE_KEYS.to_owned())) };
    let ca = section.field("jwks_ca").input_file(Content::Public);
    section.finish();
    let owned = |texts: Option<Vec<&str>>| texts.unwrap_or_default().into_iter().map(str::to_owned).collect();
    Some(Google {
        client_ids: owned(client_ids),
        hosted_domains: owned(hosted_domains),
        service_accounts,
        user_id_prefix: prefix.to_owned(),
        keys: default_remote(KeyLocation::Jwks(location?), ca, url.position()),
        at: field.position(),
    })
}

/// Anything wider than one project would let in accounts of strangers.
fn service_account(text: &str) -> Result<String, &'static str> {
    let (name, domain) = text.split_once('@').ok_or("the @ is missing")?;
    let project = domain.strip_suffix(".iam.gserviceaccount.com").filter(|project| !project.is_empty());
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c == '*' || c == '@' || c.is_whitespace());
    match (name, project) {
        ("*", Some(project)) if plain(project) => Ok(text.to_owned()),
        ("*", _) => Err("a * takes the accounts of one project only"),
        _ if plain(name) && plain(domain) && domain.ends_with(".gserviceaccount.com") => Ok(text.to_owned()),
        _ => Err("the e-mails of service accounts end in .gserviceaccount.com"),
    }
}
