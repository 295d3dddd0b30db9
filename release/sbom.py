"""The bill of materials of the binary for a target, as CycloneDX 1.6 in JSON: `sbom.py TARGET FILE`.

Checked against CycloneDX's own schema before it is written. The same commit gives the same bytes.
"""

import os
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from linked import ROOT, Linked


def component(package, checksum, kind=ComponentType.LIBRARY):
    name, version = package["name"], package["version"]
    url = PackageURL("cargo", None, name, version)
    repository = package.get("repository")
    licence = package["license"] or sys.exit(f"{name} {version} names no licence")
    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=url.to_string(),
        purl=url,
        description=" ".join((package["description"] or "").split()) or None,
        licenses=[LicenseFactory().make_from_string(licence.replace("/", " OR "))],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [],
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(repository))] if repository else [],
    )


def main(target, file):
    linked = Linked(target)
    kind = lambda key: ComponentType.APPLICATION if key == linked.root else ComponentType.LIBRARY
    components = {key: component(package, linked.checksums[key], kind(key)) for key, package in linked.packages.items()}
    lock = (ROOT / "Cargo.lock").read_text()
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"doorward {linked.root[1]} {target}\n{lock}"))
    bom.metadata.component = components[linked.root]
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    bom.components.update(one for key, one in components.items() if key != linked.root)
    for key, one in components.items():
        bom.register_dependency(one, [components[dependency] for dependency in linked.edges[key]])
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not CycloneDX: {errors}")
    Path(file).write_text(text)
    print(f"{file}: {len(components)} components, valid CycloneDX 1.6")


main(*sys.argv[1:])
