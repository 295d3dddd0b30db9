//! One entry of `authentication.jwt`: whose tokens, for whom, checked how, and what their word is worth.

use super::keys::key_source;
use crate::config::section::Field;
use crate::config::{Algorithm, Allowed, ClaimNames, ClaimPath, JwtProvider, Trust};
use std::time::Duration;

const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// A provider as far as its neighbours must be told apart from it.
pub(super) struct Provider<'a> {
    pub(super) name_field: Field<'a>,
    pub(super) name: Option<&'a str>,
    /// The key `issuer`, or `insecure_no_issuer`.
    pub(super) issuer_field: Field<'a>,
    /// `None`: not even that is known. `Some(None)`: `insecure_no_issuer`.
    pub(super) issuer: Option<Option<&'a str>>,
    /// `None`: a part of it is missing, which has been reported.
    pub(super) value: Option<JwtProvider>,
}

/// `several`: trust must be written, as a default would be a decision nobody made.
pub(super) fn provider<'a>(item: &Field<'a>, several: bool) -> Option<Provider<'a>> {
    let mut section = item.section()?;
    let name_field = section.field("name").required("a name for logs, metrics and rules");
    let name = name_field.parse("a name without white space", |text| match text {
        "" => Err("it is empty"),
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control()) => Err(""),
        _ => Ok(text),
    });

    let (issuer_field, no_issuer) = (section.field("issuer"), section.field("insecure_no_issuer"));
    let without_issuer = no_issuer.risky("tokens that do not say who issued them are accepted from this provider");
    let issuer = issuer_field.text("the issuer exactly as the tokens spell it");
    match (issuer_field.is_set(), without_issuer) {
        (true, true) => no_issuer.error("found issuer beside it, expected exactly one of issuer and insecure_no_issuer: true"),
        (false, false) => issuer_field.error("missing; expected the issuer exactly as the tokens spell it, or insecure_no_issuer: true"),
        _ => {}
    }

    let (audiences_field, no_audience) = (section.field("audiences"), section.field("insecure_no_audience"));
    let insecure_no_audience = no_audience.risky("tokens that do not say whom they are for, and may be for another service, are accepted");
    let audiences = if insecure_no_audience {
        audiences_field.texts("a list of texts")
    } else {
        audiences_field.some_texts("a list of at least one audience")
    };
    if !audiences_field.is_set() && !insecure_no_audience {
        audiences_field.error("missing; expected a list of the audiences that mean this service, or insecure_no_audience: true");
    }

    let algorithms = algorithms(&section.field("algorithms").required("a list such as [RS256, ES256]"));
    let keys = key_source(item, &mut section, issuer, &algorithms);
    let readiness = section.field("readiness").word(&[("required", true), ("ignored", false)]);
    let leeway = section.field("leeway").duration(Duration::ZERO);
    let token_types = section.field("token_types").some_texts("a list of types such as at+jwt");
    let max_lifetime = section.field("max_lifetime").duration_or_none();
    let required_claims = required_claims(&section.field("required_claims"));
    let claims = claim_names(&section.field("claims"));
    let trust_field = section.field("trust");
    if several && !trust_field.is_set() {
        trust_field.error("missing; with more than one provider each says what its word is worth, expected for example { roles: [\"*\"], email_domains: [example.com] }");
    }
    let trust = trust(&trust_field);
    section.finish();

    let owned = |texts: Option<Vec<&str>>| texts.unwrap_or_default().into_iter().map(str::to_owned).collect();
    let known_issuer = if without_issuer { Some(None) } else { issuer.map(Some) };
    let value = match (name, keys) {
        (Some(name), Some(keys)) => Some(JwtProvider {
            name: name.to_owned(),
            issuer: issuer.map(str::to_owned),
            audiences: owned(audiences),
            insecure_no_audience,
            algorithms: algorithms.into_iter().map(|(algorithm, _)| algorithm).collect(),
            keys,
            readiness_required: readiness.unwrap_or(true),
            leeway: leeway.unwrap_or(Duration::from_secs(30)),
            token_types: owned(token_types),
            max_lifetime,
            required_claims,
            claims,
            trust,
            at: item.position(),
        }),
        _ => None,
    };
    let issuer_field = if without_issuer { no_issuer } else { issuer_field };
    Some(Provider { name_field, name, issuer_field, issuer: known_issuer, value })
}

