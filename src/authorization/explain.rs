//! The policy in words, for `doorward explain` and `doorward check`. Words only: whatever is said here is taken from the
//! same decision that calls get.

use super::permissions::{Required, covers};
use super::policy::{Grants, Policy, Requirement, Role, Route, accepts};
use crate::grpc::{MethodPath, Services};
use crate::identity::{Identity, Permission};
use crate::quote;

impl Policy {
    /// Which rule decides, what it asks for, what the caller holds and what is missing: one line each, the decision last.
    /// `caller` as in [`Policy::authorize`].
    pub fn explain(&self, route: Route, caller: Option<(&Identity, &Grants)>) -> Vec<String> {
        let requirement = self.requirement(route);
        let rule = self.route_labels().get(route.index()).map_or("default", |labels| &labels.rule);
        let mut lines = vec![format!("rule {rule}: {}", words(requirement))];
        if self.disabled {
            lines.push("allowed: authentication.mode is disabled, nothing is checked".to_owned());
            return lines;
        }
        match caller.filter(|(identity, _)| !identity.is_anonymous()) {
            None => lines.push("caller: anonymous".to_owned()),
            Some((identity, grants)) => {
                lines.push(format!("caller: {}", who(identity)));
                lines.push(format!("caller: roles [{}], permissions [{}]", join(grants.roles()), join(grants.permissions())));
                let undefined: Vec<&str> =
                    identity.roles.iter().filter(|role| !grants.roles().contains(role)).map(|role| &**role).collect();
                if !undefined.is_empty() {
                    lines.push(format!("caller: roles that authorization.roles does not define give nothing: {}", quote::list(undefined)));
                }
                self.explain_checks(requirement, identity, grants, &mut lines);
            }
        }
        lines.push(match self.decide(route, caller) {
            Ok(()) => "allowed".to_owned(),
            Err(denied) if self.authorize(route, caller).is_ok() => format!("allowed only because authorization.audit is true: {denied}"),
            Err(denied) => format!("refused: {denied}"),
        });
        lines
    }

    /// For `check`: one line a rule, in byte order, then the public methods and the default.
    pub fn summary(&self) -> Vec<String> {
        let mut rules = Vec::new();
        let mut public = Vec::new();
        let mut default = Vec::new();
        for (labels, requirement) in self.route_labels().iter().zip(&self.requirements) {
            match (requirement, &*labels.rule) {
                (Requirement::Public { pattern }, _) => public.push(format!("{pattern}: {}", words(requirement))),
                (_, "default") => default.push(format!("every other method: {}", words(requirement))),
                (_, pattern) => rules.push(format!("{pattern}: {}{}", words(requirement), self.granting_roles(requirement))),
            }
        }
        rules.sort_unstable();
        rules.into_iter().chain(public).chain(default).collect()
    }

    /// For `check`, of what the upstream is known to have: the methods of which no rule speaks, and who may call them.
    pub fn without_rule(&self, services: &Services) -> Vec<String> {
        let mut lines = Vec::new();
        let mut count = 0;
        for (service, methods) in services.iter() {
            let has_none = |method: &&String| self.has_no_rule(service, method);
            let without: Vec<&String> = methods.iter().filter(has_none).collect();
            count += without.len();
            match without.len() {
                0 => {}
                all if all == methods.len() => lines.push(format!("  /{service}/*: none of its {all} methods has a rule")),
                _ => lines.extend(without.iter().map(|method| format!("  /{service}/{method}: no rule"))),
            }
        }
        let default = self.requirements.first().map_or_else(String::new, words);
        lines.insert(0, format!("{count} of the upstream's {} methods have no rule: {default}", services.method_count()));
        lines
    }

    fn has_no_rule(&self, service: &str, method: &str) -> bool {
        let path = MethodPath::parse(&format!("/{service}/{method}"));
        path.is_some_and(|path| self.route(&path).is_default())
    }

