"""Delimited text in UTF-8, of anybody: manifests, users' tables, the tables of corpora."""

import csv
import io
from collections import Counter
from pathlib import Path

from lebench_sb.core.errors import DataError, Problems
from lebench_sb.manifests.formats import HEAD, format_of, refuse_other_formats

QUOTES = ("", ", put quotation marks around a field that holds the separator")
NO_QUOTES = (
    ", a line break inside a field? put a space in its place, quotation marks do not quote here",
    ", the separator inside a field? put a space in its place, quotation marks do not quote here",
)
MOST_COLUMNS = 10_000  # of a table


def read_table(path, delimiter, quotes=True):
    """(header, [(line number, fields), ...]) of a delimited UTF-8 file; BOM and CRLF are fine.

    quotes=False takes quotation marks as ordinary characters: then no field can hold the delimiter or a line
    break. Raises DataError naming the line of an encoding
    fault, a broken quotation, or a row whose number of fields is not the header's
    (all such rows are counted).
    """
    refuse_other_formats(path, "a table")
    text = io.StringIO(read_text(path), newline="")
    rows = list(table_rows(path, text, delimiter, csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE))
    header, problems = rows.pop(0)[1], Problems(path)
    check_names(path, header)
    for line, fields in rows:
        fits(header, line, fields, problems, QUOTES if quotes else NO_QUOTES)
    problems.raise_if_any()
    return header, rows


def table_rows(path, text, delimiter, quoting):
    """Yields (line number, fields) of the lines that are not empty, the header first."""
    line, any_row = 1, False
    reader = csv.reader(text, delimiter=delimiter, strict=True, quoting=quoting)
    try:
        for fields in reader:
            if fields:
                any_row = True
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "is a quotation mark not closed or not doubled?"
        raise DataError(f"{path}: line {line}: {error}; {hint}") from None
    if not any_row:
        raise DataError(f"{path}: empty file, not even a header.")


def check_names(path, header):
    if len(header) > MOST_COLUMNS:
        raise DataError(f"{path}: {len(header)} columns, at most {MOST_COLUMNS} are read; is it a table?")
    if any("\0" in name for name in header):
        raise DataError(f"{path}: NUL bytes in its first line; is it UTF-16? Save it as UTF-8.")
    doubled = sorted(name for name, count in Counter(header).items() if count > 1)
    if doubled:
        raise DataError(f"{path}: columns named twice: {', '.join(doubled)}.")


def fits(header, line, fields, problems, hints=QUOTES):
    """True when a row has as many fields as the header; else it is added to `problems`."""
    width = len(header)
    if len(fields) < width:
        kind = f"rows shorter than the header's {width} fields{hints[0]}"
        problems.add(kind, f"line {line} has {len(fields)}")
    elif len(fields) > width:
        kind = f"rows longer than the header's {width} fields{hints[1]}"
        problems.add(kind, f"line {line} has {len(fields)}")
    return len(fields) == width


def read_text(path):
    """The text of a UTF-8 file without its BOM. Raises DataError naming the first line that is not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found." if not path.exists() else f"{path} is not a file.")
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8 IN > OUT`).")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if kind := format_of(data[:HEAD]):
            raise DataError(f"{path} is {kind}, not text in UTF-8.") from None
        line = data[: error.start].count(b"\n") + 1
        hint = "it looks like Latin-1; `iconv -f ISO-8859-1 -t UTF-8 IN > OUT` converts it"
        raise DataError(f"{path}: line {line} is not UTF-8, {hint}.") from None


def separator(line):
    """The likeliest of comma, semicolon and tab in a header line."""
    return max(",;\t", key=line.count)
