# docs/notes/bad-input.md: every row names a test that exists and that looks for words of the row's message.
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
sys.dont_write_bytecode = True

from named_tests import PLACE, SOURCE, cells_of, find_test  # noqa: E402

TABLE = SOURCE / "docs" / "notes" / "bad-input.md"
LITERAL = re.compile(r'[rbf]{0,2}"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'')
WORDS = 8  # shortest literal that counts


def rows():
    """[(line number, message, file, case)] of every table with three columns."""
    found = []
    for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
        cells = cells_of(line)
        if not line.startswith("| ") or len(cells) != 3 or cells[1] == "message":
            continue
        place = PLACE.fullmatch(cells[2])
        if not place:
            raise AssertionError(f"{TABLE.name}:{number}: no `file`: case in '{cells[2]}'")
        found.append((number, re.sub(r"^`+ ?| ?`+$", "", cells[1]), place[1], place[2]))
    return found


def literals(body):
    for match in LITERAL.finditer(body):
        text = match[1] if match[1] is not None else match[2]
        yield re.sub(r"\\(.)", r"\1", text.replace("\\n", " ")).strip()


class BadInputTable(unittest.TestCase):
    def test_it_has_the_rows_it_promises(self):
        self.assertGreaterEqual(len(rows()), 60)

    def test_every_test_exists_and_looks_for_the_message(self):
        for number, message, file, case in rows():
            with self.subTest(f"{TABLE.name}:{number}"):
                body = find_test(file, case)
                said = [words for words in literals(body) if len(words) >= WORDS and words in message]
                self.assertTrue(said, f"'{case}' looks for no words of: {message}")


if __name__ == "__main__":
    unittest.main()