    fn explain_checks(&self, requirement: &Requirement, identity: &Identity, grants: &Grants, lines: &mut Vec<String>) {
        let Requirement::Caller { any_of, all_of, from } = requirement else { return };
        if !from.is_empty() {
            let outcome = if accepts(from, identity) { "accepted" } else { "not accepted" };
            lines.push(format!("from [{}]: presented [{}], {outcome}", join(from), join(&identity.presented)));
        }
        for required in any_of.iter().chain(all_of) {
            let through = grants.permissions().iter().find(|held| covers(held, &required.permission));
            lines.push(match through {
                Some(held) if *held == required.permission => format!("{held}: held"),
                Some(held) => format!("{}: held through {held}", required.permission),
                None => format!("{}: missing; granted by the roles [{}]", required.permission, self.roles_with(required).join(", ")),
            });
        }
    }

    /// Who passes a rule by role alone.
    fn granting_roles(&self, requirement: &Requirement) -> String {
        let Requirement::Caller { any_of, all_of, from: _ } = requirement else { return String::new() };
        if any_of.is_empty() && all_of.is_empty() {
            return String::new();
        }
        let passes = |role: &Role| {
            let holds = |required: &Required| role.permissions.covers(required);
            (any_of.is_empty() || any_of.iter().any(holds)) && all_of.iter().all(holds)
        };
        let mut names: Vec<&str> = self.roles.values().filter(|role| passes(role)).map(|role| &*role.name).collect();
        names.sort_unstable();
        if names.is_empty() { " (no role alone is enough)".to_owned() } else { format!(" (roles: {})", names.join(", ")) }
    }

    fn roles_with(&self, required: &Required) -> Vec<&str> {
        let mut names: Vec<&str> = self.roles.values().filter(|role| role.permissions.covers(required)).map(|role| &*role.name).collect();
        names.sort_unstable();
        names
    }
}

/// What `authorization.users` and `authorization.clients` know a caller by.
fn who(identity: &Identity) -> String {
    let named = [("user_id", &identity.user_id), ("user_email", &identity.user_email), ("client_id", &identity.client_id)];
    let known: Vec<String> = named.iter().filter_map(|(name, value)| Some(format!("{name} {}", quote::text(value.as_deref()?)))).collect();
    if known.is_empty() { "without user_id, user_email and client_id".to_owned() } else { known.join(", ") }
}

/// What a route asks for, as the configuration would say it.
fn words(requirement: &Requirement) -> String {
    let (any_of, all_of, from) = match requirement {
        Requirement::Public { .. } => return "public, never looked at".to_owned(),
        Requirement::Anyone => return "anyone, anonymous callers too".to_owned(),
        Requirement::Nobody => return "nobody (authorization.default is deny)".to_owned(),
        Requirement::Caller { any_of, all_of, from } => (any_of, all_of, from),
    };
    let mut parts = Vec::new();
    match &**any_of {
        [] => {}
        [one] => parts.push(one.permission.to_string()),
        several => parts.push(format!("any of {}", join(&permissions(several)))),
    }
    if !all_of.is_empty() {
        parts.push(format!("all of {}", join(&permissions(all_of))));
    }
    let permissions = if parts.is_empty() { "any authenticated caller".to_owned() } else { parts.join(" and ") };
    if from.is_empty() { permissions } else { format!("{permissions}, by one of {}", join(from)) }
}

