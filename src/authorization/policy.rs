//! The compiled policy of one configuration generation. Everything that depends on how many rules, users or roles there
//! are is done when it is compiled; a decision is a few look-ups by number.

use super::decision::{Denied, Permit};
use super::matcher::Matcher;
use super::permissions::{PermissionSet, Required, Vocabulary};
use crate::config;
use crate::grpc::{MethodPath, MethodPattern};
use crate::identity::{Identity, Permission};
use std::collections::HashMap;
use std::sync::Arc;

/// The rules, roles and assignments of one configuration generation.
#[derive(Debug)]
pub struct Policy {
    /// `authentication.mode: disabled`: nothing is checked.
    pub(super) disabled: bool,
    /// `authorization.audit`: PERMISSION_DENIED is recorded and let through.
    pub(super) audit: bool,
    public: Matcher,
    rules: Matcher,
    /// By route: the default, then the rules, then the public methods.
    pub(super) requirements: Vec<Requirement>,
    labels: Vec<RouteLabels>,
    vocabulary: Vocabulary,
    pub(super) roles: HashMap<Box<str>, Arc<Role>>,
    users_by_email: Assignments,
    users_by_id: Assignments,
    clients: Assignments,
}

type Assignments = HashMap<Box<str>, Vec<Arc<Role>>>;

/// The rule that speaks of a method: a number within its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    index: u32,
    public: bool,
}

impl Route {
    /// The place of this route in [`Policy::route_labels`].
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Whether no rule speaks of the method.
    pub(super) fn is_default(self) -> bool {
        self.index == DEFAULT && !self.public
    }

    /// Whether the method is one of `authentication.public_methods`.
    pub fn is_public(self) -> bool {
        self.public
    }
}

/// A route in words that come from the configuration only, never from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLabels {
    /// `package.Service`, or `other` where the pattern names a package or nothing.
    pub grpc_service: Arc<str>,
    /// The method, or `other` where the pattern names none.
    pub grpc_method: Arc<str>,
    /// The pattern of the rule, or `default`, or `public`.
    pub rule: Arc<str>,
}

/// What a route asks for.
#[derive(Debug)]
pub(super) enum Requirement {
    /// Nothing, not even a look at credentials.
    Public {
        pattern: MethodPattern,
    },
    Anyone,
    /// `default: deny`.
    Nobody,
    /// A verified caller; empty lists are not asked.
    Caller {
        any_of: Box<[Required]>,
        all_of: Box<[Required]>,
        from: Arc<[Box<str>]>,
    },
}

/// A role with a definition.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: Arc<str>,
    pub(super) permissions: Arc<PermissionSet>,
}

/// What a caller effectively holds under one policy: worked out once a verified credential, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    roles: Arc<[Arc<str>]>,
    pub(super) permissions: Arc<PermissionSet>,
}

impl Grants {
    /// Roles with a definition, of the credentials and of the assignments; in byte order, each once.
    pub fn roles(&self) -> &[Arc<str>] {
        &self.roles
    }

    /// Direct permissions and those of the roles; in byte order, each once.
    pub fn permissions(&self) -> &[Permission] {
        self.permissions.all()
    }
}

