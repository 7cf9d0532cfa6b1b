#!/usr/bin/env python3
"""Writes what is linked into the program: the licences as text, and a bill of materials (CycloneDX 1.5, JSON).

    packaging/third_party.py TARGET LICENCES.txt SBOM.json

It asks `cargo metadata`, so the crates have to be there (`cargo fetch`). SOURCE_DATE_EPOCH is the time in the bill.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

# Build dependencies that bring C code, which is linked into the program.
LINKED_AT_BUILD = {"lua-src"}
LICENCE = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
GLIBC = """Linked statically as well: the GNU C Library (glibc), LGPL-2.1-or-later, and Rust's standard library, MIT OR Apache-2.0.
glibc's source is at https://sourceware.org/glibc/. To link the program with another glibc, build it from its own source
(packaging/build.sh).
"""


def linked(metadata):
    """The packages that are linked into the program, the program itself first."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    found, waiting = [], [metadata["resolve"]["root"]]
    while waiting:
        at = waiting.pop()
        if at in found:
            continue
        found.append(at)
        for dependency in nodes[at]["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal or packages[dependency["pkg"]]["name"] in LINKED_AT_BUILD:
                # A procedural macro runs in the compiler.
                if not any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"]):
                    waiting.append(dependency["pkg"])
    root, *others = (packages[id] for id in found)
    return root, sorted(others, key=lambda package: (package["name"], package["version"]))


def licence_texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in folder.iterdir() if LICENCE.search(file.name)]
    # jemalloc's own text lies in the folder of its source.
    files += folder.glob("jemalloc/COPYING")
    for file in sorted(files):
        for text in sorted(file.iterdir()) if file.is_dir() else [file]:
            if text.is_file():
                yield text.read_text(errors="replace").strip()
    # Lua's is a comment at the end of a header.
    for header in sorted(folder.glob("lua-5.4*/lua.h")):
        yield header.read_text(errors="replace").partition("/****")[2].rpartition("****/")[0].replace("\n* ", "\n").strip("* \n")


def write_licences(path, root, others):
    holders = {}
    for package in others:
        for text in licence_texts(package):
            name = f"{package['name']} {package['version']}"
            known = holders.setdefault(" ".join(text.split()), (text, []))[1]
            if name not in known:
                known.append(name)
    lines = [f"What is linked into {root['name']} {root['version']}, and under which licences.\n", GLIBC]
    lines += [f"{package['name']} {package['version']}: {package['license']}" for package in others]
    for text, names in holders.values():
        lines += ["", "-" * 100, ", ".join(names), "", text]
    path.write_text("\n".join(lines) + "\n")


def component(package, kind, sums):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    made = {"type": kind, "bom-ref": purl, "name": package["name"], "version": package["version"], "purl": purl}
    if package["license"]:
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if sum := sums.get((package["name"], package["version"])):
        made["hashes"] = [{"alg": "SHA-256", "content": sum}]
    return made


def checksums(lock):
    """The checksums in Cargo.lock, by name and version."""
    entry = re.compile(r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"')
    return {(name, version): sum for name, version, sum in entry.findall(lock.read_text())}


def write_bill(path, root, others):
    sums = checksums(pathlib.Path(root["manifest_path"]).with_name("Cargo.lock"))
    time = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.timezone.utc)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(root, "application", sums),
        },
        "components": [component(package, "library", sums) for package in others],
    }
    path.write_text(json.dumps(bill, indent=1) + "\n")


def main():
    target, licences, bill = sys.argv[1:]
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    root, others = linked(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    missing = [package["name"] for package in others if not any(licence_texts(package)) and not package["license"]]
    if missing:
        sys.exit(f"third_party.py: no licence is known of {', '.join(missing)}")
    write_licences(pathlib.Path(licences), root, others)
    write_bill(pathlib.Path(bill), root, others)


main()
