#!/usr/bin/env python3
# LABELS data
"""The corpora in the repository are what the generator writes, and their held-out parts are new to a reader
of the train parts. Standard library only."""

import pathlib
import re
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(SOURCE / "scripts"))
sys.dont_write_bytecode = True

import make_corpora  # noqa: E402
from corpora.common import normalise, sentences  # noqa: E402

TASKS = ("math", "qa", "rhymes")
LIMIT_PER_FILE_BYTES = 1_000_000
LIMIT_ALL_BYTES = 2_000_000


def committed(name, part):
    """The lines of a file in the repository, read without the generator's help."""
    return make_corpora.path_of(name, part).read_text(encoding="ascii").splitlines()


class Corpora(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.built = make_corpora.build_all()

    def test_files_are_what_the_generator_writes(self):
        self.assertEqual(make_corpora.differing(self.built), [])

    def test_a_second_run_gives_the_same_bytes(self):
        again = make_corpora.build_all()
        for where, samples in self.built.items():
            self.assertEqual(make_corpora.text_of(samples), make_corpora.text_of(again[where]))

    def test_train_and_held_out_share_no_filled_template(self):
        for name in make_corpora.CORPORA:
            train, held_out = ({key for sample in self.built[name, part] for key in sample.keys}
                               for part in ("train", "eval"))
            self.assertGreater(len(held_out), 100, name)
            self.assertEqual(train & held_out, set(), name)

    def test_train_and_held_out_share_no_sentence(self):
        for name in make_corpora.CORPORA:
            marks = ".?!;:," if name == "rhymes" else ".?!;:"
            train, held_out = ({found for line in committed(name, part) for found in sentences(line, marks)}
                               for part in ("train", "eval"))
            self.assertGreater(len(held_out), 100, name)
            self.assertEqual(train & held_out, set(), name)

    def test_no_sample_occurs_twice(self):
        for name in make_corpora.CORPORA:
            lines = [normalise(line) for part in ("train", "eval") for line in committed(name, part)]
            self.assertEqual(len(lines), len(set(lines)), name)

    def test_every_word_of_a_held_out_task_part_is_in_train(self):
        for name in TASKS:
            train, held_out = (set(re.findall(r"[a-z]+", "\n".join(committed(name, part)).lower()))
                               for part in ("train", "eval"))
            self.assertEqual(held_out - train, set(), name)

    def test_lines_and_files_have_the_agreed_sizes(self):
        total = 0
        for name in make_corpora.CORPORA:
            shortest, longest = (60, 150) if name in TASKS else (140, 460)
            for part in ("train", "eval"):
                lines = committed(name, part)
                self.assertTrue(all(shortest <= len(line) <= longest for line in lines), name)
                self.assertTrue(all(line == line.strip() for line in lines), name)
                if name in TASKS:
                    low, high = (1500, 3000) if part == "train" else (200, 300)
                    self.assertTrue(low <= len(lines) <= high, f"{name}.{part}: {len(lines)} samples")
                size = make_corpora.path_of(name, part).stat().st_size
                self.assertLess(size, LIMIT_PER_FILE_BYTES, name)
                total += size
        self.assertLess(total, LIMIT_ALL_BYTES)

    def test_sums_and_products_are_right(self):
        signs = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
        signs["/"] = lambda a, b: a // b
        checked = 0
        for part in ("train", "eval"):
            text = "\n".join(committed("math", part))
            for a, sign, b, c in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text):
                self.assertEqual(signs[sign](int(a), int(b)), int(c), f"{a} {sign} {b} = {c}")
                checked += 1
        self.assertGreater(checked, 300)


if __name__ == "__main__":
    unittest.main()
