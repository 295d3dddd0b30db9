//! What is valid and most likely not what somebody meant: told as warnings, by `check` and at every start.
//!
//! Only what the files themselves prove to be in vain. A role that tokens may carry, keys yet to be made, permissions that
//! the upstream looks at: all that may be meant, and a warning that is wrong once is never read again.

use crate::config::{Allowed, Authentication, Authorization, Config, JwtProvider, Mode, Problems, Role, Rule};
use crate::grpc::MethodPattern;
use crate::identity::Permission;

/// Adds them to `problems`.
pub(super) fn warn_of_likely_mistakes(config: &Config, problems: &mut Problems) {
    let (authentication, authorization) = (&config.authentication, &config.authorization);
    if authentication.mode == Mode::Disabled {
        return; // which is warned about, and nothing else matters then
    }
    warn_of_roles_for_nobody(authentication, authorization, problems);
    warn_of_users_nobody_vouches_for(authentication, authorization, problems);
    warn_of_emails_that_never_count(authentication, problems);
    warn_of_rules_that_are_public(authentication, authorization, problems);
    if config.identity_headers.permissions.is_none() {
        warn_of_permissions_for_nothing(authorization, problems);
    }
}

fn warn_of_roles_for_nobody(authentication: &Authentication, authorization: &Authorization, problems: &mut Problems) {
    if authentication.api_keys.as_ref().is_some_and(|keys| keys.file.is_some()) {
        return; // a key with the role can be made at any time
    }
    let assigned = authorization.users.iter().chain(&authorization.clients).flat_map(|assignment| &assignment.roles);
    let of_certificates = authentication.client_certificates.iter().flat_map(|entry| &entry.roles);
    let held: Vec<&String> = assigned.chain(of_certificates).collect();
    for role in &authorization.roles {
        let by_token = authentication.jwt.iter().any(|provider| allows(&provider.trust.roles, &role.name));
        if !by_token && !held.contains(&&role.name) {
            problems.warning(
                &role.at,
                "nobody can have this role: no user, client or certificate has it, and no provider may give it (trust.roles)",
            );
        }
    }
}

fn warn_of_users_nobody_vouches_for(authentication: &Authentication, authorization: &Authorization, problems: &mut Problems) {
    for user in &authorization.users {
        let Some((_, domain)) = user.subject.rsplit_once('@') else { continue };
        let domain = domain.to_ascii_lowercase();
        let vouches = |provider: &&JwtProvider| allows(&provider.trust.email_domains, &domain);
        if authentication.google.is_some() || authentication.jwt.iter().filter(vouches).any(|provider| !never_verifies(provider)) {
            continue;
        }
        problems.warning(&user.at, match authentication.jwt.iter().find(vouches) {
            None => format!("this matches nobody: no provider may vouch for addresses of {domain} (trust.email_domains)"),
            Some(provider) => format!(
                "this matches nobody: an e-mail counts only with email_verified, which the tokens of {} do not have; name the user by its id",
                provider.name
            ),
        });
    }
}

fn warn_of_emails_that_never_count(authentication: &Authentication, problems: &mut Problems) {
    for provider in authentication.jwt.iter().filter(|provider| never_verifies(provider)) {
        if let Some(at) = &provider.claims.email_at {
            problems.warning(
                at,
                "this never counts: an e-mail needs email_verified, which the tokens of this issuer do not have; leave it out and name users by \
                 their id, or set trust.unverified_email if every address of it may be believed",
            );
        }
    }
}

/// Microsoft Entra ID, whose tokens are documented to have no `email_verified`.
fn never_verifies(provider: &JwtProvider) -> bool {
    const WITHOUT: [&str; 2] = ["https://login.microsoftonline.com/", "https://sts.windows.net/"];
    let issuer = provider.issuer.as_deref().unwrap_or_default();
    !provider.trust.unverified_email && WITHOUT.iter().any(|known| issuer.starts_with(known))
}

