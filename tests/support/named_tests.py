"""Tests named in documents as `file`: case; for the tests that hold such documents to the tree."""
import os
import pathlib
import re

SOURCE = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])
PLACE = re.compile(r"`([\w/.]+)`: (.+)")


def cells_of(line):
    """Of a row of a Markdown table; bars within cells are written \\|."""
    cells = re.split(r" (?<!\\)\| ", line.strip().removeprefix("| ").removesuffix(" |"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


def body_of(text, case, suffix):
    """The text of one test, or None."""
    if suffix == ".sh":  # a script is one test; the case is what it looks for
        return f'"{case}"' if case in text else None
    if suffix == ".py":
        name, _, method = case.rpartition(".")
        start = re.search(rf"^class {name}\(.*?^    def {method}\(", text, re.M | re.S)
        end = r"^    def |^class "
    else:
        start = re.search(rf'^(?:TEMPLATE_)?TEST_CASE\(\s*"{re.escape(case)}"', text, re.M)
        end = r"^(?:TEMPLATE_)?TEST_CASE\("
    if start is None:
        return None
    rest = text[start.end():]
    stop = re.search(end, rest, re.M)
    return rest[:stop.start()] if stop else rest


def find_test(file, case):
    """The text of a test below tests/, which must be there."""
    path = SOURCE / "tests" / file
    if not path.exists():
        raise AssertionError(f"there is no tests/{file}")
    body = body_of(path.read_text(encoding="utf-8"), case, path.suffix)
    if body is None:
        raise AssertionError(f"tests/{file} has no case '{case}'")
    return body
