"""Texts of others where something reads them: terminal, Markdown, LaTeX, spreadsheet, picture; one place.

Names in results.json, grids and corpora are anybody's. What is plain comes out as it went in.
"""

import re

from lebench_sb.core.errors import shorten

LONGEST = 300  # characters of a name; a longer one loses its middle
FORMULA = "=+-@\t\r"
NUMBER = re.compile(r"[-+]?\d[\d.]*([eE][-+]?\d+)?")


def line(text, limit=LONGEST):
    """Without what a terminal would obey or what would begin a line"""
    return shorten(str(text), limit)


def markdown(text, limit=LONGEST):
    """For a cell or a sentence of Markdown: no markup, no HTML, no formula, no link"""
    return re.sub(r"[\\|`*<>$]|(?<=\])(?=\()", r"\\\g<0>", line(text, limit))


def csv_cell(value):
    """For a cell of a CSV that may be opened in a spreadsheet: a text that would be a formula begins with an
    apostrophe; numbers stay"""
    if not isinstance(value, str):
        return value
    text = line(value, 10_000)
    is_formula = text.lstrip()[:1] in FORMULA and text.strip() and not NUMBER.fullmatch(text.strip())
    return f"'{text}" if is_formula else text


def label(text):
    """For a text in a picture, where matplotlib sets what stands between dollars as a formula"""
    return "\n".join(line(part) for part in str(text).split("\n")).replace("$", r"\$")
