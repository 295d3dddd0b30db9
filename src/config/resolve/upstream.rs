//! `upstream`: the service behind us.

use crate::config::files::Content;
use crate::config::section::Field;
use crate::config::values::{self, AN_UPSTREAM};
use crate::config::{InputFile, Upstream, UpstreamAddress, UpstreamHealth, UpstreamTls};
use std::time::Duration;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn upstream(field: &Field) -> Upstream {
    let mut upstream = Upstream {
        address: UpstreamAddress::Tcp { host: String::new(), port: 0 },
        tls: None,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        health: UpstreamHealth::Service(String::new()),
        insecure_exposed: false,
        at: field.position(),
    };
    let Some(mut section) = field.section() else { return upstream };
    let address = section.field("address").required(AN_UPSTREAM).hiding_userinfo();
    let url = address.parse(AN_UPSTREAM, values::upstream);
    upstream.at = address.position();
    let tls = section.field("tls");
    if let Some(url) = url {
        if !url.https && tls.is_set() {
            tls.error("found tls beside an address without TLS, expected an https:// address with it");
        }
        upstream.address = match url.address {
            UpstreamAddress::Unix(path) => UpstreamAddress::Unix(address.base().join(path)),
            tcp => tcp,
        };
        upstream.tls = url.https.then(|| default_tls(&upstream.address));
    }
    if let Some(named) = upstream_tls(&tls)
        && let Some(tls) = &mut upstream.tls
    {
        tls.ca = named.ca;
        tls.client = named.client;
        tls.server_name = named.server_name.unwrap_or(std::mem::take(&mut tls.server_name));
    }
    if let Some(timeout) = section.field("connect_timeout").duration(Duration::from_millis(1)) {
        upstream.connect_timeout = timeout;
    }
    let health = section.field("health_service");
    upstream.health = if health.is_none_word() {
        UpstreamHealth::Connection
    } else {
        let name = health.parse("the name of a service, \"\" for the whole server, or none", |text| match text {
            "off" => Err("our word is none"),
            _ if text.contains(|c: char| c.is_whitespace() || c.is_control()) => Err("a service name has no white space"),
            _ => Ok(text),
        });
        UpstreamHealth::Service(name.unwrap_or_default().to_owned())
    };
    upstream.insecure_exposed = section
        .field("insecure_exposed")
        .risky("ready even while others can reach the upstream and go around Doorward with forged headers");
    section.finish();
    upstream
}

fn default_tls(address: &UpstreamAddress) -> UpstreamTls {
    let server_name = match address {
        UpstreamAddress::Tcp { host, .. } => host.clone(),
        UpstreamAddress::Unix(_) => String::new(),
    };
    UpstreamTls { ca: None, server_name, client: None }
}

/// What an operator wrote; the rest is by the address.
struct NamedTls {
    ca: Option<InputFile>,
    server_name: Option<String>,
    client: Option<(InputFile, InputFile)>,
}

fn upstream_tls(field: &Field) -> Option<NamedTls> {
    let mut section = field.section()?;
    let ca = section.field("ca").input_file(Content::Public);
    let server_name = section.field("server_name").text("the name in the upstream's certificate").map(str::to_owned);
    let (certificate, private_key) = (section.field("certificate"), section.field("private_key"));
    match (certificate.is_set(), private_key.is_set()) {
        (true, false) => private_key.error("missing; expected the private key of the certificate beside it"),
        (false, true) => certificate.error("missing; expected the certificate of the private key beside it"),
        _ => {}
    }
    section.finish();
    let client = certificate.input_file(Content::Public).zip(private_key.input_file(Content::Secret));
    Some(NamedTls { ca, server_name, client })
}
