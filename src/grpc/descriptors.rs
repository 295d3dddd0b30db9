//! Which services and methods there are, by their descriptors (google/protobuf/descriptor.proto): what
//! `protoc --descriptor_set_out` and `buf build` write, and what a server's reflection answers.
//!
//! Only names are read, so a protobuf library would be much for little. Whoever made the bytes decides neither how much is
//! remembered nor what a name may hold.

use super::MethodPath;
use super::message::{NotProtobuf, length_delimited};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Far above what any server has.
const MOST_METHODS: usize = 100_000;
/// Of a service's full name or a method's: a package is told once and stands in the name of each of its services.
const LONGEST_NAME: usize = 512;

/// Services by their full names, in order, with the names of their methods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    services: BTreeMap<String, BTreeSet<String>>,
    methods: usize,
}

/// Why bytes are no descriptors; the `Display` is for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDescriptors {
    /// They are something else.
    Malformed,
    /// A name that no method can have.
    Name,
    /// More than any server has.
    TooMany,
}

impl fmt::Display for NoDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoDescriptors::Malformed => "it is no FileDescriptorSet, expected what `protoc --descriptor_set_out` or `buf build -o` writes",
            NoDescriptors::Name => "a name in it is none that a service or method can have",
            NoDescriptors::TooMany => "it describes more than 100000 methods",
        })
    }
}

impl From<NotProtobuf> for NoDescriptors {
    fn from(NotProtobuf: NotProtobuf) -> NoDescriptors {
        NoDescriptors::Malformed
    }
}

impl Services {
    /// Those of a `FileDescriptorSet`.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn of_set(set: &[u8]) -> Result<Services, NoDescriptors> {
        let mut services = Services::default();
        each(set, 1, |file| services.add_file(file))?;
        Ok(services)
    }

    /// Adds those of a `FileDescriptorProto`.
    ///
    /// # Errors
    /// The bytes are none; some of its services may have been added.
    pub fn add_file(&mut self, file: &[u8]) -> Result<(), NoDescriptors> {
        // Its place in the file is anybody's choice.
        let package = text(file, 2)?;
        each(file, 6, |service| self.add_service(package, service))
    }

    fn add_service(&mut self, package: &str, service: &[u8]) -> Result<(), NoDescriptors> {
        let name = text(service, 1)?;
        let full = if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") };
        // The same grammar as that of calls.
        let valid = |method: &str| method.len() <= LONGEST_NAME && MethodPath::parse(&format!("/{full}/{method}")).is_some();
        if full.len() > LONGEST_NAME || !valid("Method") {
            return Err(NoDescriptors::Name);
        }
        let methods = self.services.entry(full.clone()).or_default();
        each(service, 2, |method| {
            let name = text(method, 1)?;
            if !valid(name) {
                return Err(NoDescriptors::Name);
            }
            self.methods += usize::from(methods.insert(name.to_owned()));
            if self.methods > MOST_METHODS { Err(NoDescriptors::TooMany) } else { Ok(()) }
        })?;
        if self.services.len() > MOST_METHODS { Err(NoDescriptors::TooMany) } else { Ok(()) }
    }

    /// The methods of a service, if there is one of this full name.
    pub fn methods(&self, service: &str) -> Option<&BTreeSet<String>> {
        self.services.get(service)
    }

    /// Every service with its methods, in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.services.iter().map(|(service, methods)| (service.as_str(), methods))
    }

    /// How many methods they have together.
    pub fn method_count(&self) -> usize {
        self.methods
    }
}

/// Hands over the content of each field of this number.
fn each<'a>(message: &'a [u8], number: u64, mut take: impl FnMut(&'a [u8]) -> Result<(), NoDescriptors>) -> Result<(), NoDescriptors> {
    for field in length_delimited(message) {
        let (found, content) = field?;
        if found == number {
            take(content)?;
        }
    }
    Ok(())
}

/// The field of this number; the last one, as protobuf has it. No longer than a name may be: it goes into the names of many.
fn text(message: &[u8], number: u64) -> Result<&str, NoDescriptors> {
    let mut text = "";
    each(message, number, |bytes| {
        if bytes.len() > LONGEST_NAME {
            return Err(NoDescriptors::Name);
        }
        text = std::str::from_utf8(bytes).map_err(|_| NoDescriptors::Malformed)?;
        Ok(())
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::message::append_field;
    use super::*;
    use proptest::prelude::*;

    fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut message = Vec::new();
        fields.iter().for_each(|(number, content)| append_field(&mut message, *number, content));
        message
    }

    fn service(name: &str, methods: &[&str]) -> Vec<u8> {
        let methods: Vec<Vec<u8>> = methods.iter().map(|name| message(&[(1, name.as_bytes()), (2, b".a.In")])).collect();
        let mut all: Vec<(u8, &[u8])> = vec![(1, name.as_bytes())];
        all.extend(methods.iter().map(|method| (2, method.as_slice())));
        message(&all)
    }

    fn set(package: &[u8], services: &[Vec<u8>]) -> Vec<u8> {
        // The package last: nothing says that it comes first.
        let mut fields: Vec<(u8, &[u8])> = services.iter().map(|service| (6, service.as_slice())).collect();
        fields.push((2, package));
        message(&[(1, &message(&fields))])
    }

    #[test]
    fn services_have_their_packages_name() {
        let both = [set(b"a.b", &[service("S", &["Get", "Put"]), service("T", &[])]), set(b"", &[service("U", &["M"])])].concat();
        let services = Services::of_set(&both).unwrap();
        let found: Vec<String> = services.iter().map(|(service, methods)| format!("{service} {methods:?}")).collect();
        assert_eq!(found, [r#"U {"M"}"#, r#"a.b.S {"Get", "Put"}"#, "a.b.T {}"]);
        assert_eq!((services.method_count(), services.methods("a.b.S").unwrap().len(), services.methods("S")), (3, 2, None));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (bytes, why) in [
            (b"syntax = \"proto3\";".to_vec(), NoDescriptors::Malformed),
            (vec![0x1f, 0x8b, 8, 0], NoDescriptors::Malformed),
            (set(b"\xff", &[]), NoDescriptors::Malformed),
            (set(b"a/b", &[service("S", &[])]), NoDescriptors::Name),
            (set(b"a", &[service("", &[])]), NoDescriptors::Name),
            (set(b"a", &[service("S", &["x y"])]), NoDescriptors::Name),
            (set(&[b'a'; 513], &[service("S", &[])]), NoDescriptors::Name),
            (set(b"a", &[service("S", &[&"x".repeat(513)])]), NoDescriptors::Name),
        ] {
            assert_eq!(Services::of_set(&bytes), Err(why), "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        }
        let names: Vec<String> = (0..=MOST_METHODS).map(|number| format!("M{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(Services::of_set(&set(b"a", &[service("S", &names)])), Err(NoDescriptors::TooMany));
        assert!(Services::of_set(&set(b"a", &[service("S", &names[1..])])).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Services::of_set(&bytes);
            let _ = Services::of_set(&set(&bytes, std::slice::from_ref(&bytes)));
        }
    }
}
