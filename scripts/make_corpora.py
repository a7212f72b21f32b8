#!/usr/bin/env python3
"""Writes the corpora in configs/quickstart/data: general (for the base model), math, qa and rhymes.

  scripts/make_corpora.py            write the files
  scripts/make_corpora.py --check    compare the files with what would be written; exit 1 when one differs

One sample per line, ASCII. The seed is fixed, so every machine and every Python 3.8 or later writes the same
bytes. Train and held-out part of a corpus share no sentence and no filled-in template (corpora/common.py says
why that holds; tests/integration/test_corpora.py checks it). All texts were made for this project.
"""

import argparse
import pathlib
import sys

from corpora import math_facts, rhymes, stories, world

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "configs" / "quickstart" / "data"
SEED = 20240917
CORPORA = {"general": stories, "math": math_facts, "qa": world, "rhymes": rhymes}


def build_all():
    """{(corpus, part): samples} of all eight files."""
    return {
        (name, part): samples
        for at, (name, module) in enumerate(CORPORA.items())
        for part, samples in module.build(SEED + at).items()
    }


def path_of(name, part):
    return FOLDER / f"{name}.{part}.txt"


def text_of(samples):
    return "".join(sample.text + "\n" for sample in samples)


def differing(built):
    """The files that are not what the generator writes."""
    wanted = {path_of(*where): text_of(samples).encode("ascii") for where, samples in built.items()}
    return [path for path, text in wanted.items() if not path.is_file() or path.read_bytes() != text]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    built = build_all()
    if arguments.check:
        different = differing(built)
        for path in different:
            print(f"make_corpora: {path} is not what the generator writes; run scripts/make_corpora.py")
        return 1 if different else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for (name, part), samples in built.items():
        path_of(name, part).write_bytes(text_of(samples).encode("ascii"))
        print(f"{path_of(name, part).relative_to(FOLDER.parent.parent.parent)}: {len(samples)} samples")
    return 0


if __name__ == "__main__":
    sys.exit(main())