impl Policy {
    /// Compiles a configuration that is validated already.
    pub fn compile<'a>(
        config: &config::Authorization,
        mode: config::Mode,
        public_methods: impl IntoIterator<Item = &'a MethodPattern>,
    ) -> Policy {
        let mut vocabulary = Vocabulary::default();
        let mut requirements = vec![match config.default {
            config::DefaultRule::Deny => Requirement::Nobody,
            config::DefaultRule::Authenticated => Requirement::authenticated(),
        }];
        let mut labels = vec![RouteLabels::unnamed("default")];

        let (mut rules, mut public) = (Matcher::default(), Matcher::default());
        for config::MethodRule { pattern, rule, at: _ } in &config.methods {
            rules.insert(pattern, next_index(&requirements));
            requirements.push(Requirement::compile(rule, &mut vocabulary));
            labels.push(RouteLabels::of(pattern, &pattern.to_string()));
        }
        for pattern in public_methods {
            public.insert(pattern, next_index(&requirements));
            requirements.push(Requirement::Public { pattern: pattern.clone() });
            labels.push(RouteLabels::of(pattern, "public"));
        }

        let roles = compile_roles(&config.roles, &vocabulary);
        let (emails, ids): (Vec<_>, Vec<_>) = config.users.iter().partition(|user| user.subject.contains('@'));
        Policy {
            disabled: mode == config::Mode::Disabled,
            audit: config.audit,
            public,
            rules,
            requirements,
            labels,
            users_by_email: assign(emails.into_iter(), &roles),
            users_by_id: assign(ids.into_iter(), &roles),
            clients: assign(config.clients.iter(), &roles),
            roles,
            vocabulary,
        }
    }

    /// The rule that speaks of a method: public methods first, then exact, service, longest package, default.
    pub fn route(&self, path: &MethodPath) -> Route {
        match self.public.find(path) {
            Some(index) => Route { index, public: true },
            None => Route { index: self.rules.find(path).unwrap_or(DEFAULT), public: false },
        }
    }

    /// Every route in words, by [`Route::index`].
    pub fn route_labels(&self) -> &[RouteLabels] {
        &self.labels
    }

    /// What a caller holds: once a verified credential set, not once a call.
    pub fn grants(&self, identity: &Identity) -> Grants {
        let carried = identity.roles.iter().filter_map(|name| self.roles.get(name.as_ref()));
        let assigned = [
            assigned(&self.users_by_email, identity.user_email.as_deref()),
            assigned(&self.users_by_id, identity.user_id.as_deref()),
            assigned(&self.clients, identity.client_id.as_deref()),
        ];
        let mut roles: Vec<&Arc<Role>> = carried.chain(assigned.into_iter().flatten()).collect();
        roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        roles.dedup_by(|a, b| a.name == b.name);

        let permissions = match roles.as_slice() {
            // Most callers have one role and nothing else: they all share its set.
            [role] if identity.permissions.is_empty() => role.permissions.clone(),
            _ => {
                let of_roles = roles.iter().flat_map(|role| role.permissions.all());
                Arc::new(self.vocabulary.set(of_roles.chain(&identity.permissions)))
            }
        };
        Grants { roles: roles.into_iter().map(|role| role.name.clone()).collect(), permissions }
    }

    /// Decides a call. `caller` is `None` for an anonymous one; grants must be of this policy.
    pub fn authorize(&self, route: Route, caller: Option<(&Identity, &Grants)>) -> Result<Permit, Denied> {
        if self.disabled {
            return Ok(Permit::granted());
        }
        match self.decide(route, caller) {
            Ok(()) => Ok(Permit::granted()),
            // Auditing rules is no reason to let strangers in: that is `authentication.insecure_audit`.
            Err(Denied::CredentialsMissing) => Err(Denied::CredentialsMissing),
            Err(denied) if self.audit => Ok(Permit::despite(denied)),
            Err(denied) => Err(denied),
        }
    }

    /// The permit of a public method, for which no credential is looked at; `None` for any other.
    pub fn permit_public(&self, route: Route) -> Option<Permit> {
        matches!(self.requirement(route), Requirement::Public { .. }).then(Permit::granted)
    }

    /// What the rules say, whatever `mode` and `audit` make of it.
    pub(super) fn decide(&self, route: Route, caller: Option<(&Identity, &Grants)>) -> Result<(), Denied> {
        let requirement = self.requirement(route);
        if matches!(requirement, Requirement::Public { .. } | Requirement::Anyone) {
            return Ok(());
        }
        // Before everything else, so that an anonymous caller cannot tell methods with a rule from those without.
        let Some((identity, grants)) = caller.filter(|(identity, _)| !identity.is_anonymous()) else {
            return Err(Denied::CredentialsMissing);
        };
        let Requirement::Caller { any_of, all_of, from } = requirement else {
            return Err(Denied::MethodNotAllowed);
        };
        if !accepts(from, identity) {
            return Err(Denied::CredentialsNotAccepted { presented: identity.presented.clone(), from: from.clone() });
        }
        let held = |required: &&Required| grants.permissions.covers(required);
        let missing_of_any = any_of.first().filter(|_| !any_of.iter().any(|required| held(&required)));
        match missing_of_any.or_else(|| all_of.iter().find(|required| !held(required))) {
            Some(required) => Err(Denied::PermissionMissing { permission: required.permission.clone(), grants: grants.clone() }),
            None => Ok(()),
        }
    }

    /// A route of another policy may be out of range here: it is nobody's.
    pub(super) fn requirement(&self, route: Route) -> &Requirement {
        self.requirements.get(route.index()).unwrap_or(&Requirement::Nobody)
    }
}