fn warn_of_rules_that_are_public(authentication: &Authentication, authorization: &Authorization, problems: &mut Problems) {
    for rule in &authorization.methods {
        if let Some(public) =
            authentication.public_methods.iter().map(|public| &public.pattern).find(|public| includes(public, &rule.pattern))
        {
            problems.warning(&rule.at, format!("this rule is never looked at: authentication.public_methods has {public}"));
        }
    }
}

/// Whether every method of `narrow` is one of `wide`.
fn includes(wide: &MethodPattern, narrow: &MethodPattern) -> bool {
    let service = |path: &str| path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
    let within = |name: &str, package: &str| name.strip_prefix(package).is_some_and(|rest| rest.starts_with('.'));
    match (wide, narrow) {
        (MethodPattern::Service(wide), MethodPattern::Exact(path)) => *wide == service(path),
        (MethodPattern::Package(wide), MethodPattern::Exact(path)) => within(&service(path), wide),
        (MethodPattern::Package(wide), MethodPattern::Service(narrow) | MethodPattern::Package(narrow)) if wide != narrow => {
            within(narrow, wide)
        }
        _ => wide == narrow,
    }
}

fn warn_of_permissions_for_nothing(authorization: &Authorization, problems: &mut Problems) {
    for (role, held) in unasked_permissions(authorization) {
        problems.warning(&role.at, format!("{held} decides nothing: no rule asks for it, and identity_headers.permissions is none"));
    }
}

/// Permissions of roles that no rule asks for. The upstream may look at them all the same.
pub fn unasked_permissions(authorization: &Authorization) -> impl Iterator<Item = (&Role, &Permission)> {
    let required: Vec<&Permission> = authorization.methods.iter().flat_map(|method| required(&method.rule)).collect();
    let held = authorization.roles.iter().flat_map(|role| role.permissions.iter().map(move |held| (role, held)));
    held.filter(move |(_, held)| !required.iter().any(|required| covers(held, required)))
}

fn required(rule: &Rule) -> impl Iterator<Item = &Permission> {
    let (any_of, all_of) = match rule {
        Rule::Anyone => (&[][..], &[][..]),
        Rule::Caller { any_of, all_of, from: _ } => (any_of.as_slice(), all_of.as_slice()),
    };
    any_of.iter().chain(all_of)
}

fn covers(held: &Permission, required: &Permission) -> bool {
    let ((held_resource, held_action), (resource, action)) = (held.sides(), required.sides());
    [(held_resource, resource), (held_action, action)].into_iter().all(|(held, needed)| held == "*" || held == needed)
}

