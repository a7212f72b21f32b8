# docs/notes/bad-input.md: every row names a test that exists and that looks for words of the row's message.
import os
import pathlib
import re
import sys
import unittest

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
TABLE = SOURCE / "docs" / "notes" / "bad-input.md"
LITERAL = re.compile(r'[rbf]{0,2}"((?:[^"\\\n]|\\.)*)"|\'((?:[^\'\\\n]|\\.)*)\'')
WORDS = 8  # shortest literal that counts


def rows():
    """[(line number, message, file, case)] of every table with three columns."""
    found = []
    for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("| ") or len(cells) != 3 or cells[1] == "message":
            continue
        place = re.fullmatch(r"`([\w/.]+)`: (.+)", cells[2])
        if not place:
            raise AssertionError(f"{TABLE.name}:{number}: no `file`: case in '{cells[2]}'")
        found.append((number, re.sub(r"^`+ ?| ?`+$", "", cells[1]), place[1], place[2]))
    return found


def body_of(text, case, suffix):
    """The text of one test, or None."""
    if suffix == ".sh":  # a script is one test; the case is what it looks for
        return f'"{case}"' if case in text else None
    if suffix == ".py":
        name, _, method = case.rpartition(".")
        start = re.search(rf"^class {name}\(.*?^    def {method}\(", text, re.M | re.S)
        end = r"^    def |^class "
    else:
        start = re.search(rf'^TEST_CASE\(\s*"{re.escape(case)}"', text, re.M)
        end = r"^TEST_CASE\("
    if start is None:
        return None
    rest = text[start.end():]
    stop = re.search(end, rest, re.M)
    return rest[:stop.start()] if stop else rest


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
                path = SOURCE / "tests" / file
                self.assertTrue(path.exists(), f"there is no tests/{file}")
                body = body_of(path.read_text(encoding="utf-8"), case, path.suffix)
                self.assertIsNotNone(body, f"tests/{file} has no case '{case}'")
                said = [words for words in literals(body) if len(words) >= WORDS and words in message]
                self.assertTrue(said, f"'{case}' looks for no words of: {message}")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    unittest.main()