/// The route of methods without a rule.
const DEFAULT: u32 = 0;

fn next_index(requirements: &[Requirement]) -> u32 {
    u32::try_from(requirements.len()).expect("a configuration has fewer than 2^32 rules")
}

/// Whether one of the presented credentials is among `from`; an empty list is not asked.
pub(super) fn accepts(from: &[Box<str>], identity: &Identity) -> bool {
    from.is_empty() || identity.presented.iter().any(|presented| from.iter().any(|name| **name == **presented))
}

fn compile_roles(roles: &[config::Role], vocabulary: &Vocabulary) -> HashMap<Box<str>, Arc<Role>> {
    let compile = |role: &config::Role| {
        let permissions = Arc::new(vocabulary.set(role.permissions.iter()));
        (role.name.as_str().into(), Arc::new(Role { name: role.name.as_str().into(), permissions }))
    };
    roles.iter().map(compile).collect()
}

fn assign<'a>(assignments: impl Iterator<Item = &'a config::Assignment>, roles: &HashMap<Box<str>, Arc<Role>>) -> Assignments {
    let resolve = |assignment: &config::Assignment| assignment.roles.iter().filter_map(|name| roles.get(name.as_str()).cloned()).collect();
    assignments.map(|assignment| (assignment.subject.as_str().into(), resolve(assignment))).collect()
}

fn assigned<'a>(assignments: &'a Assignments, subject: Option<&str>) -> &'a [Arc<Role>] {
    subject.and_then(|subject| assignments.get(subject)).map_or(&[], Vec::as_slice)
}

impl Requirement {
    fn authenticated() -> Requirement {
        Requirement::Caller { any_of: [].into(), all_of: [].into(), from: [].into() }
    }

    fn compile(rule: &config::Rule, vocabulary: &mut Vocabulary) -> Requirement {
        match rule {
            config::Rule::Anyone => Requirement::Anyone,
            config::Rule::Caller { any_of, all_of, from } => Requirement::Caller {
                any_of: any_of.iter().map(|permission| vocabulary.require(permission)).collect(),
                all_of: all_of.iter().map(|permission| vocabulary.require(permission)).collect(),
                from: from.iter().map(|name| name.as_str().into()).collect(),
            },
        }
    }
}

impl RouteLabels {
    fn of(pattern: &MethodPattern, rule: &str) -> RouteLabels {
        let named =
            |service: &str, method: &str| RouteLabels { grpc_service: service.into(), grpc_method: method.into(), rule: rule.into() };
        match pattern {
            MethodPattern::Exact(path) => match MethodPath::parse(path) {
                Some(path) => named(path.service(), path.method()),
                None => RouteLabels::unnamed(rule),
            },
            MethodPattern::Service(service) => named(service, "other"),
            MethodPattern::Package(_) => RouteLabels::unnamed(rule),
        }
    }

