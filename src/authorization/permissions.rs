//! Permissions as numbers, so that a decision compares integers: every permission that a rule asks for, and every
//! wildcard that covers one of these, has a number. What a caller holds beyond that is kept for the identity headers only.

use crate::identity::Permission;
use std::collections::HashMap;

/// The numbers of one policy.
#[derive(Debug, Default)]
pub(super) struct Vocabulary(HashMap<Permission, u32>);

impl Vocabulary {
    /// Prepares a permission that a rule asks for.
    pub(super) fn require(&mut self, permission: &Permission) -> Required {
        let (resource, action) = permission.sides();
        let covers = [permission.as_str(), &format!("{resource}:*"), &format!("*:{action}"), "*:*"];
        let covered_by = covers.into_iter().filter_map(Permission::parse).map(|cover| self.number(cover)).collect();
        Required { permission: permission.clone(), covered_by }
    }

    /// Sorts out what somebody holds. Every rule must have been prepared before.
    pub(super) fn set<'a>(&self, held: impl Iterator<Item = &'a Permission>) -> PermissionSet {
        let mut all: Vec<Permission> = held.cloned().collect();
        all.sort_unstable();
        all.dedup();
        let mut numbers: Vec<u32> = all.iter().filter_map(|permission| self.0.get(permission).copied()).collect();
        numbers.sort_unstable();
        PermissionSet { all, numbers }
    }

    fn number(&mut self, permission: Permission) -> u32 {
        let next = u32::try_from(self.0.len()).expect("a configuration names fewer than 2^32 permissions");
        *self.0.entry(permission).or_insert(next)
    }
}

/// A permission that a rule asks for, and the numbers of the at most four that cover it.
#[derive(Debug)]
pub(super) struct Required {
    pub(super) permission: Permission,
    covered_by: Box<[u32]>,
}

/// What somebody holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PermissionSet {
    /// Sorted by bytes, each once.
    all: Vec<Permission>,
    /// Those of `all` that decide anything, sorted.
    numbers: Vec<u32>,
}

impl PermissionSet {
    pub(super) fn covers(&self, required: &Required) -> bool {
        required.covered_by.iter().any(|number| self.numbers.binary_search(number).is_ok())
    }

    pub(super) fn all(&self) -> &[Permission] {
        &self.all
    }
}

/// Whether holding `held` is enough where `required` is asked for: each side is equal or held as `*`. For words only;
/// decisions use the numbers.
pub(super) fn covers(held: &Permission, required: &Permission) -> bool {
    let ((held_resource, held_action), (resource, action)) = (held.sides(), required.sides());
    (held_resource == "*" || held_resource == resource) && (held_action == "*" || held_action == action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn permission(text: &str) -> Permission {
        Permission::parse(text).unwrap()
    }

    fn covered(held: &str, required: &str) -> bool {
        let mut vocabulary = Vocabulary::default();
        let required = vocabulary.require(&permission(required));
        vocabulary.set([permission(held)].iter()).covers(&required)
    }

    #[test]
    fn wildcards_are_held_and_never_guessed() {
        for (held, required, enough) in [
            ("users:read", "users:read", true),
            ("users:*", "users:read", true),
            ("*:read", "users:read", true),
            ("*:*", "users:read", true),
            ("users:write", "users:read", false),
            ("orders:read", "users:read", false),
            ("user:read", "users:read", false),
            ("orders:*", "users:read", false),
            ("*:write", "users:read", false),
            ("users:read", "users:*", false),
            ("users:*", "users:*", true),
            ("*:read", "users:*", false),
            ("*:*", "users:*", true),
            ("users:*", "*:*", false),
            ("*:*", "*:*", true),
            ("Users:read", "users:read", false),
        ] {
            assert_eq!(covered(held, required), enough, "{held} for {required}");
            assert_eq!(covers(&permission(held), &permission(required)), enough, "{held} for {required}");
        }
    }

    fn any_permission() -> impl Strategy<Value = Permission> {
        "(a|b|\\*):(r|w|\\*)".prop_map(|text| permission(&text))
    }

    proptest! {
        #[test]
        fn numbers_agree_with_words(
            rules in prop::collection::vec(any_permission(), 1..5),
            held in prop::collection::vec(any_permission(), 0..5),
        ) {
            let mut vocabulary = Vocabulary::default();
            let required: Vec<_> = rules.iter().map(|rule| vocabulary.require(rule)).collect();
            let set = vocabulary.set(held.iter());
            for required in &required {
                prop_assert_eq!(set.covers(required), held.iter().any(|held| covers(held, &required.permission)));
            }
        }
    }
}
