"""The root folders of the images, as the Dockerfiles of deploy/ make them, and how they come to the cluster: E2E_IMAGE."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Of this machine, and at the same place in the image.
PYTHON = Path(sys.executable).resolve()


def import_image(name, folder, command):
    """E2E_IMAGE NAME FOLDER COMMAND... makes an image of a root folder and an entry point, and gives it to the cluster's nodes.
    The first word of its last line is the name under which pods find it."""
    hook = shlex.split(os.environ["E2E_IMAGE"])
    output = subprocess.run([*hook, name, str(folder), *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return output.strip().splitlines()[-1].split()[0]


def doorward(work, binary):
    """The binary, the libraries it is linked with, root certificates, a user: what deploy/Dockerfile ends in."""
    root = fresh(work / "doorward-root")
    place(binary, root / "usr/bin/doorward")
    for library in libraries(binary):
        place(library, root / library.lstrip("/"))
    place("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")
    return import_image("doorward:e2e", root, ["/usr/bin/doorward"])


def users(work):
    """This Python, its standard library, what the example requires, and the example. The client's requirements as well: its pod is
    made of the same image."""
    root = fresh(work / "users-root")
    standard = Path(sysconfig.get_path("stdlib"))
    place(PYTHON, root / str(PYTHON).lstrip("/"))
    unused = shutil.ignore_patterns("site-packages", "dist-packages", "test", "idlelib", "tkinter", "ensurepip", "config-*", "__pycache__")
    shutil.copytree(standard, root / str(standard).lstrip("/"), ignore=unused)
    # Beside the script, where Python looks first.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--target", str(root / "app")]
    requirements = ROOT / "deploy/example/requirements.txt"
    subprocess.run([*install, "--requirement", str(requirements), "googleapis-common-protos"], check=True)
    shutil.copy(ROOT / "deploy/example/service.py", root / "app/service.py")
    for binary in [PYTHON, *root.rglob("*.so")]:
        for library in libraries(binary):
            place(library, root / library.lstrip("/"))
    return import_image("users:e2e", root, [str(PYTHON), "/app/service.py"])


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "etc").mkdir(parents=True)
    return folder


def place(source, target):
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def libraries(binary):
    output = subprocess.run(["ldd", str(binary)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return sorted(set(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", output, re.MULTILINE)))
