"""The licences of all that is linked into the binary for a target, each text once, under the crates it is of: `licences.py TARGET FILE`."""

import re
import sys
from pathlib import Path

from linked import Linked

# As authors name them; a `NOTICE` must be passed on with the Apache licence.
NAMES = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE).*", re.IGNORECASE)


def texts(package):
    folder = Path(package["manifest_path"]).parent
    return [path.read_text(errors="replace").strip() for path in sorted(folder.iterdir()) if path.is_file() and NAMES.fullmatch(path.name)]


def main(target, file):
    linked, of = Linked(target), {}
    out = ["Doorward is linked with the crates below. What each is licensed under, as its manifest says, then the texts they come with.\n"]
    for key in sorted(linked.packages.keys() - {linked.root}):
        package = linked.packages[key]
        out.append(f"{' '.join(key)}: {package['license']}")
        for text in texts(package):
            of.setdefault(text, []).append(" ".join(key))
    for text, crates in sorted(of.items(), key=lambda item: item[1]):
        out.append(f"\n{'=' * 100}\n{', '.join(crates)}\n{'=' * 100}\n\n{text}")
    Path(file).write_text("\n".join(out) + "\n")
    print(f"{file}: {len(linked.packages) - 1} crates, {len(of)} texts")


main(*sys.argv[1:])
