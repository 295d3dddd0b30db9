//! `authentication.client_certificates`: which names in a certificate make whom of its holder.

use crate::config::node::Value;
use crate::config::section::Field;
use crate::config::values::{A_DNS_NAME, A_SPIFFE_ID, dns_name, spiffe_id};
use crate::config::{CertificateName, ClientCertificate};
use std::collections::HashMap;

/// The entries, and the roles they name, which must be defined.
pub(super) fn client_certificates<'a>(field: &Field<'a>) -> (Vec<ClientCertificate>, Vec<Field<'a>>) {
    let items = field.items("a list of entries, each with one of spiffe, dns and common_name").unwrap_or_default();
    let mut entries = Vec::new();
    let mut roles = Vec::new();
    let mut taken: HashMap<CertificateName, &Field> = HashMap::new();
    for item in &items {
        let Some(entry) = entry(item, &mut roles) else { continue };
        match taken.insert(entry.name.clone(), item) {
            Some(first) => item.error(format!("certificates with this name are taken by {} already", first.path())),
            None => entries.push(entry),
        }
    }
    (entries, roles)
}

fn entry<'a>(field: &Field<'a>, roles: &mut Vec<Field<'a>>) -> Option<ClientCertificate> {
    let mut section = field.section()?;
    let names = [section.field("spiffe"), section.field("dns"), section.field("common_name")];
    let client_id = section.field("client_id").required("who the caller is").text("a name").map(str::to_owned);
    let own_roles = section.field("roles").items("a list of roles").unwrap_or_default();
    section.finish();
    if names.iter().filter(|name| name.is_set()).count() != 1 {
        field.error("expected exactly one of spiffe, dns and common_name");
    }
    let [spiffe, dns, common_name] = names;
    let spiffe = spiffe.parse(A_SPIFFE_ID, spiffe_id).map(CertificateName::Spiffe);
    let dns = dns.parse(A_DNS_NAME, dns_name).map(CertificateName::Dns);
    let common_name = common_name.text("a common name").map(|name| CertificateName::CommonName(name.to_owned()));
    let role_names = own_roles.iter().filter_map(|role| match role.value() {
        Some(Value::Text(name)) => Some(name.clone()),
        _ => None, // reported where roles are looked up
    });
    let role_names = role_names.collect();
    roles.extend(own_roles);
    Some(ClientCertificate { name: spiffe.or(dns).or(common_name)?, client_id: client_id?, roles: role_names, at: field.position() })
}
