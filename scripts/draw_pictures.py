#!/usr/bin/env python3
"""Draws the pictures of the documents: docs/pictures/<name>.py becomes docs/<name>.svg.

    scripts/draw_pictures.py             writes every picture
    scripts/draw_pictures.py --check     fails when a stored picture is not what its text gives

A description is a function draw(picture) that places cards, text and arrows of the class below. One style for all: an
explicit background, colours for light and dark, system fonts. Only the standard library is used.
"""

import importlib.util
import pathlib
import sys
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent

STYLE = """\
    .paper { fill: #ffffff; stroke: #d0d7de; }
    .card { fill: #f6f8fa; stroke: #d0d7de; }
    .none { fill: #ffffff; stroke: #c4ccd4; }
    .s0 { fill: #2f6fd0; } .s1 { fill: #1a8754; } .s2 { fill: #b8590b; } .s3 { fill: #8a46c9; }
    .copy { fill: #68717a; }
    text { font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
    .head { font-weight: 600; font-size: 15px; }
    .strip { font-size: 14px; }
    .soft { fill: #59636e; font-size: 13px; }
    .on { fill: #ffffff; font-size: 12px; }
    .mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
    .small { font-size: 12px; }
    .line { stroke: #59636e; stroke-width: 1.5; fill: none; }
    .tip { fill: #59636e; }
    .forward { stroke: #2f6fd0; stroke-width: 4; fill: none; }
    .backward { stroke: #b8590b; stroke-width: 4; fill: none; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #30363d; }
      .card { fill: #161b22; stroke: #30363d; }
      .none { fill: #0d1117; stroke: #3d444d; }
      .s0 { fill: #3b7de0; } .s1 { fill: #239a63; } .s2 { fill: #c56a1c; } .s3 { fill: #9a5bd6; }
      .copy { fill: #6e7681; }
      text { fill: #e6edf3; }
      .soft { fill: #9198a1; }
      .on { fill: #ffffff; }
      .line { stroke: #9198a1; }
      .tip { fill: #9198a1; }
      .forward { stroke: #3b7de0; }
      .backward { stroke: #c56a1c; }
    }"""

MONO_WIDTH = 0.602  # of a character, in font sizes: DejaVu Sans Mono, the widest of the list


def number(value):
    return f"{value:g}"


class Picture:
    """Collects elements; coordinates are pixels from the top left."""

    def __init__(self, width, height, title, description):
        self.width, self.height = width, height
        self.title, self.description = title, description
        self.elements = []

    def add(self, element):
        self.elements.append("  " + element)

    def box(self, style, x, y, width, height, radius=3):
        self.add(f'<rect class="{style}" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
                 f'height="{number(height)}" rx="{radius}"/>')

    def card(self, x, y, width, height):
        """A frame whose line falls on whole pixels."""
        self.box("card", x + 0.5, y + 0.5, width - 1, height - 1, 6)

    def text(self, x, y, words, style="", anchor=""):
        """`words` may contain *mono* parts between stars."""
        parts = escape(words).split("*")
        words = "".join(part if i % 2 == 0 else f'<tspan class="mono">{part}</tspan>' for i, part in enumerate(parts))
        attributes = f' class="{style}"' if style else ""
        attributes += f' x="{number(x)}" y="{number(y)}"'
        attributes += f' text-anchor="{anchor}"' if anchor else ""
        self.add(f"<text{attributes}>{words}</text>")

    def pill(self, style, x, y, words, size=12):
        """White monospaced words on a colour, baseline at y; returns the width."""
        width = len(words) * MONO_WIDTH * size + 10
        self.box(style, x, y - size - 1, round(width, 1), size + 6, 4)
        self.add(f'<text class="mono on small" x="{number(round(x + width / 2, 1))}" y="{number(y)}" '
                 f'text-anchor="middle">{escape(words)}</text>')
        return width

    def formula(self, x, y, words, size=12):
        """One line of mono text in which {name} is drawn as a pill in the colour of ports."""
        for i, part in enumerate(words.replace("}", "{").split("{")):
            if i % 2 == 1:
                x += self.pill("s3", x, y, part, size)
            elif part:
                self.add(f'<text class="mono small" x="{number(round(x, 1))}" y="{number(y)}" '
                         f'xml:space="preserve">{escape(part)}</text>')
                x += len(part) * MONO_WIDTH * size

    def arrow(self, path, style="line", dashed=False):
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.add(f'<path class="{style}"{dashes} d="{path}" marker-end="url(#arrow)"/>')

    def stream(self, style, colour, x, begin, end, plus):
        """A thick vertical line from y = begin to end with an arrow head, and a plus sign at each y of `plus`."""
        step = 1 if end > begin else -1
        self.add(f'<path class="{style}" d="M{x} {begin} V{end - 8 * step}"/>')
        self.add(f'<path class="{colour}" d="M{x - 7} {end - 11 * step} H{x + 7} L{x} {end - step} Z"/>')
        for y in plus:
            self.add(f'<circle class="{colour}" cx="{x}" cy="{y - 4}" r="8"/>')
            self.text(x, y, "+", "on", "middle")

    def svg(self):
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-labelledby="title text">',
            f'  <title id="title">{escape(self.title)}</title>',
            f'  <desc id="text">{escape(self.description)}</desc>',
            f"  <style>\n{STYLE}\n  </style>",
            '  <defs>\n    <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" '
            'markerWidth="10" markerHeight="10" orient="auto">\n      <path class="tip" d="M0 0 L8 4 L0 8 Z"/>\n'
            "    </marker>\n  </defs>",
            f'  <rect class="paper" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8"/>',
        ]
        return "\n".join(head + self.elements + ["</svg>"]) + "\n"


def drawn(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module.draw(Picture).svg()


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for path in sorted((ROOT / "docs/pictures").glob("*.py")):
        target = ROOT / "docs" / (path.stem.replace("_", "-") + ".svg")
        text = drawn(path)
        if not check:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append(f"{target.relative_to(ROOT)} is not what {path.relative_to(ROOT)} gives")
    if stale:
        sys.exit("\n".join(stale) + "\nrun scripts/draw_pictures.py and commit what it writes")


if __name__ == "__main__":
    main()
