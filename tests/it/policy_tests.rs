//! `doorward test`: a table of callers and methods, and what the configuration decides of them.

use crate::harness::*;
use serde_json::json;
use std::process::Output;

const RULES: &str = r#"
listen: { address: 127.0.0.1:0, tls: { certificate: tls.crt, private_key: tls.key, client_ca: ca.pem, client_certificate: optional } }
authentication:
  public_methods: [/demo.v1.Public/*]
  jwt:
    - { name: corporate, issuer: https://issuer.test/, audiences: [users-api], algorithms: [HS256], secret_file: hmac.secret,
        claims: { permissions: scope }, trust: { roles: [viewer], email_domains: [example.com] } }
    - { name: partner, issuer: https://partner.test/, audiences: [users-api], algorithms: [HS256], secret_file: hmac.secret,
        claims: { client_id: azp }, trust: { roles: ["*"], email_domains: [], user_id_prefix: "partner:" } }
  api_keys: { header: x-api-key, file: api-keys.yaml }
  client_certificates: [{ spiffe: "spiffe://test/worker", client_id: worker, roles: [viewer] }, { dns: robot.test, client_id: robot, roles: [] }]
  revocations: { file: revocations.yaml }
authorization:
  roles: { viewer: [users:read], editor: [users:read, users:write], admin: ["*:*"] }
  users: { carol@example.com: [admin], "partner:7": [editor], mallory: [admin] }
  clients: { batch: [editor], worker: [editor] }
  methods:
    /demo.v1.Users/Get: users:read
    /demo.v1.Users/Write: users:write
    /demo.v1.Users/Reports: reports:read
    /demo.v1.Users/Keys: { from: [api_keys] }
    /demo.v1.Users/Corporate: { from: [corporate] }
    /demo.v1.Echo/*: authenticated
"#;

const REVOCATIONS: &str = "revoked:\n  - { user_id: mallory, issuer: https://issuer.test/, before: 2199-01-01T00:00:00Z }\n";

struct Table {
    site: Site,
    entries: String,
}

impl Table {
    fn new(entries: &[(&str, &str, &str)]) -> Table {
        let site = Site::new();
        site.write("doorward.yaml", configuration("http://127.0.0.1:1", RULES));
        site.write("revocations.yaml", REVOCATIONS);
        let entry = |(who, method, expect): &(&str, &str, &str)| format!("  - {{ {who}, method: {method}, expect: {expect} }}\n");
        Table { site, entries: format!("tests:\n{}", entries.iter().map(entry).collect::<String>()) }
    }

    fn with(self, change: (&str, &str)) -> Table {
        let rules = RULES.replacen(change.0, change.1, 1);
        assert_ne!(rules, RULES);
        self.site.write("doorward.yaml", configuration("http://127.0.0.1:1", &rules));
        self
    }

    fn run(&self) -> Output {
        let (config, table) = (self.site.path("doorward.yaml"), self.site.write("table.yaml", &self.entries));
        command(&["test", "--config", config.to_str().unwrap(), table.to_str().unwrap()], "")
    }

    #[track_caller]
    fn lines(&self, code: i32) -> Vec<String> {
        let output = self.run();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        stdout.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn errors(&self) -> String {
        let output = self.run();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
        String::from_utf8(output.stderr).unwrap()
    }
}

const GET: &str = "/demo.v1.Users/Get";
const WRITE: &str = "/demo.v1.Users/Write";
const MISSING: &str = "PERMISSION_MISSING";

#[test]
fn every_kind_of_caller_is_decided_as_run_decides() {
    let table = [
        ("user: alice, from: corporate", GET, MISSING),
        ("user: alice, from: corporate, roles: [viewer]", GET, "allowed"),
        // Of a role that this provider is not trusted with nothing is left.
        ("user: alice, from: corporate, roles: [admin]", GET, MISSING),
        ("user: \"partner:8\", from: partner, roles: [admin]", WRITE, "allowed"),
        ("user: alice, from: corporate, permissions: ['reports:read']", "/demo.v1.Users/Reports", "allowed"),
        ("user: alice, from: corporate, permissions: ['*:*']", "/demo.v1.Users/Reports", MISSING),
        ("user: carol@example.com, from: corporate", WRITE, "allowed"),
        ("email: carol@example.com, user: \"7\", from: corporate", WRITE, "allowed"),
        ("email: carol@example.com, from: partner", WRITE, MISSING),
        ("user: \"partner:7\"", WRITE, "allowed"),
        ("user: alice, from: corporate", "/demo.v1.Users/Keys", "CREDENTIALS_NOT_ACCEPTED"),
        ("user: alice, from: corporate", "/demo.v1.Other/Get", "METHOD_NOT_ALLOWED"),
        ("user: alice, from: corporate", "nonsense", "METHOD_MALFORMED"),
        ("user: mallory, from: corporate", GET, "CREDENTIALS_REVOKED"),
        // Whoever it may be that has the role.
        ("roles: [viewer]", GET, "allowed"),
        ("client: batch, from: partner", WRITE, "allowed"),
        ("client: batch, from: corporate", WRITE, MISSING),
        ("client: batch", WRITE, "allowed"),
        ("client: batch, from: api_keys, permissions: ['*:*']", "/demo.v1.Users/Reports", "allowed"),
        ("api_key_id: analytics", GET, "allowed"),
        ("api_key_id: analytics", "/demo.v1.Users/Reports", "allowed"),
        ("api_key_id: analytics", WRITE, MISSING),
        ("api_key_id: analytics", "/demo.v1.Users/Keys", "allowed"),
        ("api_key_id: expired", GET, "API_KEY_EXPIRED"),
        ("api_key_id: revoked", GET, "CREDENTIALS_REVOKED"),
        ("api_key_id: gone", GET, "API_KEY_UNKNOWN"),
        ("certificate: spiffe://test/worker", WRITE, "allowed"),
        ("certificate: Robot.test", WRITE, MISSING),
        ("certificate: Robot.test", "/demo.v1.Echo/Unary", "allowed"),
        ("certificate: stranger.test", "/demo.v1.Echo/Unary", "CREDENTIALS_MISSING"),
        ("user: alice, from: corporate, api_key_id: analytics", "/demo.v1.Users/Reports", "allowed"),
        ("user: alice, from: corporate, api_key_id: revoked", "/demo.v1.Echo/Unary", "CREDENTIALS_REVOKED"),
        ("user: alice, from: corporate, certificate: spiffe://test/worker", WRITE, "allowed"),
        ("anonymous: true", GET, "CREDENTIALS_MISSING"),
        ("anonymous: true", "/demo.v1.Other/Get", "CREDENTIALS_MISSING"),
        ("anonymous: true", "/demo.v1.Public/Get", "allowed"),
        ("api_key_id: expired", "/demo.v1.Public/Get", "allowed"),
    ];
    let lines = Table::new(&table).lines(0);
    let (last, lines) = lines.split_last().unwrap();
    assert_eq!(last, &format!("{} expectations: {} hold, 0 differ", table.len(), table.len()));
    assert_eq!(lines.len(), table.len());
    for (line, (_, method, expected)) in lines.iter().zip(table) {
        assert!(line.starts_with("ok    ") && line.ends_with(&format!(" → {method}: {expected}")), "{line}");
    }
}

/// The same callers, with real credentials, at the real proxy.
#[test]
fn the_proxy_agrees() {
    let upstream = PythonUpstream::start();
    let site = Site::new();
    site.write("revocations.yaml", REVOCATIONS);
    let doorward = site.start(&configuration(&upstream.url(), RULES));
    let of = |changes| token(changes);
    let partner = |mut changes: serde_json::Value| {
        changes["iss"] = json!("https://partner.test/");
        token(changes)
    };
    let get = |method: &str| call(method);
    let calls = [
        ("user: alice, from: corporate, roles: [viewer]", GET, get(GET).bearer(&of(json!({"email": null})))),
        ("user: alice, from: corporate, roles: [admin]", GET, get(GET).bearer(&of(json!({"roles": ["admin"], "email": null})))),
        (
            "user: carol@example.com, from: corporate",
            WRITE,
            get(WRITE).bearer(&of(json!({"sub": "7", "email": "carol@example.com", "roles": null}))),
        ),
        (
            "email: carol@example.com, from: partner",
            WRITE,
            get(WRITE).bearer(&partner(json!({"email": "carol@example.com", "roles": null}))),
        ),
        ("user: \"partner:7\"", WRITE, get(WRITE).bearer(&partner(json!({"sub": "7", "roles": null})))),
        ("user: mallory, from: corporate", GET, get(GET).bearer(&of(json!({"sub": "mallory"})))),
        ("client: batch, from: partner", WRITE, get(WRITE).bearer(&partner(json!({"azp": "batch", "roles": null})))),
        ("client: batch, from: corporate", WRITE, get(WRITE).bearer(&of(json!({"azp": "batch", "roles": null, "email": null})))),
        ("api_key_id: analytics", WRITE, get(WRITE).api_key(API_KEY)),
        ("api_key_id: expired", GET, get(GET).api_key("key-that-expired")),
        ("api_key_id: revoked", GET, get(GET).api_key("key-that-was-revoked")),
        ("anonymous: true", GET, get(GET)),
    ];
    let answers = doorward.calls(&calls.iter().map(|(_, _, call)| call.clone()).collect::<Vec<_>>());
    let reasons: Vec<&str> = answers.iter().map(|answer| if answer.code() == 0 { "allowed" } else { answer.reason() }).collect();
    let table: Vec<_> = calls.iter().zip(&reasons).map(|((who, method, _), reason)| (*who, *method, *reason)).collect();
    Table::new(&table).lines(0);
}

#[test]
fn what_differs_is_told_with_its_place_and_why() {
    let lines = Table::new(&[
        ("user: alice, from: corporate, roles: [viewer]", WRITE, "allowed"),
        ("anonymous: true", GET, "CREDENTIALS_MISSING"),
        ("user: alice, from: corporate, roles: [viewer]", GET, MISSING),
        ("user: alice, roles: [viewer]", "/demo.v1.Users/Corporate", "allowed"),
        ("client: batch", "/demo.v1.Users/Keys", "allowed"),
    ])
    .lines(1);
    let expected = [
        "FAIL  user alice, from corporate, roles [viewer] → /demo.v1.Users/Write: expected allowed, found PERMISSION_MISSING: the permission \
         users:write is missing; held: users:read; of the roles: viewer (",
        "ok    anonymous → /demo.v1.Users/Get: CREDENTIALS_MISSING",
        "FAIL  user alice, from corporate, roles [viewer] → /demo.v1.Users/Get: expected PERMISSION_MISSING, found allowed (",
        // Users of the partner have another prefix: it cannot be one of them.
        "ok    user alice, roles [viewer] → /demo.v1.Users/Corporate: allowed",
        "FAIL  client batch → /demo.v1.Users/Keys: expected allowed, found what depends on the credential: CREDENTIALS_NOT_ACCEPTED by partner, \
         allowed by api_keys; say which with from (",
        "5 expectations: 2 hold, 3 differ",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    assert!(lines[2].ends_with("table.yaml:4:7)"), "{}", lines[2]);
}

#[test]
fn modes_and_audits() {
    let refused = [("anonymous: true", GET, "CREDENTIALS_MISSING"), ("api_key_id: analytics", WRITE, MISSING)];
    let optional = Table::new(&[("anonymous: true", "/demo.v1.Echo/Unary", "allowed"), refused[0]])
        .with(("authentication:\n", "authentication:\n  mode: optional\n"));
    let anyone = RULES
        .replace("/demo.v1.Echo/*: authenticated", "/demo.v1.Echo/*: anyone")
        .replace("authentication:\n", "authentication:\n  mode: optional\n");
    optional.site.write("doorward.yaml", configuration("http://127.0.0.1:1", &anyone));
    assert_eq!(optional.lines(0).len(), 3);
    let disabled = Table::new(&[
        ("anonymous: true", GET, "allowed"),
        ("user: nobody", "/x.Y/Z", "allowed"),
        ("user: nobody", "x", "METHOD_MALFORMED"),
    ])
    .with(("authentication:\n", "authentication:\n  mode: disabled\n"));
    assert_eq!(disabled.lines(0).len(), 4);
    // What is let through is told, and the refusal is what counts.
    let through = |line: &str| line.contains(", let through by an audit mode");
    let lines = Table::new(&refused).with(("authorization:\n", "authorization:\n  audit: true\n")).lines(0);
    assert_eq!([through(&lines[0]), through(&lines[1])], [false, true]);
    assert_eq!(lines[2], "2 expectations: 2 hold, 0 differ; 1 of the refused calls let through by an audit mode");
    let lines = Table::new(&refused).with(("authentication:\n", "authentication:\n  insecure_audit: true\n")).lines(0);
    assert_eq!([through(&lines[0]), through(&lines[1])], [true, false]);
}

#[test]
fn errors_of_both_files_are_told_at_once() {
    let table = Table::new(&[
        ("user: alice, from: corporat", GET, "allowed"),
        ("user: alice, from: partner", GET, "allowed"),
        ("client: batch, from: api_keys, api_key_id: analytics", GET, "allowed"),
    ]);
    let errors = table.errors();
    for words in [
        "table.yaml:2:7: tests[0]: from is \"corporat\", expected one of corporate, partner, api_keys, client_certificates",
        "table.yaml:3:7: tests[1]: users of partner begin with \"partner:\"",
        "table.yaml:4:7: tests[2]: what is said beside api_key_id",
    ] {
        assert!(errors.contains(words), "{words} in {errors}");
    }
    let errors = Table::new(&[("user: alice", GET, "permitted"), ("usr: alice", GET, "allowed")]).errors();
    assert!(errors.contains("tests[0].expect") && errors.contains("did you mean \"user\"?"), "{errors}");
}

#[test]
fn a_bad_configuration_or_no_table_is_78() {
    let bad = Table::new(&[("usr: alice", GET, "allowed")]).with(("users:read]", "users]"));
    let errors = bad.errors();
    assert!(errors.contains("doorward.yaml:") && errors.contains("tests[0].usr"), "{errors}");
    let config = Table::new(&[]).site;
    let path = config.path("doorward.yaml").display().to_string();
    let output = command(&["test", "--config", &path, "/nowhere/table.yaml"], "");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/table.yaml: cannot read the expectations: there is no such file"));
}
