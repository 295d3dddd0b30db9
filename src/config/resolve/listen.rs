//! `listen` and `operations`: our own two ports.

use crate::config::files::Content;
use crate::config::section::Field;
use crate::config::values::{AN_ADDRESS, socket_address};
use crate::config::{ClientCa, Listen, ListenTls, TlsVersion, Transport};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const DEFAULT_OPERATIONS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9902);

/// The placeholder of an address that is missing or wrong. Port 0, so that it equals nobody's.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The section, and the key of the CA of clients, when it is there; also when it has problems.
pub(super) struct Resolved<'a> {
    pub(super) value: Listen,
    pub(super) client_ca: Option<Field<'a>>,
}

pub(super) fn listen<'a>(field: &Field<'a>) -> Resolved<'a> {
    let Some(mut section) = field.section() else {
        return Resolved { value: Listen { address: NOWHERE, transport: Transport::InsecurePlaintext }, client_ca: None };
    };
    let address = section.field("address").required(AN_ADDRESS).parse(AN_ADDRESS, socket_address);
    let tls = section.field("tls");
    let plaintext = section.field("insecure_plaintext");
    let is_plaintext =
        plaintext.risky("calls and their credentials cross the network readable; only for a trusted TLS terminator in front");
    match (tls.is_set(), is_plaintext) {
        (true, true) => plaintext.error(format!("found both {} and insecure_plaintext, expected exactly one of them", tls.path())),
        (false, false) => tls.error("missing; expected a mapping with certificate and private_key, or insecure_plaintext: true beside it"),
        _ => {}
    }
    section.finish();
    let mut client_ca = None;
    let transport = listen_tls(&tls, &mut client_ca).map_or(Transport::InsecurePlaintext, Transport::Tls);
    Resolved { value: Listen { address: address.unwrap_or(NOWHERE), transport }, client_ca }
}

fn listen_tls<'a>(field: &Field<'a>, client_ca: &mut Option<Field<'a>>) -> Option<ListenTls> {
    let mut section = field.section()?;
    let certificate = section.field("certificate").required("the path of a PEM certificate chain").input_file(Content::Public);
    let private_key = section.field("private_key").required("the path of a PEM private key").input_file(Content::Secret);
    let minimum_version = section.field("minimum_version").word(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]);
    let (ca, asked_for) = (section.field("client_ca"), section.field("client_certificate"));
    section.finish();
    let file = ca.input_file(Content::Public);
    let required = asked_for.word(&[("optional", false), ("required", true)]).unwrap_or(true);
    if ca.is_set() {
        *client_ca = Some(ca);
    } else if asked_for.is_set() {
        asked_for.error("only beside client_ca, which says whom certificates may come from");
    }
    Some(ListenTls {
        certificate: certificate?,
        private_key: private_key?,
        minimum_version: minimum_version.unwrap_or(TlsVersion::Tls12),
        client_ca: file.map(|file| ClientCa { file, required }),
    })
}

pub(super) fn operations(field: &Field, listen: &Listen) -> SocketAddr {
    let mut address = field.clone();
    let mut operations = DEFAULT_OPERATIONS;
    if let Some(mut section) = field.section() {
        address = section.field("address");
        operations = address.parse(AN_ADDRESS, socket_address).unwrap_or(operations);
        section.finish();
    }
    if collide(operations, listen.address) {
        address.error(format!("{operations} collides with listen.address, expected a port of its own"));
    }
    operations
}

/// Whether only one of the two can be bound; `[::]` takes both families.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}
