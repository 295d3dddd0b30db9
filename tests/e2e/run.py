"""Doorward on a real cluster, with the manifests of deploy/ as users get them. Needs kubectl, a cluster of its own accord nobody
minds (KUBECONFIG), and a way to bring images there:

    E2E_IMAGE='COMMAND'    called as COMMAND NAME:TAG FOLDER ENTRYPOINT…: makes an image of a root folder and brings it to the nodes;
                           the first word of its last line is the image's name in the cluster
    KUBECTL='COMMAND'      instead of `kubectl`
    DOORWARD=FILE          instead of the release build

What it does is in the order of `main`, below. Everything happens in the namespace doorward-e2e, which is removed at the end unless
E2E_KEEP is set. One line a check; the last says how many passed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import images
from cluster import Cluster, Follower, wait
from material import Authority, Keys

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "doorward-e2e"
TOKEN = {"token_file": "/var/run/secrets/users/token"}
GET, WATCH, DELETE = (f"/api.users.UserService/{name}" for name in ("GetUser", "WatchUsers", "DeleteUser"))


def main():
    folder = Path(tempfile.mkdtemp(prefix="doorward-e2e-"))
    e2e = EndToEnd(Cluster(NAMESPACE), folder)
    steps = [
        e2e.prepare, e2e.pods_start_in_order, e2e.calls_are_authenticated, e2e.nobody_goes_around_doorward,
        e2e.changes_arrive_without_a_restart, e2e.a_renewed_certificate_is_shown, e2e.the_memory_limit_holds,
        e2e.a_rolling_update_loses_no_call, e2e.deletion_drains, e2e.an_exposed_app_is_never_ready, e2e.the_chart_does_the_same,
    ]
    try:
        for step in steps:
            print(f"== {step.__name__.replace('_', ' ')}", flush=True)
            try:
                step()
            except Exception:  # the next step may still have something to say
                traceback.print_exc(file=sys.stdout)
                e2e.check(f"{step.__name__.replace('_', ' ')}: to its end", False)
                if step in (e2e.prepare, e2e.pods_start_in_order):
                    break
    finally:
        if "E2E_KEEP" not in os.environ:
            e2e.cluster.run("delete", "namespace", NAMESPACE, "--wait=false", check=False)
            shutil.rmtree(folder)
    print(f"{e2e.passed} passed, {e2e.failed} failed")
    sys.exit(1 if e2e.failed else 0)


class EndToEnd:
    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.passed = self.failed = 0

    def check(self, what, holds, detail=""):
        if holds:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{time.strftime('%T')} {'ok   ' if holds else 'FAIL '} {what}{f': {detail}' if detail != '' else ''}", flush=True)

    # ------------------------------------------------------------------------------------------------ what is there

    def prepare(self):
        binary = os.environ.get("DOORWARD") or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/doorward"
        image = {"doorward": images.doorward(self.folder, binary), "users": images.users(self.folder)}
        print(f"images: {image}", flush=True)
        cluster = self.cluster
        cluster.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
        cluster.apply(cluster.object("Namespace", NAMESPACE))
        wait("the namespace's service account", lambda: cluster.run("get", "serviceaccount", "default", check=False))

        self.authority, self.keys = Authority(), Keys(binary, self.folder)
        self.reader, self.admin = self.keys.create("reader", "viewer"), self.keys.create("admin", "admin")
        files, self.certificate = self.authority.server("users")
        cluster.secret("doorward-tls", **files)
        self.write_keys()
        self.copy_manifests(image)
        self.apply()
        self.start_client(image["users"])
        self.target = f"{self.service_ip('users')}:443"

    def copy_manifests(self, image):
        """A copy of deploy/, as a user keeps one, with the names of this cluster in it."""
        shutil.copytree(ROOT / "deploy", self.folder / "deploy")
        self.overlay = self.folder / "deploy/kustomize/overlay"
        edited = (self.overlay / "kustomization.yaml").read_text()
        for name, found in image.items():
            repository, tag = found.rsplit(":", 1)
            edited = edited.replace(f"newName: ghcr.io/example/{name}, newTag: 0.1.0", f"newName: {repository}, newTag: {tag}")
        # A cluster of a test may have no name server.
        alias = {"ip": self.service_ip("kubernetes", "default"), "hostnames": ["kubernetes.default.svc"]}
        patch = [{"op": "add", "path": "/spec/template/spec/hostAliases", "value": [alias]}]
        edited += f"namespace: {NAMESPACE}\npatches:\n- target: {{ kind: Deployment }}\n  patch: {json.dumps(json.dumps(patch))}\n"
        (self.overlay / "kustomization.yaml").write_text(edited)
        issuer = json.loads(self.cluster.run("get", "--raw", "/.well-known/openid-configuration"))["issuer"]
        self.alias, self.image = alias, image
        # Service accounts are callers here: the component that brings their keys, and what doorward.yaml has ready for them.
        self.edit("kustomization.yaml", "# - ../cluster-keys", "- ../cluster-keys", apply=False)
        self.edit("doorward.yaml", "\n#  ", "\n  ", apply=False)
        self.edit("doorward.yaml", "issuer: https://kubernetes.default.svc ", f"issuer: {issuer} ", apply=False)
        self.edit("doorward.yaml", "system:serviceaccount:default:client", f"system:serviceaccount:{NAMESPACE}:client", apply=False)

    def start_client(self, image):
        cluster = self.cluster
        files = {"client.py": (ROOT / "tests/e2e/client.py").read_text(), "ca.crt": self.authority.pem.decode()}
        token = {"serviceAccountToken": {"path": "token", "audience": "users", "expirationSeconds": 7200}}
        volumes = [
            {"name": "e2e", "configMap": {"name": "e2e-client"}},
            {"name": "token", "projected": {"sources": [token]}},
        ]
        mounts = [{"name": "e2e", "mountPath": "/e2e"}, {"name": "token", "mountPath": "/var/run/secrets/users"}]
        container = {
            "name": "client", "image": image, "command": [str(images.PYTHON), "-c", "import time; time.sleep(10**6)"],
            "env": [{"name": "PYTHONPATH", "value": "/app"}, {"name": "GRPC_VERBOSITY", "value": "NONE"}], "volumeMounts": mounts,
        }
        spec = {"serviceAccountName": "client", "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
        cluster.apply(
            cluster.object("ServiceAccount", "client"), cluster.object("ConfigMap", "e2e-client", data=files), cluster.object("Pod", "client", spec=spec)
        )

    def write_keys(self):
        self.cluster.secret("doorward-api-keys", **{"api-keys__yaml": self.keys.content()})

    def edit(self, file, old, new, apply=True):
        """What an operator does: change a file of the overlay, apply it."""
        text = (self.overlay / file).read_text()
        assert old in text, f"{file} has no {old}"
        (self.overlay / file).write_text(text.replace(old, new))
        if apply:
            self.apply()

    def apply(self):
        self.cluster.run("apply", "--kustomize", str(self.overlay))

    def service_ip(self, name, namespace=NAMESPACE):
        return Cluster(namespace).get("service", name)["spec"]["clusterIP"]

    def pods(self):
        return self.cluster.pods("app.kubernetes.io/name=users")

    def identities(self):
        """Which containers there are, and how often each was restarted: equal as long as nothing was."""
        statuses = {name: pod["status"]["initContainerStatuses"] + pod["status"]["containerStatuses"] for name, pod in self.pods().items()}
        return {(name, status["containerID"], status["restartCount"]) for name, found in statuses.items() for status in found}

    def call(self, method, request=None, target=None, **credentials):
        return self.cluster.client({"do": "call", "target": target or self.target, "method": method, "request": request or {"id": "1"}, **credentials})

    def key(self, key):
        return {"metadata": [["x-api-key", key]]}

    # ------------------------------------------------------------------------------------------------ the checks

    def pods_start_in_order(self):
        self.cluster.run("rollout", "status", "deployment/users", "--timeout=150s")
        self.cluster.run("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        pods = self.pods()
        self.check("both pods are Ready", len(pods) == 2 and all(ready(pod) for pod in pods.values()))
        for name in pods:
            events = self.cluster.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
            events.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
            started = [event["involvedObject"].get("fieldPath", "") for event in events if event["reason"] == "Started"]
            expected = ["spec.initContainers{doorward}", "spec.containers{users}"]
            self.check(f"{name}: Doorward is started first, then the app", started == expected, started)
            verbose = self.cluster.operations(name, "/readyz?verbose")
            self.check(f"{name}: /readyz has every part", "[-]" not in verbose and "[+] upstream" in verbose, " ".join(verbose.split("\n")))
            log = self.cluster.run("logs", name, "--container", "doorward")
            self.check(f"{name}: nothing in its log warns of a mistake", "warning:" not in log and "error:" not in log, log if "warning:" in log else "")

    def calls_are_authenticated(self):
        token = self.call(GET, **TOKEN)
        caller = token.get("answers", [{}])[0].get("caller", {})
        expected = {"user_id": f"system:serviceaccount:{NAMESPACE}:client", "roles": "viewer", "permissions": "users:read"}
        self.check("a service account's token passes, and the app hears whose it is", token["code"] == "OK" and caller == expected, token)
        key = self.call(GET, **self.key(self.reader))
        self.check("an API key passes", key["code"] == "OK" and key["answers"][0]["caller"]["api_key_id"] == "reader", key)
        stream = self.call(WATCH, {"count": 5, "pause": 0.01}, **TOKEN)
        self.check("a stream passes", len(stream["answers"]) == 5, stream["code"])
        forged = self.call(GET, metadata=[["x-api-key", self.reader], ["user_id", "root"], ["user-id", "root"], ["roles", "admin"]])
        self.check("forged identity headers do not arrive", "user_id" not in forged["answers"][0]["caller"] and forged["answers"][0]["caller"]["roles"] == "viewer")
        refused = [
            ("no credential", GET, {}, "UNAUTHENTICATED", "CREDENTIALS_MISSING"),
            ("an unknown API key", GET, self.key("dw_0123456789"), "UNAUTHENTICATED", "API_KEY_UNKNOWN"),
            ("a token for the API server", GET, {"token_file": "/var/run/secrets/kubernetes.io/serviceaccount/token"}, "UNAUTHENTICATED", "TOKEN_AUDIENCE"),
            ("a forged token", GET, {"metadata": [["authorization", "Bearer eyJhbGciOiJub25lIn0.e30."]]}, "UNAUTHENTICATED", None),
            ("a viewer who deletes", DELETE, TOKEN, "PERMISSION_DENIED", "PERMISSION_MISSING"),
            ("a method without a rule", "/api.users.UserService/Unknown", self.key(self.admin), "PERMISSION_DENIED", "METHOD_NOT_ALLOWED"),
        ]
        for what, method, credentials, code, reason in refused:
            answer = self.call(method, **credentials)
            self.check(f"refused: {what}", (answer["code"], reason) == (code, answer["reason"] if reason else None), f"{answer['code']} {answer['reason']}")
        self.check("an admin's key may delete", self.call(DELETE, **self.key(self.admin))["code"] == "OK")

    def nobody_goes_around_doorward(self):
        for name, pod in self.pods().items():
            address = pod["status"]["podIP"]
            for port, open_ in [(50051, False), (8443, True)]:
                answer = self.cluster.client({"do": "reach", "host": address, "port": port})
                self.check(f"{name}: port {port} {'is' if open_ else 'is not'} reached by another pod", answer["reached"] == open_, answer.get("error", ""))

    def changes_arrive_without_a_restart(self):
        before = self.identities()

        def everywhere(method, credentials, code, reason=None):
            """Whether every pod answers so."""
            targets = [f"{pod['status']['podIP']}:8443" for pod in self.pods().values()]
            answers = [self.call(method, target=target, **credentials) for target in targets]
            return all((answer["code"], answer.get("reason")) == (code, reason) for answer in answers)

        def arrives(what, *expected):
            _, seconds = wait(what, lambda: everywhere(*expected))
            self.check(what, True, f"after {seconds:.0f} s")

        self.edit("doorward.yaml", "/api.users.UserService/DeleteUser: users:delete", "/api.users.UserService/DeleteUser: users:read")
        arrives("a rule that is relaxed", DELETE, TOKEN, "OK")
        self.edit("doorward.yaml", "/api.users.UserService/DeleteUser: users:read", "/api.users.UserService/DeleteUser: users:delete")
        arrives("a rule that is tightened", DELETE, TOKEN, "PERMISSION_DENIED", "PERMISSION_MISSING")
        late = self.keys.create("late", "viewer")
        self.write_keys()
        arrives("a new API key", GET, self.key(late), "OK")
        self.edit("revocations.yaml", "revoked: []", "revoked:\n- api_key: late\n")
        arrives("a revocation", GET, self.key(late), "UNAUTHENTICATED", "CREDENTIALS_REVOKED")

        self.edit("doorward.yaml", "limits:", "limit:")
        pod = next(iter(self.pods()))
        _, seconds = wait("a mistake is told", lambda: self.refused(pod))
        self.check("a mistake changes nothing and is told", everywhere(GET, TOKEN, "OK"), f"after {seconds:.0f} s: {self.refused(pod)}")
        self.edit("doorward.yaml", "limit:", "limits:")
        _, seconds = wait("its repair", lambda: not self.refused(pod))
        self.check("its repair", True, f"after {seconds:.0f} s")
        self.check("no container was restarted", self.identities() == before)

    def refused(self, pod):
        verbose = self.cluster.operations(pod, "/readyz?verbose")
        return next((line for line in verbose.split("\n") if " is refused: " in line), "")

    def a_renewed_certificate_is_shown(self):
        before = self.identities()
        addresses = [pod["status"]["podIP"] for pod in self.pods().values()]

        def shown():
            return {self.cluster.client({"do": "certificate", "host": address, "port": 8443})["sha256"] for address in addresses}

        self.check("the first certificate is shown", shown() == {self.certificate})
        load = self.cluster.load({"target": self.target, "channels": 2, "each": 1, "streams": 0, **TOKEN})
        files, self.certificate = self.authority.server("users")
        self.cluster.secret("doorward-tls", **files)
        _, seconds = wait("the new certificate", lambda: shown() == {self.certificate})
        result = load.stop()
        self.check("the renewed certificate is shown to new connections", True, f"after {seconds:.0f} s")
        self.check("calls went on meanwhile", result["failures"] == 0 and result["passed"]["GetUser"] > 0, result)
        self.check("no container was restarted", self.identities() == before)

    def the_memory_limit_holds(self):
        before = self.identities()
        limit = next(iter(self.pods().values()))["spec"]["initContainers"][0]["resources"]["limits"]["memory"]
        load = self.cluster.load({"target": self.target, "channels": 60, "each": 3, "streams": 2, **TOKEN})
        most = {}
        until, pods = time.monotonic() + 30, list(self.pods())
        while time.monotonic() < until:
            time.sleep(1)
            for pod in pods:
                most[pod] = max(most.get(pod, 0), metric(self.cluster.operations(pod, "/metrics"), "process_resident_memory_bytes"))
        result = load.stop()
        mebibytes = {pod: round(bytes_ / 2**20, 1) for pod, bytes_ in most.items()}
        self.check("60 connections with 300 calls at once: every call passes", result["failures"] == 0, result)
        self.check(f"the limit of {limit} holds", limit == "32Mi" and 0 < max(mebibytes.values()) < 32, f"RSS at most {mebibytes} MiB")
        self.check("no container was restarted", self.identities() == before)

    def a_rolling_update_loses_no_call(self):
        before = set(self.pods())
        load = self.cluster.load({"target": self.target, "channels": 8, "each": 4, "streams": 2, **TOKEN})
        time.sleep(3)
        began = time.monotonic()
        self.cluster.run("rollout", "restart", "deployment/users")
        self.cluster.run("rollout", "status", "deployment/users", "--timeout=200s")
        wait("the old pods are gone", lambda: not before & set(self.all_pods()))
        took = time.monotonic() - began
        time.sleep(3)
        result = load.stop()
        self.check("every pod is a new one", not before & set(self.pods()) and len(self.pods()) == 2, f"after {took:.0f} s")
        self.check("no call was lost", result["failures"] == 0 and result["passed"]["GetUser"] > 100 and result["passed"]["WatchUsers"] > 0, result)

    def all_pods(self):
        return [pod["metadata"]["name"] for pod in self.cluster.get("pods", "--selector", "app.kubernetes.io/name=users")["items"]]

    def deletion_drains(self):
        name, pod = next(iter(self.pods().items()))
        logs = {container: Follower(self.cluster, name, container, self.folder / f"{container}.log") for container in ("doorward", "users")}
        answer = {}
        # Longer than drain_delay and the app's preStop: the call ends after both have said goodbye.
        order = {"target": f"{pod['status']['podIP']}:8443", "request": {"count": 16, "pause": 1}, "timeout": 40, **TOKEN}
        calling = threading.Thread(target=lambda: answer.update(self.call(WATCH, **order)))
        calling.start()
        time.sleep(3)
        began = time.monotonic()
        deleted = threading.Thread(target=lambda: self.cluster.run("delete", "pod", name, "--wait"))
        deleted.start()
        wait("not ready", lambda: not self.cluster.says_yes(name, "/readyz"), 10)
        self.check("not ready, once deletion has begun", True, f"after {time.monotonic() - began:.1f} s")
        self.check("live all the same", self.cluster.says_yes(name, "/livez"))
        new = self.call(GET, target=order["target"], **TOKEN)
        self.check("served during drain_delay", new["code"] == "OK", new["code"])
        calling.join()
        self.check("a call of sixteen seconds ended as it should", answer.get("code") == "OK" and len(answer["answers"]) == 16, answer.get("code"))
        deleted.join()
        self.check("the pod was gone in time", time.monotonic() - began < 44, f"after {time.monotonic() - began:.1f} s")
        log = {container: follower.text() for container, follower in logs.items()}
        self.check("Doorward drained", "drained: every connection has ended" in log["doorward"], [line[:160] for line in log["doorward"].splitlines() if "drain" in line])
        self.check("the app stopped by itself", "stopped" in log["users"])
        self.cluster.run("rollout", "status", "deployment/users", "--timeout=100s")

    def an_exposed_app_is_never_ready(self):
        before = set(self.pods())
        self.change_arguments("add", ["0.0.0.0:50051"])
        new, _ = wait("a new pod", lambda: set(self.pods()) - before)
        name = new.pop()

        def noticed():
            log = self.cluster.run("logs", name, "--container", "doorward", check=False)
            return next((line for line in log.splitlines() if "ERROR" in line and "50051" in line), None)

        said, seconds = wait("Doorward's log names it", noticed)
        self.check("an app that others can reach is noticed", True, f"after {seconds:.0f} s: {said}")
        self.check("/readyz is false", not self.cluster.says_yes(name, "/readyz"))
        self.check("its pod is not Ready, the old ones are", not ready(self.pods()[name]) and all(ready(self.pods()[old]) for old in before))
        self.change_arguments("remove", None)
        self.cluster.run("rollout", "status", "deployment/users", "--timeout=150s")

    def change_arguments(self, operation, value):
        patch = [{"op": operation, "path": "/spec/template/spec/containers/0/args", "value": value}]
        self.cluster.run("patch", "deployment", "users", "--type=json", "--patch", json.dumps(patch))

    def the_chart_does_the_same(self):
        repository, tag = self.image["doorward"].rsplit(":", 1)
        values = {
            "image": {"repository": repository, "tag": tag},
            "app": {"image": self.image["users"], "replicas": 1},
            "config": {"authorization": {"roles": {"viewer": ["users:read"]}, "methods": {GET: "users:read"}}},
        }
        (self.folder / "values.yaml").write_text(json.dumps(values))
        chart = [str(ROOT / "tests/go/bin/manifests"), "helm", str(ROOT / "deploy/helm/doorward"), "accounts", str(self.folder / "values.yaml")]
        rendered = subprocess.run(chart, check=True, stdout=subprocess.PIPE, text=True).stdout
        self.cluster.run("apply", "--filename", "-", stdin=rendered)
        self.cluster.run("rollout", "status", "deployment/accounts", "--timeout=100s")
        target = f"{self.service_ip('accounts')}:443"
        answer = self.call(GET, target=target, **self.key(self.reader))
        self.check("an API key passes", answer["code"] == "OK", answer)
        answer = self.call(GET, target=target)
        self.check("no credential does not", answer.get("reason") == "CREDENTIALS_MISSING", answer["code"])
        self.cluster.run("delete", "--filename", "-", "--wait=false", stdin=rendered)


def ready(pod):
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in pod["status"].get("conditions", []))


def metric(text, name):
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


main()
