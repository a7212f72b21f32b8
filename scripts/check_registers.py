#!/usr/bin/env python3
"""Compares what every GPU kernel takes with its stored limits: registers, static shared memory, stack; no spills.

    scripts/check_registers.py                       of build/release
    scripts/check_registers.py --build build/debug   of another build folder
    scripts/check_registers.py --update              makes what the build has the new limits

The build keeps ptxas's words beside each object file (cmake/nvcc_with_report.sh). Fails on a spill, on instructions that
ptxas had to serialise, on a kernel above its limit or without one, and on a limit without a kernel; architectures that
the build does not have are passed over. Registers depend on the compiler: with another nvcc than the limits were made
with, only spills and serialisation count. Exit code 77, skipped, where the build has no GPU kernels.
"""

import argparse
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMITS = ROOT / "kernels/cuda/register_limits.txt"
NUMBERS = ("registers", "shared", "stack")
HEADER = """\
# What each kernel may take at most, in registers per thread, bytes of static shared memory, and bytes of stack. A spill is
# never allowed. Written by scripts/check_registers.py --update from what ptxas reports; checked by the test cuda.registers.
# nvcc {version}
# arch registers shared stack kernel
"""


class Kernel(NamedTuple):
    """Of one source file, for one architecture."""

    name: str  # "norm: add_parts_kernel<float>"
    arch: str


class Usage(NamedTuple):
    registers: int
    shared: int
    stack: int
    spilled: int = 0


def readable(mangled):
    """C++ names without namespaces, which hold hashes of file contents, and without parameters."""
    result = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True)
    names = []
    for name in result.stdout.splitlines():
        name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|\bcaravan::|\bcuda::", "", name)
        name = re.sub(r"^void ", "", name)
        depth = 0
        for at, letter in enumerate(name):  # a template's arguments may hold parentheses
            depth += {"<": 1, ">": -1}.get(letter, 0)
            if letter == "(" and depth == 0:
                name = name[:at]
                break
        names.append(re.sub(r"\((?:int|bool|unsigned int)\)", "", name))
    return names


def read_report(path):
    """({Kernel: Usage}, [complaints]) of one file of ptxas's words."""
    found, complaints, kernel = {}, [], None
    source = path.name.split(".")[0]
    for line in path.read_text().splitlines():
        if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            kernel = (match[1], match[2])
            found[kernel] = dict.fromkeys(Usage._fields, 0)
        elif re.search(r"\(C75\d\d\)", line) and re.search(r"serializ|ignored", line):
            complaints.append(f"{source}: {line.split(':', 1)[-1].strip()}")
        elif kernel and (match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
                                            line)):
            found[kernel]["stack"] = int(match[1])
            found[kernel]["spilled"] = int(match[2]) + int(match[3])
        elif kernel and (match := re.search(r"Used (\d+) registers", line)):
            found[kernel]["registers"] = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                found[kernel]["shared"] = int(shared[1])
    names = readable([mangled for mangled, _ in found])
    usage = {}
    for name, ((_, arch), numbers) in zip(names, found.items()):
        key = Kernel(f"{source}: {name}", arch)
        if key in usage:
            raise ValueError(f"{path}: two kernels are called {key.name}")
        usage[key] = Usage(**numbers)
    return usage, complaints


def read_build(build):
    usage, complaints = {}, []
    for path in sorted(build.glob("CMakeFiles/caravan_kernels_*.dir/**/*.ptxas")):
        source = re.sub(r"^.*?\.dir/", "", path.relative_to(build / "CMakeFiles").as_posix()).removesuffix(".o.ptxas")
        if (ROOT / source).exists():  # else left over from a source that is gone
            more, words = read_report(path)
            usage |= more
            complaints += words
    return usage, complaints


def nvcc_version(build):
    cache = (build / "CMakeCache.txt").read_text() if (build / "CMakeCache.txt").exists() else ""
    match = re.search(r"^CMAKE_CUDA_COMPILER:\w+=(\S+)$", cache, re.MULTILINE)
    words = subprocess.run([match[1], "--version"], capture_output=True, text=True).stdout if match else ""
    release = re.search(r"release ([\d.]+)", words)
    return release[1] if release else "unknown"


def read_limits(path):
    """({Kernel: Usage}, version of nvcc); empty when there is no file."""
    limits, version = {}, "none"
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        if match := re.match(r"# nvcc (\S+)$", line):
            version = match[1]
        elif line and not line.startswith("#"):
            match = re.match(r"(sm_\w+) +(\d+) +(\d+) +(\d+) +(\S.*)$", line)
            if not match:
                raise ValueError(f"{path}:{number}: not of the form 'arch registers shared stack kernel': {line}")
            limits[Kernel(match[5], match[1])] = Usage(*map(int, match.group(2, 3, 4)))
    return limits, version


def write_limits(path, limits, version):
    lines = [f"{kernel.arch} {used.registers} {used.shared} {used.stack} {kernel.name}\n"
             for kernel, used in sorted(limits.items())]
    path.write_text(HEADER.format(version=version) + "".join(lines))


def broken_limits(usage, limits):
    problems = []
    archs = {kernel.arch for kernel in usage}
    for kernel, used in usage.items():
        where = f"{kernel.name} for {kernel.arch}"
        limit = limits.get(kernel)
        if limit is None:
            problems.append(f"{where}: {used.registers} registers, and no limit; accept it with --update")
            continue
        for what in NUMBERS:
            if getattr(used, what) > getattr(limit, what):
                problems.append(f"{where}: {what} {getattr(used, what)}, the limit is {getattr(limit, what)}")
    problems += [f"{kernel.name} for {kernel.arch}: has a limit and is gone; take it out with --update"
                 for kernel in limits if kernel.arch in archs and kernel not in usage]
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--limits", type=pathlib.Path, default=LIMITS)
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()

    usage, problems = read_build(arguments.build)
    if not usage:
        print(f"SKIPPED: {arguments.build} has no GPU kernels (CARAVAN_CUDA, docs/notes/cuda-build.md)")
        return 77
    problems += [f"{kernel.name} for {kernel.arch}: spills {used.spilled} bytes"
                 for kernel, used in usage.items() if used.spilled]
    version = nvcc_version(arguments.build)
    limits, version_of_limits = read_limits(arguments.limits)
    archs = {kernel.arch for kernel in usage}
    if arguments.update:
        write_limits(arguments.limits, {k: v for k, v in limits.items() if k.arch not in archs} | usage, version)
    elif version in (version_of_limits, "unknown"):
        problems += broken_limits(usage, limits)
    else:
        print(f"the limits are of nvcc {version_of_limits}, this is {version}: only spills and serialisation are checked")
    for problem in problems:
        print(problem)
    print(f"check_registers: {len(usage)} kernels for {', '.join(sorted(archs))}, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
