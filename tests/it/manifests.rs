//! What deploy/ holds: rendered by the libraries of kustomize and helm, decoded into Kubernetes' own types, and in agreement with
//! itself and with Doorward. What a cluster makes of it shows `make e2e`.

use crate::harness::pages::{read, root};
use crate::harness::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The objects of rendered manifests.
struct Objects(Vec<Value>);

impl Objects {
    fn of(yaml: &str) -> Objects {
        let documents = serde_yaml::Deserializer::from_str(yaml).map(|document| serde::Deserialize::deserialize(document).unwrap());
        Objects(documents.filter(|object: &Value| !object.is_null()).collect())
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.0.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    }

    #[track_caller]
    fn one(&self, kind: &str) -> &Value {
        let mut found = self.0.iter().filter(|object| object["kind"] == kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "two {kind}");
        one
    }

    fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    fn sidecar(&self) -> &Value {
        let containers = self.pod()["initContainers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        &containers[0]
    }
}

fn overlay() -> Objects {
    Objects::of(&manifests(&["kustomize", path(&root().join("deploy/kustomize/overlay"))]).unwrap())
}

/// The overlay with what it has ready for service accounts of the cluster.
fn overlay_with_cluster_keys() -> Objects {
    let (_folder, deploy) = copy();
    let overlay = deploy.join("kustomize/overlay");
    replace(&overlay.join("kustomization.yaml"), "# - ../cluster-keys", "- ../cluster-keys");
    replace(&overlay.join("doorward.yaml"), "\n#  ", "\n  ");
    Objects::of(&manifests(&["kustomize", path(&overlay)]).unwrap())
}

/// The chart with these values, under the name `users`.
fn chart(values: &Value) -> Objects {
    let site = Site::new();
    let values = site.write("values.yaml", values.to_string());
    Objects::of(&manifests(&["helm", path(&root().join("deploy/helm/doorward")), "users", path(&values)]).unwrap())
}

fn whole_chart() -> Objects {
    chart(&json!({"app": {"image": "ghcr.io/example/users:0.1.0"}, "serviceMonitor": {"enabled": true}}))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A copy of deploy/ to change.
fn copy() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-R").arg(root().join("deploy")).arg(folder.path()).status().unwrap();
    assert!(status.success());
    let deploy = folder.path().join("deploy");
    (folder, deploy)
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{}: {from}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn everything_renders_into_kubernetes_own_types() {
    let both = [("ConfigMap", 1), ("Deployment", 1), ("NetworkPolicy", 1), ("Service", 1)];
    assert_eq!(overlay().kinds(), both.map(|(kind, _)| kind));
    let (_folder, deploy) = copy();
    replace(&deploy.join("kustomize/overlay/kustomization.yaml"), "# - ../monitoring", "- ../monitoring");
    let monitored = Objects::of(&manifests(&["kustomize", path(&deploy.join("kustomize/overlay"))]).unwrap());
    let all = ["ConfigMap", "Deployment", "NetworkPolicy", "Service", "Service", "ServiceMonitor"];
    assert_eq!(monitored.kinds(), all);
    assert_eq!(whole_chart().kinds(), all);
    assert_eq!(chart(&json!({})).kinds(), ["ConfigMap", "NetworkPolicy", "Service"]);
    assert_eq!(chart(&json!({"networkPolicy": {"enabled": false}})).kinds(), ["ConfigMap", "Service"]);
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_an_error() {
    let (_folder, deploy) = copy();
    for (file, from, to) in [
        ("kustomize/base/sidecar.yaml", "restartPolicy: Always", "restartPolice: Always"),
        ("kustomize/base/network-policy.yaml", "port: 8443 }", "port: 8443, prot: 1 }"),
        ("helm/doorward/templates/_sidecar.tpl", "failureThreshold: 30", "failureThreshold: many"),
        ("helm/doorward/templates/service.yaml", ".Values.service.port", ".Values.service.prot"),
    ] {
        replace(&deploy.join(file), from, to);
        let folder = if file.starts_with("helm") { "helm/doorward" } else { "kustomize/overlay" };
        let folder = deploy.join(folder);
        let values = deploy.join("values.yaml");
        fs::write(&values, "app: { image: users }").unwrap();
        let rendered = match file.starts_with("helm") {
            true => manifests(&["helm", path(&folder), "users", path(&values)]),
            false => manifests(&["kustomize", path(&folder)]),
        };
        assert!(rendered.is_err(), "{file}: {to}");
        replace(&deploy.join(file), to, from);
    }
}

/// The block of docs/kubernetes.md with this language and name.
fn in_the_page(info: &str) -> String {
    let page = read("docs/kubernetes.md");
    let (_, rest) = page.split_once(&format!("```{info}\n")).unwrap();
    rest.split_once("\n```").unwrap().0.to_owned()
}

#[test]
fn the_charts_of_the_page_render() {
    let site = Site::new();
    let values = site.write("values.yaml", in_the_page("yaml values.yaml"));
    let rendered = manifests(&["helm", path(&root().join("deploy/helm/doorward")), "users", path(&values)]).unwrap();
    assert_eq!(Objects::of(&rendered).sidecar()["image"], "registry.example.com/doorward:0.1.0");

    fs::create_dir_all(site.path("own/templates")).unwrap();
    fs::create_dir_all(site.path("own/charts")).unwrap();
    site.write("own/Chart.yaml", "{ apiVersion: v2, name: own, version: 1.0.0, dependencies: [{ name: doorward, version: 0.1.0 }] }");
    site.write("own/templates/deployment.yaml", in_the_page("gotemplate deployment.yaml"));
    let copied =
        Command::new("cp").arg("-R").arg(root().join("deploy/helm/doorward")).arg(site.path("own/charts/doorward")).status().unwrap();
    assert!(copied.success());
    let own = Objects::of(&manifests(&["helm", path(&site.path("own")), "users"]).unwrap());
    assert_eq!(own.kinds(), ["ConfigMap", "Deployment", "NetworkPolicy", "Service"]);
    let whole = whole_chart();
    assert_eq!((own.sidecar(), &own.pod()["volumes"]), (whole.sidecar(), &whole.pod()["volumes"]));
}

#[test]
fn kustomize_and_helm_make_the_same_sidecar() {
    let (kustomize, helm) = (overlay(), whole_chart());
    let same = |objects: &Objects| {
        let mut sidecar = objects.sidecar().clone();
        sidecar.as_object_mut().unwrap().remove("imagePullPolicy");
        let mut volumes = objects.pod()["volumes"].clone();
        volumes[0]["configMap"]["name"] = Value::Null;
        let pod = objects.pod();
        let rest = ["terminationGracePeriodSeconds", "securityContext", "automountServiceAccountToken"].map(|name| pod[name].clone());
        let policy = &objects.one("NetworkPolicy")["spec"];
        (sidecar, volumes, rest, pod["containers"][0]["lifecycle"].clone(), policy["ingress"].clone(), policy["policyTypes"].clone())
    };
    assert_eq!(same(&kustomize), same(&helm));
}

#[test]
fn a_service_accounts_token_is_mounted_only_where_it_is_asked_for() {
    for objects in [overlay(), whole_chart()] {
        assert!(!Value::from(objects.0.clone()).to_string().contains("serviceAccountToken"));
        assert_eq!(objects.pod()["automountServiceAccountToken"], false);
    }
    let chart = chart(&json!({"app": {"image": "ghcr.io/example/users:0.1.0"}, "clusterKeys": true}));
    let added = |objects: &Objects| {
        let ours = |list: &Value| list.as_array().unwrap().iter().find(|entry| entry["name"] == "doorward-cluster").unwrap().clone();
        (ours(&objects.pod()["volumes"]), ours(&objects.sidecar()["volumeMounts"]))
    };
    let (volume, mount) = added(&chart);
    assert!(volume.to_string().contains("serviceAccountToken"));
    assert_eq!(volume["projected"]["defaultMode"], 0o440, "for the group, and nobody else");
    assert_eq!((volume, mount), added(&overlay_with_cluster_keys()));
}

/// The mounted files of a configuration, laid out below a folder, and `check` on it.
fn checked(objects: &Objects) -> (bool, String) {
    let site = Site::new();
    let config = &objects.one("ConfigMap")["data"];
    let folder = path(&site.path("")).trim_end_matches('/').to_owned();
    for (mounted, files) in
        [("tls", &["tls.crt", "tls.key"][..]), ("api-keys", &["api-keys.yaml"]), ("cluster", &["ca.crt", "token"]), ("config", &[])]
    {
        fs::create_dir(site.path(mounted)).unwrap();
        for file in files {
            let content = fs::read(site.path(file)).or_else(|_| fs::read(site.path("ca.pem"))).unwrap();
            site.write(&format!("{mounted}/{file}"), content);
        }
    }
    for (name, text) in config.as_object().unwrap() {
        let text = text.as_str().unwrap().replace("/etc/doorward/", &format!("{folder}/"));
        site.write(&format!("config/{name}"), text.replace("/var/run/secrets/doorward/", &format!("{folder}/")));
    }
    let output = command(&["check", "--config", path(&site.path("config/doorward.yaml"))], "");
    (output.status.success(), String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap())
}

#[test]
fn doorward_takes_the_configurations() {
    for overlay in [overlay(), overlay_with_cluster_keys()] {
        let (fine, said) = checked(&overlay);
        assert!(fine && said.contains("0 warnings"), "{said}");
    }
    let rules =
        json!({"config": {"authorization": {"roles": {"viewer": ["users:read"]}, "methods": {"/api.users.UserService/*": "users:read"}}}});
    let (fine, said) = checked(&chart(&rules));
    assert!(fine && said.contains("0 warnings"), "{said}");
    let (fine, said) = checked(&chart(&json!({})));
    assert!(fine && said.contains("every call is refused"), "{said}");
    let (fine, said) = checked(&chart(&json!({"revocations": [{"api_kee": "reader"}]})));
    assert!(!fine, "{said}");
}

/// doorward.yaml of the ConfigMap.
fn configuration_of(objects: &Objects) -> Value {
    serde_yaml::from_str(objects.one("ConfigMap")["data"]["doorward.yaml"].as_str().unwrap()).unwrap()
}

#[test]
fn every_path_is_mounted_and_every_port_is_listened_on() {
    for objects in [overlay(), overlay_with_cluster_keys(), whole_chart()] {
        let (sidecar, config) = (objects.sidecar(), configuration_of(&objects));
        let volumes: BTreeSet<&str> =
            objects.pod()["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect();
        let mounts: Vec<&Value> = sidecar["volumeMounts"].as_array().unwrap().iter().collect();
        assert_eq!(volumes, mounts.iter().map(|mount| mount["name"].as_str().unwrap()).collect());
        // A `subPath` never changes.
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true && mount.get("subPath").is_none()));
        let text = objects.one("ConfigMap")["data"]["doorward.yaml"].as_str().unwrap();
        let in_use: String = text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
        let paths = in_use.split(|end: char| " ,\n}\"".contains(end)).filter(|word| word.starts_with("/etc/") || word.starts_with("/var/"));
        let arguments = sidecar["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        let mut named = 0;
        for file in paths.chain(arguments.filter(|argument| argument.starts_with('/'))) {
            let folder = Path::new(file).parent().unwrap().to_str().unwrap();
            assert!(mounts.iter().any(|mount| mount["mountPath"] == folder), "{file}");
            named += 1;
        }
        assert!(named >= 4, "{named}");
        let port = |key: &str| config[key]["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let listed =
            json!([{"name": "grpc-tls", "containerPort": port("listen")}, {"name": "operations", "containerPort": port("operations")}]);
        assert_eq!(sidecar["ports"], listed);
        assert_eq!(config["upstream"]["address"], "http://127.0.0.1:50051");
        assert!(read("deploy/example/service.py").contains("127.0.0.1:50051"));
        let policy = &objects.one("NetworkPolicy")["spec"]["ingress"];
        assert_eq!((&policy[0]["ports"][0]["port"], &policy[1]["ports"][0]["port"]), (&json!(port("listen")), &json!(port("operations"))));
    }
}

#[test]
fn selectors_select_the_pods() {
    let (_folder, deploy) = copy();
    replace(&deploy.join("kustomize/overlay/kustomization.yaml"), "# - ../monitoring", "- ../monitoring");
    for objects in [Objects::of(&manifests(&["kustomize", path(&deploy.join("kustomize/overlay"))]).unwrap()), whole_chart()] {
        let labels = &objects.one("Deployment")["spec"]["template"]["metadata"]["labels"];
        let within = |selector: &Value, labels: &Value| {
            let selector = selector.as_object().unwrap();
            !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value)
        };
        assert!(within(&objects.one("Deployment")["spec"]["selector"]["matchLabels"], labels));
        assert!(within(&objects.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], labels));
        for service in objects.0.iter().filter(|object| object["kind"] == "Service") {
            assert!(within(&service["spec"]["selector"], labels), "{service}");
        }
        let scraped = &objects.one("ServiceMonitor")["spec"];
        let mut services = objects.0.iter().filter(|object| object["kind"] == "Service");
        let operations = services
            .find(|service| service["metadata"].get("labels").is_some_and(|labels| within(&scraped["selector"]["matchLabels"], labels)));
        assert_eq!(operations.unwrap()["spec"]["ports"][0]["name"], scraped["endpoints"][0]["port"]);
    }
}

#[test]
fn the_times_of_the_way_down_fit_into_each_other() {
    for objects in [overlay(), whole_chart()] {
        let config = configuration_of(&objects);
        let seconds = |key: &str| config["limits"][key].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
        let pod = objects.pod();
        let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let service = read("deploy/example/service.py");
        let own = service.lines().find_map(|line| line.strip_prefix("GRACE = ")).unwrap().parse::<u64>().unwrap();
        assert!(sleep >= seconds("drain_delay") + 2, "the app answers until clients have been sent away");
        assert!(own >= seconds("drain") && sleep + own < grace, "calls in flight have as long at the app as at Doorward");
        assert!(seconds("drain_delay") + seconds("drain") < grace);
        let readiness = &objects.sidecar()["readinessProbe"];
        let noticed = Duration::from_secs(readiness["periodSeconds"].as_u64().unwrap() * readiness["failureThreshold"].as_u64().unwrap());
        assert!(noticed < Duration::from_secs(seconds("drain_delay")), "not ready is seen before anybody is sent away");
        assert_eq!(
            objects.sidecar()["lifecycle"]["preStop"]["exec"]["command"],
            json!(["doorward", "drain", "--config", objects.sidecar()["args"][2]])
        );
    }
}

#[test]
fn the_sidecar_may_do_nothing_and_starts_before_the_app() {
    for objects in [overlay(), whole_chart()] {
        let sidecar = objects.sidecar();
        let nothing = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}
        });
        assert_eq!(sidecar["securityContext"], nothing);
        assert_eq!(sidecar["restartPolicy"], "Always", "a native sidecar");
        assert_eq!(sidecar["resources"]["limits"], json!({"memory": "32Mi"}));
        let probe = |name: &str| sidecar[name]["httpGet"].clone();
        for (name, asked) in [("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
            assert_eq!(probe(name), json!({"path": asked, "port": "operations"}));
        }
        // Secrets are read by the group, and by nobody else.
        assert_eq!(objects.pod()["securityContext"]["fsGroup"], sidecar["securityContext"]["runAsGroup"]);
        for volume in objects.pod()["volumes"].as_array().unwrap().iter().skip(1) {
            let mode = volume.get("secret").or(volume.get("projected")).unwrap()["defaultMode"].clone();
            assert_eq!(mode, 0o440, "{volume}");
        }
    }
}