    fn unnamed(rule: &str) -> RouteLabels {
        RouteLabels { grpc_service: "other".into(), grpc_method: "other".into(), rule: rule.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Assignment, Authorization, DefaultRule, MethodRule, Mode, Position, Rule};

    fn permissions(list: &[&str]) -> Vec<Permission> {
        list.iter().map(|text| Permission::parse(text).unwrap()).collect()
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn rule(pattern: &str, rule: Rule) -> MethodRule {
        MethodRule { pattern: MethodPattern::parse(pattern).unwrap(), rule, at: Position::default() }
    }

    fn caller_rule(any_of: &[&str], all_of: &[&str], from: &[&str]) -> Rule {
        Rule::Caller { any_of: permissions(any_of), all_of: permissions(all_of), from: texts(from) }
    }

    fn assignment(subject: &str, roles: &[&str]) -> Assignment {
        Assignment { subject: subject.into(), roles: texts(roles), at: Position::default() }
    }

    fn configuration() -> Authorization {
        let role = |name: &str, held: &[&str]| config::Role { name: name.into(), permissions: permissions(held), at: Position::default() };
        Authorization {
            default: DefaultRule::Deny,
            roles: vec![
                role("viewer", &["users:read"]),
                role("editor", &["users:read", "users:write"]),
                role("exporter", &["users:export"]),
                role("users-all", &["users:*"]),
                role("reader", &["*:read"]),
                role("admin", &["*:*"]),
                role("empty", &[]),
            ],
            users: vec![assignment("alice@example.com", &["admin"]), assignment("svc-1", &["viewer"]), assignment("a@id", &["admin"])],
            clients: vec![assignment("billing", &["viewer", "exporter"])],
            methods: vec![
                rule("/u.S/Get", caller_rule(&["users:read"], &[], &[])),
                rule("/u.S/Delete", caller_rule(&["users:delete", "users:admin"], &[], &[])),
                rule("/u.S/Export", caller_rule(&[], &["users:read", "users:export"], &["corporate", "google"])),
                rule("/u.S/Both", caller_rule(&["users:write", "users:admin"], &["users:read", "users:export"], &[])),
                rule("/u.S/Keys", caller_rule(&[], &[], &["api_keys"])),
                rule("/u.S/*", caller_rule(&[], &[], &[])),
                rule("/o.*", Rule::Anyone),
            ],
            audit: false,
        }
    }

    fn policy_with(change: impl FnOnce(&mut Authorization), mode: Mode) -> Policy {
        let mut configuration = configuration();
        change(&mut configuration);
        Policy::compile(&configuration, mode, &[MethodPattern::parse("/grpc.health.v1.Health/*").unwrap()])
    }

    fn policy() -> Policy {
        policy_with(|_| {}, Mode::Optional)
    }

    fn route(policy: &Policy, path: &str) -> Route {
        policy.route(&MethodPath::parse(path).unwrap())
    }

    /// `bearer` with the roles before the `|` and the direct permissions behind it.
    fn caller(provider: &str, holds: &str) -> Identity {
        let (roles, direct) = holds.split_once('|').unwrap_or((holds, ""));
        Identity {
            user_id: Some("u".into()),
            roles: roles.split_whitespace().map(Into::into).collect(),
            permissions: direct.split_whitespace().map(|text| Permission::parse(text).unwrap()).collect(),
            presented: vec![provider.into()],
            ..Identity::default()
        }
    }

    /// The outcome in one word: `ok`, `audited: …`, or why not.
    fn outcome(policy: &Policy, path: &str, caller: Option<&Identity>) -> String {
        let grants = caller.map(|identity| policy.grants(identity));
        let word = |denied: &Denied| match denied {
            Denied::CredentialsMissing => "credentials".to_owned(),
            Denied::PermissionMissing { permission, .. } => permission.to_string(),
            Denied::MethodNotAllowed => "method".to_owned(),
            Denied::CredentialsNotAccepted { .. } => "from".to_owned(),
        };
        match policy.authorize(route(policy, path), caller.zip(grants.as_ref())) {
            Ok(permit) => permit.audited().map_or("ok".to_owned(), |denied| format!("audited: {}", word(denied))),
            Err(denied) => word(&denied),
        }
    }

    #[test]
    fn rules_by_callers() {
        let policy = policy();
        for (path, provider, holds, expected) in [
            ("/u.S/Get", "corporate", "", "users:read"),
            ("/u.S/Get", "corporate", "viewer", "ok"),
            ("/u.S/Get", "corporate", "exporter", "users:read"),
            ("/u.S/Get", "corporate", "users-all", "ok"),
            ("/u.S/Get", "corporate", "reader", "ok"),
            ("/u.S/Get", "corporate", "admin", "ok"),
            ("/u.S/Get", "corporate", "unknown", "users:read"),
            ("/u.S/Get", "corporate", "Viewer", "users:read"),
            ("/u.S/Get", "corporate", "|users:read", "ok"),
            ("/u.S/Get", "corporate", "|users:*", "ok"),
            ("/u.S/Get", "corporate", "|users:reads orders:read", "users:read"),
            ("/u.S/Get", "corporate", "empty|orders:write", "users:read"),
            ("/u.S/Delete", "corporate", "editor", "users:delete"),
            ("/u.S/Delete", "corporate", "|users:delete", "ok"),
            ("/u.S/Delete", "corporate", "|users:admin", "ok"),
            ("/u.S/Delete", "corporate", "reader", "users:delete"),
            ("/u.S/Export", "corporate", "viewer", "users:export"),
            ("/u.S/Export", "corporate", "exporter", "users:read"),
            ("/u.S/Export", "corporate", "viewer exporter", "ok"),
            ("/u.S/Export", "google", "viewer|users:export", "ok"),
            ("/u.S/Export", "api_keys", "viewer exporter", "from"),
            ("/u.S/Export", "api_keys", "", "from"),
            ("/u.S/Both", "corporate", "viewer exporter", "users:write"),
            ("/u.S/Both", "corporate", "|users:write", "users:read"),
            ("/u.S/Both", "corporate", "editor", "users:export"),
            ("/u.S/Both", "corporate", "editor exporter", "ok"),
            ("/u.S/Both", "corporate", "users-all", "ok"),
            ("/u.S/Keys", "corporate", "admin", "from"),
            ("/u.S/Keys", "api_keys", "", "ok"),
            ("/u.S/Other", "corporate", "", "ok"),
            ("/o.a.S/M", "corporate", "", "ok"),
            ("/x.S/M", "corporate", "admin", "method"),
            ("/u.T/Get", "corporate", "admin", "method"),
        ] {
            assert_eq!(outcome(&policy, path, Some(&caller(provider, holds))), expected, "{path} {provider} {holds:?}");
        }
    }

    #[test]
    fn anonymous_callers_reach_anyone_and_cannot_probe() {
        let policy = policy();
        for (path, expected) in [("/o.S/M", "ok"), ("/u.S/Get", "credentials"), ("/u.S/Other", "credentials"), ("/x.S/M", "credentials")] {
            assert_eq!(outcome(&policy, path, None), expected, "{path}");
            // An identity that nothing was presented for is no identity.
            assert_eq!(outcome(&policy, path, Some(&Identity { presented: vec![], ..caller("", "admin") })), expected, "{path}");
        }
    }

    #[test]
    fn one_of_several_presented_credentials_is_enough_for_from() {
        let identity = Identity { presented: vec!["corporate".into(), "api_keys".into()], ..caller("", "viewer exporter") };
        assert_eq!(outcome(&policy(), "/u.S/Export", Some(&identity)), "ok");
        assert_eq!(outcome(&policy(), "/u.S/Keys", Some(&identity)), "ok");
    }

    #[test]
    fn the_default_may_be_authenticated() {
        let policy = policy_with(|config| config.default = DefaultRule::Authenticated, Mode::Required);
        assert_eq!(outcome(&policy, "/x.S/M", Some(&caller("corporate", ""))), "ok");
        assert_eq!(outcome(&policy, "/x.S/M", None), "credentials");
    }

    #[test]
    fn audit_lets_known_callers_through_and_no_one_else() {
        let policy = policy_with(|config| config.audit = true, Mode::Required);
        let nobody = caller("api_keys", "");
        assert_eq!(outcome(&policy, "/u.S/Get", Some(&nobody)), "audited: users:read");
        assert_eq!(outcome(&policy, "/u.S/Export", Some(&nobody)), "audited: from");
        assert_eq!(outcome(&policy, "/x.S/M", Some(&nobody)), "audited: method");
        assert_eq!(outcome(&policy, "/u.S/Other", Some(&nobody)), "ok");
        assert_eq!(outcome(&policy, "/u.S/Get", None), "credentials");
        assert_eq!(outcome(&policy, "/x.S/M", None), "credentials");
    }

    #[test]
    fn disabled_checks_nothing() {
        let policy = policy_with(|_| {}, Mode::Disabled);
        assert_eq!(outcome(&policy, "/x.S/M", None), "ok");
        assert_eq!(outcome(&policy, "/u.S/Get", None), "ok");
    }

    #[test]
    fn public_methods_come_before_rules() {
        let policy = policy_with(
            |config| config.methods.push(rule("/grpc.health.v1.Health/Check", caller_rule(&["users:read"], &[], &[]))),
            Mode::Required,
        );
        let health = route(&policy, "/grpc.health.v1.Health/Check");
        assert!(health.is_public());
        assert!(policy.permit_public(health).unwrap().audited().is_none());
        assert!(policy.authorize(health, None).is_ok());
        for other in ["/u.S/Get", "/x.S/M", "/o.S/M", "/grpc.health.v1.Health2/Check"] {
            assert!(!route(&policy, other).is_public(), "{other}");
            assert!(policy.permit_public(route(&policy, other)).is_none(), "{other}");
        }
    }

    #[test]
    fn a_route_of_another_policy_opens_nothing() {
        let route = Route { index: 1_000, public: true };
        let policy = policy();
        assert!(policy.permit_public(route).is_none());
        let identity = caller("corporate", "admin");
        assert_eq!(policy.authorize(route, Some((&identity, &policy.grants(&identity)))).unwrap_err(), Denied::MethodNotAllowed);
    }

    #[test]
    fn labels_come_from_the_configuration() {
        let policy = policy();
        for (path, service, method, rule) in [
            ("/u.S/Get", "u.S", "Get", "/u.S/Get"),
            ("/u.S/Invented", "u.S", "other", "/u.S/*"),
            ("/o.x.Invented/M", "other", "other", "/o.*"),
            ("/invented.S/M", "other", "other", "default"),
            ("/grpc.health.v1.Health/Invented", "grpc.health.v1.Health", "other", "public"),
        ] {
            let labels = &policy.route_labels()[route(&policy, path).index()];
            assert_eq!((&*labels.grpc_service, &*labels.grpc_method, &*labels.rule), (service, method, rule), "{path}");
        }
    }

    fn holds(policy: &Policy, identity: &Identity) -> (String, String) {
        let grants = policy.grants(identity);
        let join = |items: Vec<&str>| items.join(" ");
        (join(grants.roles().iter().map(|role| &**role).collect()), join(grants.permissions().iter().map(Permission::as_str).collect()))
    }

    #[test]
    fn grants_are_the_union_sorted_each_once() {
        let identity = Identity {
            client_id: Some("billing".into()),
            user_id: Some("svc-1".into()),
            ..caller("corporate", "viewer unknown viewer reader|z:z users:read a:b z:z")
        };
        assert_eq!(holds(&policy(), &identity), ("exporter reader viewer".to_owned(), "*:read a:b users:export users:read z:z".to_owned()));
        assert_eq!(holds(&policy(), &caller("corporate", "viewer")), ("viewer".to_owned(), "users:read".to_owned()));
        assert_eq!(holds(&policy(), &Identity::default()), (String::new(), String::new()));
    }

    #[test]
    fn an_entry_with_an_at_sign_is_an_email_and_any_other_a_user_id() {
        let policy = policy();
        let user = |id: Option<&str>, email: Option<&str>, client: Option<&str>| {
            let identity = Identity {
                user_id: id.map(Into::into),
                user_email: email.map(Into::into),
                client_id: client.map(Into::into),
                ..caller("corporate", "")
            };
            holds(&policy, &identity).0
        };
        assert_eq!(user(Some("x"), Some("alice@example.com"), None), "admin");
        assert_eq!(user(Some("alice@example.com"), None, None), "");
        assert_eq!(user(Some("a@id"), None, None), "");
        assert_eq!(user(Some("svc-1"), None, None), "viewer");
        assert_eq!(user(None, Some("svc-1"), None), "");
        assert_eq!(user(None, None, Some("svc-1")), "");
        assert_eq!(user(Some("billing"), Some("billing"), None), "");
        assert_eq!(user(None, None, Some("billing")), "exporter viewer");
        assert_eq!(user(Some("SVC-1"), Some("Alice@example.com"), Some("billing ")), "");
    }
}
