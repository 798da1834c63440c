"""Any table with a header, separated by commas, semicolons or tabs; the rows for which conditions hold."""

import re
from collections import Counter

from lebench_sb.core.errors import DataError, UsageError
from lebench_sb.manifests.tables import read_table, read_text, separator

CONDITION = re.compile(r"\s*(.+?)\s*(!=|!~|=|~)\s*(.*?)\s*")


def read_any(csv):
    """(header, [(line, {column: text})]). Quotation marks quote whole fields; inside a field they are text.

    First line by line, so that a lone quotation mark at the start of a field cannot swallow the rows below; a
    file whose quoted fields hold separators or line breaks does not fit its header that way and is read as
    standard CSV.
    """
    delimiter = separator(read_text(csv).split("\n", 1)[0])
    try:
        header, rows = read_table(csv, delimiter, quotes=False)
        header, rows = _unquoted(header), [(line, _unquoted(fields)) for line, fields in rows]
    except DataError:
        if delimiter == "\t":
            raise
        header, rows = read_table(csv, delimiter)
    return header, [(line, dict(zip(header, fields, strict=True))) for line, fields in rows]


def _unquoted(fields):
    """Fields without the quotation marks around the whole of them."""
    whole = re.compile(r'"((?:[^"]|"")*)"')
    return [match[1].replace('""', '"') if (match := whole.fullmatch(field)) else field for field in fields]


def condition(text):
    """`tasks~asr` -> ("tasks", "~", "asr")"""
    match = CONDITION.fullmatch(text)
    if not match:
        raise UsageError(f"where {text!r}: write column=value, column!=value, column~word or column!~word.")
    return match.groups()


def filtered(csv, rows, where, notes):
    """The rows for which every condition holds, noting how many each leaves. DataError when none is left."""
    for text in where:
        column, operator, value = condition(text)
        rows_left = [(line, row) for line, row in rows if _holds(row[column].strip(), operator, value)]
        if not rows_left:
            common = Counter(row[column].strip() for _, row in rows).most_common(5)
            values = ", ".join(f"{name!r} ({count})" for name, count in common)
            raise DataError(f"{csv}: no row left by {text!r}; {column} has {values or 'no rows at all'}.")
        notes.append(f"where {text}: {len(rows_left)} of {len(rows)} rows")
        rows = rows_left
    if not rows:
        raise DataError(f"{csv}: 0 rows, only a header.")
    return rows


def _holds(text, operator, value):
    if operator.endswith("~"):
        holds = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
    else:
        holds = text == value
    return holds != operator.startswith("!")