#[test]
fn the_images_are_what_the_manifests_run() {
    let lines = |file: &str| manifests(&["dockerfile", path(&root().join(file))]).unwrap();
    let sidecar = overlay().sidecar().clone();
    let (user, group) = (&sidecar["securityContext"]["runAsUser"], &sidecar["securityContext"]["runAsGroup"]);
    let image = lines("deploy/Dockerfile");
    for expected in [
        format!("USER {user}:{group}"),
        "EXPOSE 8443 9902".to_owned(),
        "ENTRYPOINT [\"/usr/bin/doorward\"]".to_owned(),
        format!("CMD {}", sidecar["args"]).replace("\",\"", "\", \""),
    ] {
        assert!(image.lines().any(|line| line == expected), "{expected} is not in\n{image}");
    }
    // The toolchain is one that Cargo.toml takes.
    let minor = |text: &str| text.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    let (dockerfile, cargo) = (read("deploy/Dockerfile"), read("Cargo.toml"));
    let used = dockerfile.lines().find_map(|line| line.strip_prefix("ARG RUST=rust:")).unwrap();
    let least = cargo.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    assert!(minor(used) >= minor(least.trim_end_matches('"')), "{used} {least}");
    assert!(lines("deploy/example/Dockerfile").contains("ENTRYPOINT [\"python\", \"/app/service.py\"]"));
}

