//! Which of many patterns speaks of a method: exact beats service beats the longest package, whatever their order.
//!
//! The cost is one look-up for the method, one for its service, and one for each package around it that a pattern could
//! name; it does not depend on how many patterns there are, and a path of thousands of dots costs no more than others.

use crate::grpc::{MethodPath, MethodPattern};
use std::collections::HashMap;

/// Patterns and the number of what each stands for.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    exact: HashMap<Box<str>, u32>,
    services: HashMap<Box<str>, u32>,
    packages: HashMap<Box<str>, u32>,
    /// Bytes of the longest package in `packages`: longer prefixes of a path are not worth hashing. Without this bound a
    /// service name of n dots would cost n² bytes of hashing.
    longest_package: usize,
}

impl Matcher {
    pub(super) fn insert(&mut self, pattern: &MethodPattern, number: u32) {
        match pattern {
            MethodPattern::Exact(path) => self.exact.insert(path.as_str().into(), number),
            MethodPattern::Service(service) => self.services.insert(service.as_str().into(), number),
            MethodPattern::Package(package) => {
                self.longest_package = self.longest_package.max(package.len());
                self.packages.insert(package.as_str().into(), number)
            }
        };
    }

    pub(super) fn find(&self, path: &MethodPath) -> Option<u32> {
        self.exact.get(path.as_str()).or_else(|| self.services.get(path.service())).copied().or_else(|| self.package(path.service()))
    }

    fn package(&self, service: &str) -> Option<u32> {
        if self.packages.is_empty() {
            return None; // most policies name none: not worth a look at the path
        }
        // The dot that ends the longest package stands just behind its bytes. Paths are ASCII, so every cut is a boundary.
        let reach = service.get(..service.len().min(self.longest_package + 1))?;
        reach.rmatch_indices('.').find_map(|(dot, _)| self.packages.get(reach.get(..dot)?).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(patterns: &[&str]) -> Matcher {
        let mut matcher = Matcher::default();
        for (number, pattern) in patterns.iter().enumerate() {
            matcher.insert(&MethodPattern::parse(pattern).unwrap(), number as u32);
        }
        matcher
    }

    fn find(patterns: &[&str], path: &str) -> Option<String> {
        matcher(patterns).find(&MethodPath::parse(path).unwrap()).map(|number| patterns[number as usize].to_owned())
    }

    #[test]
    fn exact_beats_service_beats_the_longest_package_in_any_order() {
        let mut patterns = ["/a.*", "/a.b.*", "/a.b.C/*", "/a.b.C/D"];
        for _ in 0..2 {
            assert_eq!(find(&patterns, "/a.b.C/D").unwrap(), "/a.b.C/D");
            assert_eq!(find(&patterns, "/a.b.C/E").unwrap(), "/a.b.C/*");
            assert_eq!(find(&patterns, "/a.b.D/E").unwrap(), "/a.b.*");
            assert_eq!(find(&patterns, "/a.b.c.D/E").unwrap(), "/a.b.*");
            assert_eq!(find(&patterns, "/a.bb.C/D").unwrap(), "/a.*");
            assert_eq!(find(&patterns, "/a.B/C").unwrap(), "/a.*");
            patterns.reverse();
        }
    }

    #[test]
    fn names_are_compared_whole_and_in_their_case() {
        let patterns = ["/a.B/C", "/a.D/*", "/a.b.*"];
        for other in ["/a.B/c", "/a.B/CC", "/a.B/D", "/A.D/X", "/a.DD/X", "/a.D.E/X", "/a.b/X", "/a.bc.D/X", "/b.D/X", "/aXb.C/D"] {
            assert_eq!(find(&patterns, other), None, "{other}");
        }
    }

    #[test]
    fn a_hostile_number_of_dots_is_cheap() {
        let matcher = matcher(&["/a.b.*"]);
        let deep = MethodPath::parse(&format!("/{}X/M", "a.".repeat(8_000))).unwrap();
        let begun = std::time::Instant::now();
        for _ in 0..1_000 {
            assert_eq!(matcher.find(&deep), None);
        }
        // About 20 µs each unoptimised; without the bound about 100 ms each, optimised.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    /// The rule of precedence read literally, over every pattern.
    fn naive(patterns: &[MethodPattern], path: &MethodPath) -> Option<MethodPattern> {
        let rank = |pattern: &MethodPattern| match pattern {
            MethodPattern::Exact(exact) => (exact == path.as_str()).then_some(usize::MAX),
            MethodPattern::Service(service) => (service == path.service()).then_some(usize::MAX - 1),
            MethodPattern::Package(package) => path.service().starts_with(&format!("{package}.")).then_some(package.len()),
        };
        patterns
            .iter()
            .filter_map(|pattern| Some((rank(pattern)?, pattern)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, pattern)| pattern.clone())
    }

    fn pattern() -> impl Strategy<Value = MethodPattern> {
        prop_oneof!["/[ab]{1,2}(\\.[ab]{1,2}){0,3}/[ab]", "/[ab]{1,2}(\\.[ab]{1,2}){0,3}/\\*", "/[ab]{1,2}(\\.[ab]{1,2}){0,3}\\.\\*"]
            .prop_map(|text| MethodPattern::parse(&text).unwrap())
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_reading(patterns in prop::collection::hash_set(pattern(), 0..20), path in "/[ab]{1,2}(\\.[ab]{1,2}){0,4}/[ab]") {
            let patterns: Vec<_> = patterns.into_iter().collect();
            let mut matcher = Matcher::default();
            for (number, pattern) in patterns.iter().enumerate() {
                matcher.insert(pattern, number as u32);
            }
            let path = MethodPath::parse(&path).unwrap();
            let found = matcher.find(&path).map(|number| patterns[number as usize].clone());
            prop_assert_eq!(found, naive(&patterns, &path));
        }
    }
}