fn allows(allowed: &Allowed, name: &str) -> bool {
    match allowed {
        Allowed::Any => true,
        Allowed::These(names) => names.iter().any(|known| known == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, Surroundings, load_from};

    /// A provider that is trusted with the role viewer and addresses of example.com, and whatever `rest` says.
    const HEAD: &str = "listen: { address: '127.0.0.1:1', insecure_plaintext: true }\nupstream: { address: 'http://127.0.0.1:1' }\n\
        authentication:\n  jwt:\n  - { name: corp, issuer: https://a/, audiences: [x], algorithms: [RS256], jwks_url: https://a/,\n\
        \x20     trust: { roles: [viewer], email_domains: [example.com] } }\n";

    fn warnings(text: &str) -> Vec<String> {
        let source = Source { name: "c.yaml".into(), text: text.to_owned(), base: "/nowhere".into() };
        let loaded = load_from(&[source], Surroundings { env: &|_| None, cpus: 1, memory: None });
        let errors: Vec<_> = loaded.problems.iter().filter(|problem| problem.message.contains("expected")).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let mut problems = Problems::default();
        warn_of_likely_mistakes(&loaded.config.unwrap(), &mut problems);
        assert!(!problems.has_errors());
        problems.iter().map(|problem| format!("{}: {}", problem.at.key, problem.message)).collect()
    }

    #[track_caller]
    fn expect(text: &str, expected: &[&str]) {
        let found = warnings(text);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_role_that_nobody_can_have() {
        let roles =
            "authorization: { roles: { viewer: [], admin: [], batch: [], lost: [] }, users: { a: [admin] }, clients: { c: [batch] } }\n";
        expect(&format!("{HEAD}{roles}"), &["authorization.roles.lost: nobody can have this role"]);
        expect(&format!("{HEAD}{roles}").replace("roles: [viewer]", "roles: ['*']"), &[]);
        expect(&format!("{HEAD}  api_keys: {{ file: keys.yaml }}\n{roles}"), &[]);
        expect(&format!("{HEAD}  mode: disabled\n{roles}"), &[]);
    }

    #[test]
    fn an_address_that_nobody_may_vouch_for() {
        let users = "authorization: { roles: { viewer: [] }, users: { a@Example.com: [viewer], b@example.org: [viewer], c: [viewer] } }\n";
        let nobody = "authorization.users[\"b@example.org\"]: this matches nobody: no provider may vouch for addresses of example.org";
        expect(&format!("{HEAD}{users}"), &[nobody]);
        expect(&format!("{HEAD}{users}").replace("email_domains: [example.com]", "email_domains: ['*']"), &[]);
        let entra = format!("{HEAD}{users}").replace("issuer: https://a/", "issuer: https://login.microsoftonline.com/t/v2.0");
        expect(&entra, &["authorization.users[\"a@Example.com\"]: this matches nobody: an e-mail counts only with email_verified", nobody]);
        expect(&entra.replace("[example.com]", "[example.com, example.org], unverified_email: true"), &[]);
    }

    #[test]
    fn an_email_that_never_counts() {
        let mapped = HEAD.replace("trust:", "claims: { email: preferred_username }, trust:");
        expect(&mapped, &[]);
        for issuer in ["https://login.microsoftonline.com/t/v2.0", "https://sts.windows.net/t/"] {
            let entra = mapped.replace("issuer: https://a/", &format!("issuer: '{issuer}'"));
            expect(&entra, &["authentication.jwt[0].claims.email: this never counts: an e-mail needs email_verified"]);
            expect(&entra.replace("[example.com]", "[example.com], unverified_email: true"), &[]);
            expect(&entra.replace("claims: { email: preferred_username }, ", ""), &[]);
        }
    }

    #[test]
    fn a_rule_of_a_public_method() {
        for (public, rule, vain) in [
            ("/a.B/C", "/a.B/C", true),
            ("/a.B/C", "/a.B/D", false),
            ("/a.B/C", "/a.B/*", false),
            ("/a.B/*", "/a.B/C", true),
            ("/a.B/*", "/a.B/*", true),
            ("/a.B/*", "/a.*", false),
            ("/a.B/*", "/a.Bc/C", false),
            ("/a.*", "/a.B/C", true),
            ("/a.*", "/a.b.C/D", true),
            ("/a.*", "/a.B/*", true),
            ("/a.*", "/a.b.*", true),
            ("/a.*", "/a.*", true),
            ("/a.*", "/ab.C/D", false),
            ("/a.b.*", "/a.*", false),
        ] {
            let text = format!("{HEAD}  public_methods: [{public}]\nauthorization: {{ methods: {{ {rule}: authenticated }} }}\n");
            assert_eq!(warnings(&text).len(), usize::from(vain), "{public} {rule}: {:?}", warnings(&text));
        }
    }

    #[test]
    fn a_permission_that_decides_nothing() {
        let rules = "authorization: { roles: { viewer: [a:read, b:read, '*:write', 'c:*'] }, methods: { /a.B/C: { any_of: [a:read], all_of: [c:x] } } }\n";
        expect(&format!("{HEAD}{rules}"), &[]);
        expect(
            &format!("{HEAD}{rules}identity_headers: {{ permissions: none }}\n"),
            &["authorization.roles.viewer: b:read decides nothing", "authorization.roles.viewer: *:write decides nothing"],
        );
    }
}
