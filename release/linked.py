"""The crates that are linked into the binary for a target: what the bill of materials and the licences are about.

Neither what only the tests need, nor build scripts and what expands macros: none of it is shipped.
"""

import json
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


class Linked:
    """`packages` as `cargo metadata` has them by (name, version), `edges` between those, `checksums` of Cargo.lock."""

    def __init__(self, target):
        self.root = ("doorward", tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"])
        tree = cargo("tree", "--package=doorward", "--target", target, "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}")
        # `name vVERSION`, then perhaps a path and `(*)`.
        names = {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, tree.splitlines())}
        metadata = json.loads(cargo("metadata", "--format-version=1", "--filter-platform", target))
        key_of = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
        self.packages = {key: package for package in metadata["packages"] if (key := key_of[package["id"]]) in names}
        assert names == self.packages.keys(), names ^ self.packages.keys()
        self.edges = {key: set() for key in names}
        for node in metadata["resolve"]["nodes"]:
            if key_of[node["id"]] in names:
                normal = [dep for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
                self.edges[key_of[node["id"]]] |= {key_of[dep["pkg"]] for dep in normal} & names
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        self.checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock}
