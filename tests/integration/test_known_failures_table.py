# docs/notes/known-failures.md: every row names tests that exist, and no failure of the list it was made from is left out.
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from named_tests import PLACE, SOURCE, cells_of, find_test  # noqa: E402

PAGE = SOURCE / "docs" / "notes" / "known-failures.md"
LIST = pathlib.Path(os.environ.get("CARAVAN_SHARED", SOURCE.parent / "shared")) / "specs" / "parallelism.md"


def rows():
    """[(line number, threads, [(file, case)])]"""
    found = []
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("| ") or line.startswith("| thread |"):
            continue
        cells = cells_of(line)
        tests = [PLACE.fullmatch("`" + place.removeprefix("`")) for place in cells[-1].split("; `")]
        if len(cells) != 4 or None in tests:
            raise AssertionError(f"{PAGE.name}:{number}: no thread, failure, answer and `file`: case in '{line}'")
        found.append((number, cells[0], [(test[1], test[2]) for test in tests]))
    return found


class KnownFailuresTable(unittest.TestCase):
    def test_every_test_exists(self):
        self.assertGreaterEqual(len(rows()), 25)
        for number, threads, tests in rows():
            for file, case in tests:
                with self.subTest(f"{PAGE.name}:{number}, {threads}"):
                    self.assertTrue(find_test(file, case).strip())

    @unittest.skipIf(not LIST.exists(), f"no {LIST}")
    def test_no_thread_of_the_list_is_left_out(self):
        text = LIST.read_text(encoding="utf-8")
        threads = re.findall(r"#\d+", text[text.index("\n## Known failures"):])
        self.assertGreaterEqual(len(set(threads)), 25)
        named = " ".join(row[1] for row in rows())
        for thread in threads:
            self.assertRegex(named, thread + r"\b", f"{thread} is in no row")


if __name__ == "__main__":
    unittest.main()