/// The environment that `release/build` gives to the compilers of an architecture, and the target it asks for.
fn released(architecture: &str, gnu: &str) -> BTreeMap<String, String> {
    let site = Site::new();
    for program in ["gcc", "g++", "ar"] {
        executable(&site, &format!("{gnu}-{program}"), "");
    }
    executable(&site, "rustc", "echo /rust");
    executable(&site, "cargo", "env; while [ \"$1\" != --target ]; do shift; done; echo CARGO_BUILD_TARGET=$2");
    let output = Command::new(root().join("release/build"))
        .arg(architecture)
        .env_clear()
        .envs([("PATH", format!("{}:/usr/bin:/bin", path(&site.path("")))), ("HOME", "/root".to_owned())])
        .env("SOURCE_DATE_EPOCH", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let lines = String::from_utf8(output.stderr).unwrap();
    lines.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn executable(site: &Site, name: &str, script: &str) {
    let file = site.write(name, format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_image_is_built_as_a_release_is() {
    let dockerfile = read("deploy/Dockerfile");
    for (architecture, gnu) in [("amd64", "x86_64-linux-gnu"), ("arm64", "aarch64-linux-gnu")] {
        let (_, stage) = dockerfile.split_once(&format!("AS for-{architecture}\n")).unwrap();
        let lines = stage.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("ENV "));
        let mut image: BTreeMap<&str, &str> = lines.flat_map(str::split_whitespace).map(|pair| pair.split_once('=').unwrap()).collect();
        // What the Dockerfile itself reads.
        assert_eq!((image.remove("GNU"), image.remove("PACKAGES").is_some()), (Some(gnu), true));
        let release = released(architecture, gnu);
        // There are further settings in a release: for paths, which are the same in every image, and for what is found without.
        let decisive = ["CARGO_BUILD_TARGET", "CARGO_TARGET_", "CC_", "CXX_", "JEMALLOC_"];
        let release: BTreeMap<&str, &str> = release
            .iter()
            .filter(|(name, _)| decisive.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, value)| (name.as_str(), value.rsplit('/').next().unwrap()))
            .collect();
        assert_eq!(image, release, "{architecture}");
    }
}

#[test]
fn a_mistake_in_a_dockerfile_is_found() {
    let (_folder, deploy) = copy();
    for (from, to) in [("USER 65532", "USR 65532"), ("FROM $BASE", "From $BASE as"), ("COPY --from=build", "COPY --fron=build")] {
        replace(&deploy.join("Dockerfile"), from, to);
        assert!(manifests(&["dockerfile", path(&deploy.join("Dockerfile"))]).is_err(), "{to}");
        replace(&deploy.join("Dockerfile"), to, from);
    }
}

/// What .dockerignore lets through is a workspace that Cargo takes, with the locked dependencies.
#[test]
fn the_context_of_the_image_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let ignore = read(".dockerignore");
    assert_eq!(ignore.lines().find(|line| !line.starts_with('#')), Some("*"));
    for name in ignore.lines().filter_map(|line| line.strip_prefix('!')) {
        let target = folder.path().join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        assert!(Command::new("cp").arg("-R").arg(root().join(name)).arg(&target).status().unwrap().success(), "{name}");
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--no-deps"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Every file that the sources take in at compile time, outside of tests and fuzz targets.
    for included in ["proto/demo/v1/greeter.proto", "src/cli/demo/doorward.yaml", ".cargo/config.toml"] {
        assert!(folder.path().join(included).exists(), "{included}");
    }
}
