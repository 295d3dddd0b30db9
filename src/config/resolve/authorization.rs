//! `authorization`: roles, who has them, and what methods ask for; every name that is used must be defined.

use super::authentication::{Resolved, parse_pattern};
use crate::config::nearest::did_you_mean;
use crate::config::node::Value;
use crate::config::section::Field;
use crate::config::{Assignment, Authorization, DefaultRule, MethodRule, Mode, Role, Rule};
use crate::identity::Permission;
use std::collections::BTreeSet;

const A_PERMISSION: &str = "a permission such as users:read";
const A_RULE: &str = "authenticated, anyone, a permission, a list of permissions, or a mapping of any_of, all_of and from";

pub(super) fn authorization(field: &Field, authentication: &Resolved<'_>) -> Authorization {
    let mut value = Authorization {
        default: DefaultRule::Deny,
        roles: Vec::new(),
        users: Vec::new(),
        clients: Vec::new(),
        methods: Vec::new(),
        audit: false,
    };
    let mut defined = BTreeSet::new();
    if let Some(mut section) = field.section() {
        let default = section.field("default").word(&[("deny", DefaultRule::Deny), ("authenticated", DefaultRule::Authenticated)]);
        value.default = default.unwrap_or(DefaultRule::Deny);
        (value.roles, defined) = roles(&section.field("roles"));
        value.users = assignments(&section.field("users"), &defined);
        value.clients = assignments(&section.field("clients"), &defined);
        let rules = Rules { authentication, roles: &value.roles };
        let methods = section.field("methods").entries("a mapping of method: rule");
        value.methods = methods.iter().filter_map(|(pattern, field)| rules.method(pattern, field)).collect();
        value.audit = section.field("audit").risky("callers without the needed permission are let through; the refusal is only recorded");
        section.finish();
    }
    for role in &authentication.certificate_roles {
        defined_role(role, &defined);
    }
    if value.methods.is_empty() && value.default == DefaultRule::Deny && authentication.value.mode != Mode::Disabled {
        field.warning("no method has a rule and the default is deny: every call is refused");
    }
    value
}

/// The roles that could be read, and the names of all: those with a problem are defined too.
fn roles<'a>(field: &Field<'a>) -> (Vec<Role>, BTreeSet<&'a str>) {
    let mut roles = Vec::new();
    let mut defined = BTreeSet::new();
    for (name, field) in field.entries("a mapping of role: [permissions]") {
        if name.is_empty() || name == "*" {
            field.error("this cannot be the name of a role, expected a word");
            continue;
        }
        defined.insert(name);
        let items = field.items("a list of permissions such as [users:read]").unwrap_or_default();
        let permissions = items.iter().filter_map(permission).collect();
        roles.push(Role { name: name.to_owned(), permissions, at: field.position() });
    }
    (roles, defined)
}

fn assignments(field: &Field, defined: &BTreeSet<&str>) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (subject, field) in field.entries("a mapping of name: [roles]") {
        if subject.is_empty() {
            field.error("found an empty name, expected whom the roles are for");
            continue;
        }
        let items = field.items("a list of roles").unwrap_or_default();
        let roles = items.iter().filter_map(|item| defined_role(item, defined)).map(str::to_owned).collect();
        assignments.push(Assignment { subject: subject.to_owned(), roles, at: field.position() });
    }
    assignments
}

fn defined_role<'a>(item: &Field<'a>, defined: &BTreeSet<&str>) -> Option<&'a str> {
    let role = item.text("the name of a role")?;
    if !defined.contains(role) {
        let names = defined.iter().copied().collect::<Vec<_>>();
        let expected = one_of(&names, "role of authorization.roles");
        item.error(format!("the role {role:?} is not defined, expected {expected}{}", did_you_mean(role, names)));
        return None;
    }
    Some(role)
}

/// The names there are, when they are few.
fn one_of(names: &[&str], what: &str) -> String {
    match names.len() {
        0 => format!("a {what}, and there is none"),
        1..=20 => format!("one of {}", names.join(", ")),
        _ => format!("a {what}"),
    }
}

fn permission(field: &Field) -> Option<Permission> {
    field.parse(A_PERMISSION, |text| Permission::parse(text).ok_or("resource:action, either side may be *"))
}

