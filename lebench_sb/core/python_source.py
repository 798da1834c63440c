"""Python files read as trees, which says what they define and import without running them."""

import ast
import threading

PARSING = threading.Lock()
ATTEMPTS = 5


def syntax_tree(path):
    """The ast.Module of a Python file. Raises SyntaxError.

    One at a time: Python 3.11 counts the depth of the trees of all threads together, and then raises a
    SystemError. Where another library parses meanwhile, it is done again.
    """
    source = path.read_text(encoding="utf-8")
    for _ in range(ATTEMPTS - 1):
        try:
            with PARSING:
                return ast.parse(source, str(path))
        except SystemError:
            continue
    return ast.parse(source, str(path))
