#!/usr/bin/env python3
"""Plants the faults of tests/mutation/faults.toml one by one and sees whether a test notices.

    scripts/mutation_check.py                   all faults; a table in Markdown, as in docs/notes/mutation-check.md
    scripts/mutation_check.py --only norm       faults whose file or reason contains "norm"
    scripts/mutation_check.py --faults 3-8      these, counted from 1
    scripts/mutation_check.py --keep            leaves the copy for the next run, which then builds little
    scripts/mutation_check.py --check           only that each fault can still be planted
    scripts/mutation_check.py --prefix "nice"   words in front of every build and test command

Works in a copy of the last commit (a git worktree under build/mutation) with a build of its own, so nothing here is
touched; builds only the tests a fault names. Fails when a fault survives. Needs Python 3.11.
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREE = ROOT / "build/mutation/tree"
BUILD = TREE / "build/release"


def run(command, prefix=(), **options):
    # Objects are found in the compiler cache although the folder is another one.
    environment = dict(os.environ, CCACHE_BASEDIR=str(TREE), CCACHE_NOHASHDIR="1")
    return subprocess.run([*prefix, *map(str, command)], capture_output=True, text=True, env=environment, **options)


def planted(fault, root):
    """The file's text with the fault in it; an error when `old` is not there exactly once."""
    text = (root / fault["file"]).read_text(encoding="utf-8")
    count = text.count(fault["old"])
    if count != 1:
        raise ValueError(f"{fault['file']}: the old text of \"{fault['why']}\" occurs {count} times, not once")
    return text.replace(fault["old"], fault["new"])


def target_of(test):
    """integration.federated_run.np2 is run by test_integration_federated_run; a script drives the program itself."""
    folder, _, name = re.sub(r"\.np\d+$", "", test).rpartition(".")
    if folder.startswith("host_kernels"):
        return f"test_{folder}"  # one program for all families
    if any((ROOT / "tests" / folder.replace(".", "/") / f"test_{name}{end}").exists() for end in (".py", ".sh")):
        return "caravan"
    return f"test_{folder.replace('.', '_')}_{name}"


def build(tests, prefix):
    return run(["cmake", "--build", BUILD, "--target", *sorted({target_of(test) for test in tests})], prefix)


def who_notices(tests, prefix):
    """The first test that fails, with its first failing case; None when all pass."""
    for test in tests:
        result = run(["ctest", "--test-dir", BUILD, "--output-on-failure", "-R", f"^{re.escape(test)}$"], prefix)
        if "No tests were found" in result.stdout + result.stderr:
            sys.exit(f"mutation_check: there is no test {test}")
        if result.returncode != 0:
            # On several ranks tests/support/main.cpp names the case; else Catch does, between two lines of dashes.
            case = re.search(r"^\[rank \d+ of \d+\] (.*)$", result.stdout, re.MULTILINE) or re.search(
                r"^-{20,}\n(.*?)\n-{20,}$", result.stdout, re.MULTILINE | re.DOTALL) or re.search(
                r"^(?:FAIL|ERROR): (\w+)", result.stdout, re.MULTILINE)
            return test, " ".join(case[1].split()) if case else "does not end well"
    return None


def prepare(prefix, faults):
    if TREE.exists():
        commit = run(["git", "-C", ROOT, "rev-parse", "HEAD"]).stdout.strip()
        result = run(["git", "-C", TREE, "checkout", "--quiet", "--force", "--detach", commit])
    else:
        result = run(["git", "-C", ROOT, "worktree", "add", "--detach", TREE, "HEAD"])
    if result.returncode == 0:
        result = run(["cmake", "--preset", "release"], cwd=TREE)
    tests = sorted({test for fault in faults for test in fault["tests"]})
    if result.returncode == 0:
        result = build(tests, prefix)
    if result.returncode != 0:
        sys.exit(result.stdout[-3000:] + result.stderr)
    failing = who_notices(tests, prefix)
    if failing:
        sys.exit(f"mutation_check: {failing[0]} fails without any fault: {failing[1]}")


def try_fault(fault, prefix):
    path = TREE / fault["file"]
    original = path.read_text(encoding="utf-8")
    path.write_text(planted(fault, TREE), encoding="utf-8")
    try:
        result = build(fault["tests"], prefix)
        if result.returncode != 0:
            sys.exit(f"mutation_check: \"{fault['why']}\" does not compile:\n{result.stdout[-3000:]}")
        return who_notices(fault["tests"], prefix)
    finally:
        path.write_text(original, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--faults", default="")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prefix", default="", type=shlex.split)
    options = parser.parse_args()
    with open(ROOT / "tests/mutation/faults.toml", "rb") as file:
        faults = tomllib.load(file)["fault"]
    if options.faults:
        first, _, last = options.faults.partition("-")
        faults = faults[int(first) - 1 : int(last or first)]
    faults = [fault for fault in faults if options.only in fault["file"] + fault["why"]]
    for fault in faults:
        planted(fault, ROOT)
    if options.check:
        print(f"{len(faults)} faults can be planted")
        return
    prepare(options.prefix, faults)
    survivors = 0
    print("| fault | file | noticed by |\n|---|---|---|", flush=True)
    for fault in faults:
        begin = time.monotonic()
        noticed = try_fault(fault, options.prefix)
        survivors += noticed is None
        by = f"`{noticed[0]}`: {noticed[1]}" if noticed else "**nobody**"
        print(f"| {fault['why']} | `{fault['file']}` | {by} |", flush=True)
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    if not options.keep:
        run(["git", "-C", ROOT, "worktree", "remove", "--force", TREE])
    print(f"\n{len(faults) - survivors} of {len(faults)} noticed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
