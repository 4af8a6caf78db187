r"""Makes CycloneDX bills of materials: of the crates in the wheel, or of the Debian packages in an image.

`sbom.py crates`, or `sbom.py debian IMAGE VERSION` with a list on standard input, as
`dpkg-query -W -f '${Package} ${Version} ${Architecture}\n'` prints it.

Prints JSON. Of one commit, or one list and one commit, it always makes the same. Runs in an environment that
`scripts/environments.sh` makes.
"""

from __future__ import annotations

import os
import sys
import tomllib
import uuid
from collections.abc import Collection
from datetime import UTC, datetime

from crates import CRATE, ROOT, linked
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def crates() -> Bom:
    """The wheel, the core in it, and what that is linked with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = component(
        PackageURL("pypi", None, project["name"], project["version"]), ComponentType.APPLICATION
    )
    licences = LicenseFactory()
    found = linked()
    components = {}
    for crate in found:
        made = component(PackageURL("cargo", None, crate.name, crate.version), ComponentType.LIBRARY)
        if crate.licence:
            made.licenses.add(licences.make_from_string(crate.licence))
        if crate.checksum:
            made.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=crate.checksum))
        components[crate.id] = made
    bom = bill(wheel, components.values())
    bom.register_dependency(wheel, [components[crate.id] for crate in found if crate.name == CRATE])
    for crate in found:
        bom.register_dependency(components[crate.id], [components[each] for each in crate.needs])
    return bom


def debian(image: str, version: str) -> Bom:
    """An image and the packages that standard input lists."""
    whole = component(PackageURL("docker", None, image, version), ComponentType.CONTAINER)
    packages = []
    for line in sys.stdin:
        name, number, architecture = line.split()
        purl = PackageURL("deb", "debian", name, number, {"arch": architecture})
        packages.append(component(purl, ComponentType.LIBRARY))
    bom = bill(whole, packages)
    bom.register_dependency(whole, packages)
    return bom


def component(purl: PackageURL, kind: ComponentType) -> Component:
    """One part, known by its address."""
    return Component(name=purl.name, version=purl.version, type=kind, purl=purl, bom_ref=str(purl))


def bill(whole: Component, parts: Collection[Component]) -> Bom:
    """A bill whose number and time are not drawn by chance."""
    epoch = os.environ["SOURCE_DATE_EPOCH"]
    listed = "\n".join([str(whole.purl), epoch, *sorted(str(part.purl) for part in parts)])
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, listed))
    bom.metadata.component = whole
    bom.metadata.timestamp = datetime.fromtimestamp(int(epoch), UTC)
    return bom


if __name__ == "__main__":
    made = {"crates": crates, "debian": debian}[sys.argv[1]](*sys.argv[2:])
    print(JsonV1Dot6(made).output_as_string(indent=2))