fn permissions(required: &[Required]) -> Vec<&Permission> {
    required.iter().map(|required| &required.permission).collect()
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Authorization, DefaultRule, MethodRule, Mode, Position, Role, Rule};
    use crate::grpc::MethodPattern;

    fn policy(audit: bool) -> Policy {
        let permissions = |list: &[&str]| list.iter().map(|text| Permission::parse(text).unwrap()).collect();
        let rule = |pattern: &str, rule| MethodRule { pattern: MethodPattern::parse(pattern).unwrap(), rule, at: Position::default() };
        let role = |name: &str, held: &[&str]| Role { name: name.into(), permissions: permissions(held), at: Position::default() };
        let caller = |any_of: &[&str], all_of: &[&str], from: &[&str]| Rule::Caller {
            any_of: permissions(any_of),
            all_of: permissions(all_of),
            from: from.iter().map(|name| (*name).to_owned()).collect(),
        };
        let authorization = Authorization {
            default: DefaultRule::Deny,
            roles: vec![role("viewer", &["users:read"]), role("admin", &["*:*"])],
            users: vec![],
            clients: vec![],
            methods: vec![
                rule("/u.S/Get", caller(&["users:read"], &[], &[])),
                rule("/u.S/Export", caller(&["users:read", "users:all"], &["users:export"], &["corporate"])),
                rule("/u.S/*", caller(&[], &[], &[])),
                rule("/o.*", Rule::Anyone),
            ],
            audit,
        };
        Policy::compile(&authorization, Mode::Optional, &[MethodPattern::parse("/grpc.health.v1.Health/*").unwrap()])
    }

    fn explain(policy: &Policy, path: &str, identity: &Identity) -> Vec<String> {
        policy.explain(policy.route(&MethodPath::parse(path).unwrap()), Some((identity, &policy.grants(identity))))
    }

    #[test]
    fn an_explanation_names_rule_holdings_and_what_is_missing() {
        let viewer = Identity { roles: vec!["viewer".into()], presented: vec!["corporate".into()], ..Identity::default() };
        assert_eq!(
            explain(&policy(false), "/u.S/Export", &viewer),
            [
                "rule /u.S/Export: any of users:read, users:all and all of users:export, by one of corporate",
                "caller: without user_id, user_email and client_id",
                "caller: roles [viewer], permissions [users:read]",
                "from [corporate]: presented [corporate], accepted",
                "users:read: held",
                "users:all: missing; granted by the roles [admin]",
                "users:export: missing; granted by the roles [admin]",
                "refused: the permission users:export is missing; held: users:read; of the roles: viewer",
            ]
        );
        let admin = Identity { roles: vec!["admin".into()], presented: vec!["api_keys".into()], ..Identity::default() };
        assert_eq!(explain(&policy(false), "/u.S/Get", &admin)[3..], ["users:read: held through *:*", "allowed"]);
        assert!(
            explain(&policy(false), "/u.S/Export", &admin).contains(&"from [corporate]: presented [api_keys], not accepted".to_owned())
        );
        let known = Identity { user_id: Some("alice\n".into()), roles: vec!["viewer".into(), "boss".into()], ..admin.clone() };
        assert_eq!(
            explain(&policy(false), "/u.S/Get", &known)[1..4],
            [
                r#"caller: user_id "alice\n""#,
                "caller: roles [viewer], permissions [users:read]",
                "caller: roles that authorization.roles does not define give nothing: boss",
            ]
        );
        assert_eq!(
            explain(&policy(false), "/u.S/Get", &Identity::default()),
            ["rule /u.S/Get: users:read", "caller: anonymous", "refused: the caller is anonymous and the rule is not `anyone`"]
        );
        assert_eq!(
            explain(&policy(true), "/x.S/Get", &admin).last().unwrap(),
            "allowed only because authorization.audit is true: no rule speaks of the method and authorization.default is deny"
        );
    }

    #[test]
    fn the_summary_has_a_line_for_every_rule() {
        assert_eq!(
            policy(false).summary(),
            [
                "/o.*: anyone, anonymous callers too",
                "/u.S/*: any authenticated caller",
                "/u.S/Export: any of users:read, users:all and all of users:export, by one of corporate (roles: admin)",
                "/u.S/Get: users:read (roles: admin, viewer)",
                "/grpc.health.v1.Health/*: public, never looked at",
                "every other method: nobody (authorization.default is deny)",
            ]
        );
    }
}
