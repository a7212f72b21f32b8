# The documents hold together: pictures are what their text gives, and what a page links to exists.
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ["CARAVAN_SOURCE_DIR"])


def check_pictures():
    result = subprocess.run([sys.executable, ROOT / "scripts/draw_pictures.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def pages():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.md"], capture_output=True, text=True)
    names = listed.stdout.split() if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")]
    return [ROOT / name for name in names]


def check_links():
    broken = []
    count = 0
    for page in pages():
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            count += 1
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists():
                broken.append(f"{page.relative_to(ROOT)}: {target} does not exist")
            elif anchor and anchor not in anchors(path):
                broken.append(f"{page.relative_to(ROOT)}: {target} names no heading")
    assert count > 20, f"only {count} links found: the search is wrong"
    assert not broken, "\n".join(broken)


check_pictures()
check_links()
