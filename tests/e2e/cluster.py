"""kubectl, and what the steps ask of it again and again. KUBECTL is the command, `kubectl` without it; KUBECONFIG is its own affair."""

import base64
import json
import os
import shlex
import subprocess
import time

from images import PYTHON

KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))


class Cluster:
    def __init__(self, namespace):
        self.namespace = namespace

    def command(self, *arguments):
        return [*KUBECTL, "--namespace", self.namespace, *arguments]

    def run(self, *arguments, stdin=None, check=True):
        done = subprocess.run(self.command(*arguments), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments):
        return json.loads(self.run("get", *arguments, "--output", "json"))

    def apply(self, *objects):
        self.run("apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def object(self, kind, name, **fields):
        version = {"Namespace": "v1", "Secret": "v1", "ConfigMap": "v1", "Pod": "v1", "ServiceAccount": "v1"}[kind]
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}

    def secret(self, name, **files):
        data = {key.replace("__", "."): base64.b64encode(value).decode() for key, value in files.items()}
        self.apply(self.object("Secret", name, data=data))

    def pods(self, selector):
        """Those that are not on their way out, by name."""
        found = self.get("pods", "--selector", selector)["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def operations(self, pod, path):
        """What Doorward's operations port of a pod says, through the API server; nothing when it does not say 200."""
        return self.run("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:9902/proxy{path}", check=False)

    def says_yes(self, pod, probe):
        return self.operations(pod, f"{probe}?verbose") != ""

    def client(self, order):
        """One order for the client's pod, and its answer."""
        return json.loads(self.run("exec", "--stdin", "client", "--", *CLIENT, stdin=json.dumps(order) + "\n"))

    def load(self, order):
        return Load(self.command("exec", "--stdin", "client", "--", *CLIENT), order)


CLIENT = [str(PYTHON), "/e2e/client.py"]


class Load:
    """Calls in the background, until they are told to stop."""

    def __init__(self, command, order):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps({"do": "load", **order}) + "\n")
        self.process.stdin.flush()

    def stop(self):
        output, _ = self.process.communicate("stop\n", timeout=120)
        return json.loads(output)


class Follower:
    """The log of a container, to its end; it outlives the pod."""

    def __init__(self, cluster, pod, container, path):
        self.path = path
        with open(path, "w") as file:
            self.process = subprocess.Popen(
                cluster.command("logs", "--follow", "--timestamps", pod, "--container", container), stdout=file, stderr=subprocess.DEVNULL
            )

    def text(self):
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.path.read_text()


def wait(what, found, seconds=150):
    """Asks until the answer is true, and says how long that took."""
    began = time.monotonic()
    while True:
        answer = found()
        if answer:
            return answer, time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.3)
