#!/usr/bin/env python3
"""Compares the kernels that the host-kernels tests launched with all that the program has, and with the sources.

    check_launched.py PROGRAM FOLDER SOURCES

FOLDER: what the tests wrote (CARAVAN_LAUNCHED_KERNELS); what is older than the program does not count.
SOURCES: kernels/cuda. Fails on an instance of a kernel that no test launched, and on a kernel of the sources that the
program has no instance of.
"""

import pathlib
import re
import subprocess
import sys


def kernels_of(program):
    """{address: readable name} of every kernel, and the address that places count from."""
    found, start = {}, None
    names = subprocess.run(["nm", "-C", program], check=True, capture_output=True, text=True).stdout
    for line in names.splitlines():
        address, _, name = line.partition(" ")
        name = name[2:]
        if name == "__executable_start":
            start = int(address, 16)
        elif match := re.match(r"(?:void )?caravan::cuda::(.*?\b\w+_kernel(?:<.*>)?)\(", name):
            if "[clone" not in name and "{lambda" not in name:
                found[int(address, 16)] = match[1].replace("(anonymous namespace)::", "").replace("caravan::", "")
    return found, start


def kernels_in(folder):
    """Names of the kernels of the sources."""
    names = set()
    for path in sorted([*folder.rglob("*.cu"), *folder.rglob("*.h")]):
        for match in re.finditer(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(", path.read_text()):
            names.add(match[1])
    return names


def main():
    program, folder, sources = map(pathlib.Path, sys.argv[1:4])
    kernels, start = kernels_of(program)
    launched = set()
    for path in folder.glob("*.txt"):
        if path.stat().st_mtime >= program.stat().st_mtime:
            launched.update(start + int(line, 16) for line in path.read_text().split())
    problems = [f"launched by no test: {name}" for address, name in sorted(kernels.items(), key=lambda item: item[1])
                if address not in launched]
    have = {re.sub(r"<.*", "", name).split("::")[-1] for name in kernels.values()}
    problems += [f"not in the program: {name}" for name in sorted(kernels_in(sources) - have)]
    print(f"{len(kernels)} instances of {len(have)} kernels, {len(set(kernels) & launched)} of them launched")
    print("\n".join(problems))
    return 1 if problems or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