fn algorithms<'a>(field: &Field<'a>) -> Vec<(Algorithm, Field<'a>)> {
    let items = field.some_items("a list of at least one algorithm such as RS256").unwrap_or_default();
    items.into_iter().filter_map(|item| Some((item.word(&ALGORITHMS)?, item))).collect()
}

fn required_claims(field: &Field) -> Vec<(ClaimPath, Vec<String>)> {
    let entries = field.entries("a mapping of claim: [values]").into_iter();
    let claims = entries.filter_map(|(claim, values)| {
        let path = claim_path(&values, claim)?;
        let values = values.some_texts("a list of at least one value")?;
        Some((path, values.into_iter().map(str::to_owned).collect()))
    });
    claims.collect()
}

fn claim_path(field: &Field, text: &str) -> Option<ClaimPath> {
    if text.is_empty() {
        field.error("found an empty claim name, expected the path of a claim");
        return None;
    }
    Some(ClaimPath(text.to_owned()))
}

fn claim_names(field: &Field) -> ClaimNames {
    let named = |name: &str| ClaimPath(name.to_owned());
    let mut claims = ClaimNames {
        user_id: named("sub"),
        email: named("email"),
        email_at: None,
        name: named("name"),
        roles: named("roles"),
        client_id: None,
        permissions: None,
    };
    let Some(mut section) = field.section() else { return claims };
    let email = section.field("email");
    let path = |field: Field| field.text("the path of a claim").map(named);
    let mut claim = |key| path(section.field(key));
    claims = ClaimNames {
        user_id: claim("user_id").unwrap_or(claims.user_id),
        email_at: email.is_set().then(|| email.position()),
        email: path(email).unwrap_or(claims.email),
        name: claim("name").unwrap_or(claims.name),
        roles: claim("roles").unwrap_or(claims.roles),
        client_id: claim("client_id"),
        permissions: claim("permissions"),
    };
    section.finish();
    claims
}

fn trust(field: &Field) -> Trust {
    let mut trust = Trust { roles: Allowed::Any, email_domains: Allowed::Any, unverified_email: false, user_id_prefix: String::new() };
    let Some(mut section) = field.section() else { return trust };
    let a_role = |text: &str| match text {
        "" => Err("it is empty"),
        _ if text.contains('*') => Err("a * stands only for all of them"),
        _ => Ok(text.to_owned()),
    };
    let a_domain = |text: &str| match text {
        "" => Err("it is empty"),
        _ if text.contains('*') => Err("a * stands only for all of them; subdomains are written out"),
        _ if text.contains(|c: char| c == '@' || c.is_whitespace()) => Err("only what stands after the @"),
        _ => Ok(text.to_lowercase()),
    };
    trust.roles = allowed(&section.field("roles"), "a role name or \"*\"", a_role);
    trust.email_domains = allowed(&section.field("email_domains"), "a domain or \"*\"", a_domain);
    trust.unverified_email = section
        .field("unverified_email")
        .risky("e-mails that the provider has not verified decide who a user is: anybody may have typed them");
    trust.user_id_prefix = section.field("user_id_prefix").any_text("a text").unwrap_or_default().to_owned();
    section.finish();
    trust
}

/// Absent: all. A list that is wrong allows nothing.
fn allowed(field: &Field, an_entry: &str, parse: impl Fn(&str) -> Result<String, &'static str>) -> Allowed {
    if !field.is_set() {
        return Allowed::Any;
    }
    let items = field.items(&format!("a list, each {an_entry}")).unwrap_or_default();
    let entries = items.iter().filter_map(|item| item.parse(an_entry, |text| if text == "*" { Ok(None) } else { parse(text).map(Some) }));
    entries.collect::<Option<Vec<String>>>().map_or(Allowed::Any, Allowed::These)
}
