"""Each test that the page of guarantees names is there; whether it passes, the test itself says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page

GUARANTEES = Page(ROOT / "docs" / "explanation" / "guarantees.md")

#: Where the files of tests are that the page names: those of `make test`, and those that every engine runs.
PLACES = (ROOT / "tests", ROOT / "src" / "penstock" / "testing")

_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
_PROMISES = re.compile(r"^\| promise .*\n\| --- .*\n((?:\|.*\n)+)", re.MULTILINE)

NAMED = sorted(set(_NAMED.findall(GUARANTEES.text)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_named_test_is_there(file: str, test: str) -> None:
    found = [place / file for place in PLACES if (place / file).exists()]
    assert found, f"the page names a test in {file}, which is not there"
    assert test in names_of_tests(found[0]), f"{found[0].relative_to(ROOT)} has no {test}"


def test_every_promise_names_a_test() -> None:
    rows = [row for table in _PROMISES.findall(GUARANTEES.text) for row in table.splitlines()]
    assert len(rows) > 20
    assert [row for row in rows if not _NAMED.search(row)] == []


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Give the names of the tests of a file, those in classes too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))
