"""Runs the Python blocks of one page in one namespace; a program of its own, fed with a JSON line for each block.

A comment behind a `print` says what it prints. Each such line must be reached, and print that.
"""

import ast
import builtins
import io
import json
import linecache
import sys
import tokenize
import traceback
from types import ModuleType
from typing import Any

PAGE = ModuleType("page")


class Prints:
    """Stands for `print` in a page and keeps what it was expected to print, and what it printed."""

    def __init__(self) -> None:
        self.place = ""
        self.expected: dict[int, str] = {}
        self.printed: list[tuple[int, str, str]] = []

    def begin(self, place: str, text: str) -> None:
        self.place, self.expected, self.printed = place, expectations(text), []

    def __call__(self, *values: object, **options: Any) -> None:
        caller = sys._getframe(1)
        if caller.f_code.co_filename != self.place or caller.f_lineno not in self.expected:
            return
        told = io.StringIO()
        builtins.print(*values, **{**options, "file": told})
        self.printed.append((caller.f_lineno, self.expected[caller.f_lineno], told.getvalue()))

    @property
    def missed(self) -> list[int]:
        return sorted(self.expected.keys() - {line for line, _, _ in self.printed})


def main() -> None:
    sys.path.insert(0, "")
    sys.modules["page"] = PAGE
    prints = Prints()
    vars(PAGE)["print"] = prints
    replies = sys.stdout
    for line in sys.stdin:
        order = json.loads(line)
        reply = forget(order["forget"]) if "forget" in order else run(order, prints)
        builtins.print(json.dumps(reply), file=replies, flush=True)


def forget(module: str) -> dict[str, Any]:
    """Import a module anew next time; its file was written."""
    sys.modules.pop(module, None)
    return {}


def run(order: dict[str, Any], prints: Prints) -> dict[str, Any]:
    """Give what was printed where a comment says what to expect, or the traceback of what went wrong."""
    text, place = order["text"], order["place"]
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    try:
        prints.begin(place, text)
        exec(compile(text, place, "exec"), vars(PAGE))
    except Exception:  # noqa: BLE001 - whatever an example raises is the answer
        return {"printed": prints.printed, "missed": [], "error": traceback.format_exc()}
    return {"printed": prints.printed, "missed": prints.missed, "error": None}


def expectations(text: str) -> dict[int, str]:
    """Give the comments behind calls of `print`, by the line where the call begins."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    return {call.lineno: comments[call.end_lineno] for call in prints if call.end_lineno in comments}


if __name__ == "__main__":
    main()