/// What rules refer to.
struct Rules<'a> {
    authentication: &'a Resolved<'a>,
    roles: &'a [Role],
}

impl Rules<'_> {
    fn method(&self, pattern: &str, field: &Field) -> Option<MethodRule> {
        let rule = self.rule(field);
        match parse_pattern(pattern) {
            Ok(pattern) => Some(MethodRule { pattern, rule: rule?, at: field.position() }),
            Err(expected) => {
                field.error(format!("the key is no method pattern, expected {expected}"));
                None
            }
        }
    }

    fn rule(&self, field: &Field) -> Option<Rule> {
        match field.value()? {
            Value::Text(text) => self.word(field, text),
            Value::List(_) => Some(Rule::Caller { any_of: self.permissions(field)?, all_of: Vec::new(), from: Vec::new() }),
            Value::Map(_) => {
                let mut section = field.section()?;
                let (any_of, all_of, from) = (section.field("any_of"), section.field("all_of"), section.field("from"));
                section.finish();
                if !any_of.is_set() && !all_of.is_set() && !from.is_set() {
                    field.error("nothing is asked for here, expected at least one of any_of, all_of and from (or the word authenticated)");
                }
                // All three are read before any of them ends it: each may have its own problems.
                let (any_of, all_of, from) = (self.optional(&any_of), self.optional(&all_of), self.from(&from));
                Some(Rule::Caller { any_of: any_of?, all_of: all_of?, from: from? })
            }
            _ => {
                field.wrong(A_RULE, "");
                None
            }
        }
    }

    fn word(&self, field: &Field, text: &str) -> Option<Rule> {
        match text {
            "authenticated" => Some(Rule::Caller { any_of: Vec::new(), all_of: Vec::new(), from: Vec::new() }),
            "anyone" => {
                if self.authentication.value.mode != Mode::Optional {
                    field.error("anyone is a rule only with authentication.mode: optional (public_methods are open in every mode)");
                }
                Some(Rule::Anyone)
            }
            _ if text.contains(':') => {
                let permission = permission(field)?;
                self.warn_if_unreachable(field, &permission);
                Some(Rule::Caller { any_of: vec![permission], all_of: Vec::new(), from: Vec::new() })
            }
            _ => {
                field.wrong(A_RULE, did_you_mean(text, ["authenticated", "anyone"]).trim_start_matches("; "));
                None
            }
        }
    }

    /// At least one permission.
    fn permissions(&self, field: &Field) -> Option<Vec<Permission>> {
        let items = field.some_items("a list of at least one permission")?;
        let mut permissions = Vec::new();
        for item in &items {
            let permission = permission(item);
            permission.iter().for_each(|permission| self.warn_if_unreachable(item, permission));
            permissions.push(permission);
        }
        // A rule without one of its permissions would be another rule.
        permissions.into_iter().collect()
    }

    fn optional(&self, field: &Field) -> Option<Vec<Permission>> {
        if field.is_set() { self.permissions(field) } else { Some(Vec::new()) }
    }

    fn from(&self, field: &Field) -> Option<Vec<String>> {
        if !field.is_set() {
            return Some(Vec::new());
        }
        let known = &self.authentication.credentials;
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut from = Vec::new();
        for item in field.some_items("a list of at least one credential's name")? {
            let Some(name) = item.text("the name of a credential") else { continue };
            if !names.contains(&name) {
                let expected = one_of(&names, "configured credential");
                item.error(format!(
                    "the credential {name:?} is not configured, expected {expected}{}",
                    did_you_mean(name, names.iter().copied())
                ));
            }
            from.push(name.to_owned());
        }
        Some(from)
    }

    fn warn_if_unreachable(&self, field: &Field, permission: &Permission) {
        let (resource, action) = permission.sides();
        let covers = |held: &str, needed: &str| held == "*" || held == needed;
        let granted = self.roles.iter().flat_map(|role| &role.permissions).any(|held| {
            let (held_resource, held_action) = held.sides();
            covers(held_resource, resource) && covers(held_action, action)
        });
        if !granted {
            field.warning(format!("no role grants {permission}: only credentials that carry it themselves may call"));
        }
    }
}
