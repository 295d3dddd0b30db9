//! Who the spans are of: an OpenTelemetry Resource, from the environment variables that every OpenTelemetry program knows
//! (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) and the host's name, which in Kubernetes is the pod's.

use super::otlp::{Attribute, append_attribute};

/// The encoded Resource of this process.
pub(super) fn of_this_process() -> Vec<u8> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    encoded(&attributes(|name| std::env::var(name).ok(), host.trim()))
}

fn encoded(attributes: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    attributes.iter().for_each(|(name, value)| append_attribute(&mut out, 1, name, Attribute::Text(value)));
    out
}

/// `OTEL_SERVICE_NAME` goes before the `service.name` of the other; what neither says is filled in.
fn attributes(env: impl Fn(&str) -> Option<String>, host: &str) -> Vec<(String, String)> {
    let mut attributes = env("OTEL_RESOURCE_ATTRIBUTES").and_then(|list| parsed(&list)).unwrap_or_default();
    let is = |name: &'static str| move |attribute: &(String, String)| attribute.0 == name;
    if let Some(service) = env("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        attributes.retain(|attribute| !is("service.name")(attribute));
        attributes.push(("service.name".to_owned(), service));
    }
    for (name, value) in [("service.name", "doorward"), ("host.name", host)] {
        if !value.is_empty() && !attributes.iter().any(is(name)) {
            attributes.push((name.to_owned(), value.to_owned()));
        }
    }
    attributes
}

/// `key=value,key=value`, values percent-encoded; the whole is discarded for an error in it, as the specification says.
fn parsed(list: &str) -> Option<Vec<(String, String)>> {
    let members = list.split(',').map(str::trim).filter(|member| !member.is_empty());
    members
        .map(|member| {
            let (name, value) = member.split_once('=')?;
            let name = Some(name.trim()).filter(|name| !name.is_empty())?;
            Some((name.to_owned(), percent_decoded(value.trim())?))
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        decoded.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(service: Option<&str>, list: Option<&str>, host: &str) -> String {
        let env = |name: &str| if name == "OTEL_SERVICE_NAME" { service } else { list }.map(str::to_owned);
        attributes(env, host).iter().map(|(name, value)| format!("{name}={value};")).collect()
    }

    #[test]
    fn the_environment_says_whose_spans_they_are() {
        assert_eq!(found(None, None, ""), "service.name=doorward;");
        assert_eq!(found(None, None, "pod-1"), "service.name=doorward;host.name=pod-1;");
        assert_eq!(found(Some("users"), Some("service.name=x, k8s.ns=a%2Cb"), "pod-1"), "k8s.ns=a,b;service.name=users;host.name=pod-1;");
        assert_eq!(found(None, Some("service.name=x,host.name=y"), "pod-1"), "service.name=x;host.name=y;");
        for bad in ["a", "=b", "a=%", "a=%zz", "a=%+1", "a=%ff", "good=1,bad"] {
            assert_eq!(found(None, Some(bad), ""), "service.name=doorward;", "{bad}");
        }
    }
}
