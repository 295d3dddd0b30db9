//! What `deploy/` shows and alerts on exists: every metric, label and label value that the dashboard and the alert rules name
//! is there on a running Doorward, and promtool takes and tries the rules.

use crate::harness::pages::{read, root};
use crate::harness::token::{RSA, bearer};
use crate::harness::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const TESTS: &str = "tests/prometheus/alerts_test.yaml";
const PROMTOOL: &str = "tests/prometheus/bin/promtool";
const DASHBOARD: &str = "deploy/grafana/doorward.json";

/// Those that Prometheus adds to whatever it scrapes, in Kubernetes too, and that of a histogram's buckets.
const OF_SCRAPES: [&str; 5] = ["job", "instance", "namespace", "pod", "le"];

/// Alert or title of a panel, its PromQL, and the labels that its texts name.
struct Query {
    of: String,
    text: String,
    shown: Vec<String>,
}

fn rules() -> Vec<Value> {
    let file: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn queries() -> Vec<Query> {
    let of_rules = rules().into_iter().map(|rule| Query {
        of: text(&rule["alert"]),
        text: text(&rule["expr"]),
        shown: between(&rule["annotations"].to_string(), "$labels.", " "),
    });
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let of_panels = panels.into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| {
            let shown = between(&text(&target["legendFormat"]), "{{", "}}");
            Query { of: text(&panel["title"]), text: text(&target["expr"]), shown }
        })
    });
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let of_annotations =
        annotations.map(|annotation| Query { of: text(&annotation["name"]), text: text(&annotation["expr"]), shown: vec![] });
    of_rules.chain(of_panels).chain(of_annotations.collect::<Vec<_>>()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// What stands between each `begin` and the next `end`.
fn between(text: &str, begin: &str, end: &str) -> Vec<String> {
    text.split(begin).skip(1).map(|rest| rest.split(end).next().unwrap().trim().to_owned()).collect()
}

/// Label, operator and value.
type Matcher = (String, String, String);

/// Every metric that PromQL names, with the label matchers behind it.
fn selectors(query: &str) -> Vec<(String, Vec<Matcher>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(is_name) {
        let word: String = rest[at..].chars().take_while(|c| is_name(*c)).collect();
        rest = &rest[at + word.len()..];
        if !["doorward_", "grpc_server_", "process_"].iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        let matchers = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
        rest = &rest[matchers.len()..];
        let matchers = matchers.split(',').filter(|matcher| !matcher.trim().is_empty()).map(|matcher| {
            let (name, value) = matcher.split_at(matcher.find(['=', '!']).unwrap());
            let (operator, value) = value.split_at(value.find('"').unwrap());
            (name.trim().to_owned(), operator.to_owned(), value.trim_matches('"').to_owned())
        });
        found.push((word, matchers.collect()));
    }
    found
}

/// The labels in `by (…)` and `on (…)`.
fn grouped(query: &str) -> Vec<String> {
    let lists = ["by (", "on ("].iter().flat_map(|word| between(query, word, ")"));
    lists.flat_map(|list| list.split(',').map(|label| label.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// By sample name: every label and its values.
type Samples = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn samples(exposition: &str) -> Samples {
    let mut samples = Samples::new();
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let labels_of = samples.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").unwrap();
            labels_of.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    samples
}

/// A Doorward that has something to tell of everything.
fn exposition() -> String {
    let (upstream, keys) = (PythonUpstream::start(), KeyServer::with_keys(&[&RSA.jwk]));
    let rest = format!(
        "authentication:\n  jwt:\n    - {{ name: remote, issuer: https://issuer.test/, audiences: [users-api], algorithms: [RS256], jwks_url: \"{}\" }}\n\
         \x20 api_keys: {{ header: x-api-key, file: api-keys.yaml }}\n\
         authorization:\n  audit: true\n  roles: {{ viewer: [users:read], admin: [\"*:*\"] }}\n  methods:\n    /demo.v1.Users/Get: users:read\n    /demo.v1.Users/Delete: users:delete\n",
        keys.url()
    );
    let doorward = Site::new().start(&configuration(&upstream.url(), &rest));
    let token = RSA.token(&claims(json!({})));
    doorward.calls(&[
        call("/demo.v1.Users/Get").bearer(&token),
        call("/demo.v1.Users/Get").bearer(&token),
        call("/demo.v1.Users/Get").api_key(API_KEY),
        call("/demo.v1.Users/Delete").api_key(API_KEY),
        call("/demo.v1.Users/Get"),
    ]);
    doorward.access_lines(5);
    doorward.get("/metrics").1
}

#[test]
fn dashboard_and_alerts_name_only_what_exists() {
    let samples = samples(&exposition());
    assert!(samples.len() > 40, "{samples:?}");
    let refusals = read("docs/refusals.md");
    let mut wrong = Vec::new();
    let queries = queries();
    assert!(queries.len() > 50);
    for Query { of, text, shown } in &queries {
        let selectors = selectors(text);
        let mut labels: BTreeSet<&str> = OF_SCRAPES.into();
        assert!(!selectors.is_empty(), "{of}: {text}");
        for (metric, matchers) in &selectors {
            let Some(known) = samples.get(metric) else {
                wrong.push(format!("{of}: no metric {metric}"));
                continue;
            };
            labels.extend(known.keys().map(String::as_str));
            for (label, operator, value) in matchers.iter().filter(|(label, ..)| !OF_SCRAPES.contains(&label.as_str())) {
                let values = if operator.contains('~') { value.split('|').collect() } else { vec![value.as_str()] };
                for value in values {
                    let is_reason = label == "reason" && refusals.contains(&format!("| `{value}` |"));
                    if !known.get(label).is_some_and(|values| is_reason || values.contains(value)) {
                        wrong.push(format!("{of}: {metric} has no {label}=\"{value}\""));
                    }
                }
            }
        }
        for label in grouped(text).iter().chain(shown).filter(|label| !labels.contains(label.as_str())) {
            wrong.push(format!("{of}: no metric in it has the label {label}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn promtool(arguments: &[&str]) {
    let output = Command::new(root().join(PROMTOOL)).args(arguments).current_dir(root()).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{PROMTOOL}: {error}; `make test` sets it up"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}\n{said}");
}

#[test]
fn promtool_takes_the_rules_and_each_fires_when_it_should() {
    promtool(&["check", "rules", ALERTS]);
    promtool(&["test", "rules", TESTS]);
}

#[test]
fn promtool_takes_every_query_of_the_dashboard() {
    let site = Site::new();
    let records: Vec<Value> = queries()
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let text = query.text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*");
            assert!(!text.contains('$'), "{}: {text}", query.of);
            json!({"record": format!("query:{number}"), "expr": text})
        })
        .collect();
    let file = site.write("queries.yaml", json!({"groups": [{"name": "dashboard", "rules": records}]}).to_string());
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn every_alert_is_tried_and_explained_and_nothing_else() {
    let alerts: BTreeMap<String, String> = rules().iter().map(|rule| (text(&rule["alert"]), text(&rule["labels"]["severity"]))).collect();
    let page = read("docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| Doorward"));
    let explained: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(cells.len() == 6 && cells[3..5].iter().all(|cell| !cell.is_empty()), "{row}");
            (cells[1].to_owned(), cells[2].to_owned())
        })
        .collect();
    assert_eq!(explained, alerts);
    let tests = read(TESTS);
    for alert in alerts.keys() {
        assert!(tests.contains(&format!("alertname=\"{alert}\", alertstate=\"firing\"")), "{alert} is tried by no test");
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels of one id: {panel}");
        assert!(panel["type"] == "row" || panel["datasource"]["uid"] == "${datasource}", "{panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
    }
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().filter_map(|list| list["name"].as_str()).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
}

/// Labels come from the configuration only: whatever clients send, no series is added.
#[tokio::test]
async fn no_client_makes_a_new_series() {
    let (upstream, site) = (RawUpstream::echo(), Site::new());
    let doorward = site.start(&standard(&upstream.url()));
    let mut wire = Wire::connect(&doorward).await;
    let series = || {
        eventually("every call's end", || (doorward.metric("doorward_streams", &[]) == 0.0).then_some(()));
        let (_, text) = doorward.get("/metrics");
        let names = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0.to_owned());
        names.collect::<BTreeSet<String>>()
    };
    let mut first = BTreeSet::new();
    for number in 0..40 {
        let good = bearer(json!({"sub": format!("user-{number}"), "roles": [format!("role-{number}")], "azp": format!("client-{number}")}));
        let strange = bearer(json!({"iss": format!("https://issuer-{number}.test/")}));
        let (key, agent) = (format!("sk_live_{number}"), format!("agent-{number}"));
        let context = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
        let about = [("user-agent", agent.as_str()), ("traceparent", &context)];
        for (path, credential) in [
            (format!("/demo.v1.Echo/Invented{number}"), Some(("authorization", &good))),
            (format!("/invented.v{number}.Service/Method"), Some(("authorization", &good))),
            (format!("/demo.v1.Public/Invented{number}"), None),
            (format!("/invented{number}/a/b"), None),
            (format!("/invented.v{number}.Service/Method"), None),
            ("/demo.v1.Users/Get".to_owned(), Some(("authorization", &strange))),
            ("/demo.v1.Users/Get".to_owned(), Some(("x-api-key", &key))),
        ] {
            let credential = credential.map(|(name, value)| (name, value.as_str()));
            let fields: Vec<(&str, &str)> = about.into_iter().chain(credential).collect();
            wire.call(request(&path, &fields)).await;
        }
        match number {
            0 => first = series(),
            39 => assert_eq!(series().difference(&first).collect::<Vec<_>>(), [""; 0]),
            _ => {}
        }
    }
    assert!(!first.iter().any(|series| series.contains("nvented") || series.contains("user-") || series.contains("issuer-")));
}

#[test]
fn overhead_is_apart_from_the_upstreams_time() {
    let upstream = PythonUpstream::start();
    let doorward = Site::new().start(&standard(&upstream.url()));
    doorward.call(call("/demo.v1.Public/Unary").behaviour(json!({"sleep": 1.0})));
    let line = &doorward.access_lines(1)[0];
    let (overhead, handling) =
        (doorward.metric("doorward_overhead_seconds_sum", &[]), doorward.metric("grpc_server_handling_seconds_sum", &[]));
    assert!(overhead > 0.0 && overhead <= handling - 1.0 + 1e-6, "{overhead} of {handling}");
    assert!((overhead * 1e6 - line["overhead_us"].as_f64().unwrap()).abs() <= 1.0, "log and metric agree: {overhead} {line}");
    // Without an upstream the whole call is ours.
    doorward.call(call("/demo.v1.Echo/Unary"));
    let line = &doorward.access_lines(2)[1];
    assert_eq!(doorward.metric("doorward_overhead_seconds_count", &[]), 2.0);
    let more = doorward.metric("doorward_overhead_seconds_sum", &[]) - overhead;
    assert!((more * 1e3 - line["duration_ms"].as_f64().unwrap()).abs() < 0.01, "{more} {line}");
}
