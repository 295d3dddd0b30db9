//! `identity_headers`: which field tells the upstream what; no two of them the same to an upstream that folds names.

use crate::config::section::Field;
use crate::config::values::{A_HEADER, fold_header, header_name};
use crate::config::{ClaimPath, IdentityHeaders};
use http::HeaderName;
use std::collections::HashMap;

pub(super) fn identity_headers(field: &Field) -> IdentityHeaders {
    let mut headers = IdentityHeaders {
        user_id: Some(HeaderName::from_static("user_id")),
        user_email: Some(HeaderName::from_static("user_email")),
        user_name: Some(HeaderName::from_static("user_name")),
        client_id: Some(HeaderName::from_static("client_id")),
        roles: Some(HeaderName::from_static("roles")),
        permissions: Some(HeaderName::from_static("permissions")),
        api_key_id: Some(HeaderName::from_static("api_key_id")),
        provider: None,
        claims: Vec::new(),
    };
    let Some(mut section) = field.section() else { return headers };
    let mut taken = Taken::default();
    for (key, header) in [
        ("user_id", &mut headers.user_id),
        ("user_email", &mut headers.user_email),
        ("user_name", &mut headers.user_name),
        ("client_id", &mut headers.client_id),
        ("roles", &mut headers.roles),
        ("permissions", &mut headers.permissions),
        ("api_key_id", &mut headers.api_key_id),
        ("provider", &mut headers.provider),
    ] {
        let field = section.field(key);
        if field.is_none_word() {
            *header = None;
        } else if let Some(name) = field.parse(&format!("{A_HEADER}, or none"), |text| match text {
            "off" => Err("our word is none"),
            _ => header_name(text),
        }) {
            *header = Some(name);
        }
        if let Some(name) = header {
            taken.claim(&field, name);
        }
    }
    for (claim, field) in section.field("claims").entries("a mapping of claim: header") {
        if claim.is_empty() {
            field.error("found an empty claim name, expected the path of a claim");
        } else if let Some(name) =
            field.parse(A_HEADER, |text| if text == "none" { Err("leave the claim out instead") } else { header_name(text) })
            && taken.claim(&field, &name)
        {
            headers.claims.push((ClaimPath(claim.to_owned()), name));
        }
    }
    section.finish();
    headers
}

/// Folded names and the keys that took them.
#[derive(Default)]
struct Taken(HashMap<String, String>);

impl Taken {
    fn claim(&mut self, field: &Field, name: &HeaderName) -> bool {
        match self.0.insert(fold_header(name.as_str()), field.path().to_owned()) {
            None => true,
            Some(other) => {
                field.error(format!("the header {:?} is the same to an upstream as that of {other}", name.as_str()));
                false
            }
        }
    }
}

/// Every name that is removed from requests, folded: the configured and the default ones.
pub(super) fn owned_names(headers: &IdentityHeaders) -> impl Iterator<Item = String> {
    let fields = [
        &headers.user_id,
        &headers.user_email,
        &headers.user_name,
        &headers.client_id,
        &headers.roles,
        &headers.permissions,
        &headers.api_key_id,
        &headers.provider,
    ];
    let configured = fields.into_iter().flatten().chain(headers.claims.iter().map(|(_, name)| name)).map(HeaderName::as_str);
    configured.chain(IdentityHeaders::DEFAULT_NAMES).map(fold_header)
}
