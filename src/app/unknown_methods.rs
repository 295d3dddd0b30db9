//! Rules of methods that the upstream does not have, when it is known what it has: most likely slips of the pen, and a rule
//! that never applies leaves its method to another rule or the default.

use crate::config::{Config, Problems, did_you_mean};
use crate::grpc::{MethodPath, MethodPattern, Services};

/// Services that come with gRPC's libraries and stand in no descriptor file of an application.
const OF_GRPC: [(&str, &[&str]); 4] = [
    ("grpc.health.v1.Health", &["Check", "List", "Watch"]),
    ("grpc.reflection.v1.ServerReflection", &["ServerReflectionInfo"]),
    ("grpc.reflection.v1alpha.ServerReflection", &["ServerReflectionInfo"]),
    (
        "grpc.channelz.v1.Channelz",
        &["GetTopChannels", "GetServers", "GetServer", "GetServerSockets", "GetChannel", "GetSubchannel", "GetSocket"],
    ),
];

/// Adds an error for each of them to `problems`.
pub fn refuse_unknown_methods(config: &Config, services: &Services, problems: &mut Problems) {
    let public = config.authentication.public_methods.iter().map(|public| (&public.pattern, &public.at));
    let rules = config.authorization.methods.iter().map(|rule| (&rule.pattern, &rule.at));
    for (pattern, at) in public.chain(rules) {
        if let Some(words) = why_unknown(pattern, services) {
            problems.error(at, words);
        }
    }
}

/// Why a call of this path reaches no method of the upstream, in words for the operator.
pub fn why_no_such_method(path: &str, services: &Services) -> Option<String> {
    MethodPath::parse(path)?;
    why_unknown(&MethodPattern::Exact(path.to_owned()), services)
}

fn why_unknown(pattern: &MethodPattern, services: &Services) -> Option<String> {
    match pattern {
        MethodPattern::Exact(path) => {
            let (service, method) = path.trim_start_matches('/').split_once('/')?;
            let Some(methods) = methods(service, services) else { return Some(no_service(service, services)) };
            let near = || did_you_mean(method, methods.iter().copied());
            (!methods.contains(&method)).then(|| format!("the upstream's service {service} has no method {method}{}", near()))
        }
        MethodPattern::Service(service) => methods(service, services).is_none().then(|| no_service(service, services)),
        MethodPattern::Package(package) => {
            let within = |service: &str| service.strip_prefix(&**package).is_some_and(|rest| rest.starts_with('.'));
            let none = !names(services).any(within);
            let packages = names(services).filter_map(|service| Some(service.rsplit_once('.')?.0));
            none.then(|| format!("the upstream has no service in the package {package}{}", did_you_mean(package, packages)))
        }
    }
}

fn no_service(service: &str, services: &Services) -> String {
    format!("the upstream has no service {service}{}", did_you_mean(service, names(services)))
}

/// Described ones, else those that gRPC is known to have.
fn methods<'a>(service: &str, services: &'a Services) -> Option<Vec<&'a str>> {
    match services.methods(service) {
        Some(methods) => Some(methods.iter().map(String::as_str).collect()),
        None => OF_GRPC.iter().find(|(name, _)| *name == service).map(|(_, methods)| methods.to_vec()),
    }
}

fn names(services: &Services) -> impl Iterator<Item = &str> {
    services.iter().map(|(service, _)| service).chain(OF_GRPC.iter().map(|(service, _)| *service))
}
