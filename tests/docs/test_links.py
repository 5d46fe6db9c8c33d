"""Every relative link in the documents leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Page, documents

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in documents()])
def test_links_lead_somewhere(page: Page) -> None:
    assert list(_broken(page)) == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached = {(page.path.parent / target).resolve() for page in documents() for target, _ in _links(page) if target}
    assert [page.name for page in documents() if page.path.resolve() not in reached and page.name != "README.md"] == []


def _broken(page: Page) -> Iterator[str]:
    for target, anchor in _links(page):
        found = (page.path.parent / target).resolve() if target else page.path
        if not found.exists():
            yield f"{target} does not exist"
        elif anchor and found.suffix == ".md" and anchor not in _anchors(found):
            yield f"{target}#{anchor}: no such heading"


def _links(page: Page) -> Iterator[tuple[str, str]]:
    for link in _LINK.findall(page.prose):
        if "://" not in link and not link.startswith("mailto:"):
            target, _, anchor = link.partition("#")
            yield target, anchor


def _anchors(path: Path) -> set[str]:
    """Give the anchors of a page's headings, made as GitHub makes them."""
    headings = _HEADING.findall(Page(path).prose)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
