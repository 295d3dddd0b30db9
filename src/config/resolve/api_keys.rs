//! `authentication.api_keys`: where the keys arrive and where their records are.

use super::headers::owned_names;
use crate::config::files::Content;
use crate::config::section::Field;
use crate::config::values::{A_HEADER, fold_header, header_name};
use crate::config::{ApiKeys, IdentityHeaders, Listen};
use crate::secret::Secret;
use http::HeaderName;

pub(super) fn api_keys(field: &Field, listen: &Listen, identity_headers: &IdentityHeaders) -> Option<ApiKeys> {
    let mut section = field.section()?;
    let header_field = section.field("header");
    let header = header_field.parse(A_HEADER, |text| {
        let name = header_name(text)?;
        let folded = fold_header(text);
        if owned_names(identity_headers).any(|owned| owned == folded) { Err("that is an identity header") } else { Ok(name) }
    });
    let header = header.unwrap_or(HeaderName::from_static("x-api-key"));
    if !header_field.is_set() && owned_names(identity_headers).any(|owned| owned == "x-api-key") {
        header_field.error("the default x-api-key is an identity header too; name another");
    }
    let (file, development_key) = (section.field("file"), section.field("development_key").secret());
    if !file.is_set() && !development_key.is_set() {
        file.error("missing; expected the path of a key file (doorward keys create makes records for it)");
    }
    let key = development_key.text("a text");
    if key.is_some() {
        development_key.warning("whoever knows this one text may call everything (*:*); for development only");
    }
    let anywhere = section.field("insecure_development_key").risky("the development key is accepted from other machines too");
    if key.is_some() && !anywhere && !listen.address.ip().is_loopback() {
        development_key.error("only while listen.address is loopback, or with insecure_development_key: true beside it");
    }
    section.finish();
    Some(ApiKeys { header, file: file.input_file(Content::Secret), development_key: key.map(|text| Secret::new(text.as_bytes().to_vec())) })
}
