"""Every example and every command in the documents runs, and shows what the documents say.

The blocks of a page run in their order, in one temporary folder:

- `python` in one interpreter and one namespace. A comment behind a `print` says what it prints. A block that begins
  with the name of a file, as `# shop.py`, is written to that file instead.
- `console` in one shell: what stands behind `$ ` is run, what follows must come out. `...` stands for anything, and
  several blanks for one. A command that fails must be followed by `$ echo $?`. What was started with `2> FILE &` is
  waited for until it has written something there, and stopped at the end of the page.
- `text`, `ini`, `dockerfile`, `sql`, `html` are only shown, `json` and `toml` only parsed. Other languages are refused.
- In a page that speaks of `$REDIS_URL` or `$DATABASE_URL`, these name empty stores of servers that the tests started.
- `<!-- test: compile only, REASON -->` above a Python block keeps it from being run.
"""

from pathlib import Path

import pytest

from tests.docs.pages import Page, documents
from tests.docs.place import Place


def _parameter(page: Page) -> object:
    return pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.starts_workers else [])


@pytest.fixture
def variables(request: pytest.FixtureRequest) -> dict[str, str]:
    """The stores that a page speaks of."""
    page: Page = request.node.callspec.params["page"]
    found = {}
    if "REDIS_URL" in page.text:
        found["REDIS_URL"] = request.getfixturevalue("redis_server").empty_store()
    if "DATABASE_URL" in page.text:
        found["DATABASE_URL"] = request.getfixturevalue("postgres_server").empty_store()
    return found


@pytest.mark.parametrize("page", [_parameter(page) for page in documents() if page.blocks])
def test_page_holds_what_it_says(page: Page, tmp_path: Path, variables: dict[str, str]) -> None:
    with Place(tmp_path, page.name, variables) as place:
        for block in page.blocks:
            place.run(block)
