"""The harness of the documents notices what is wrong in a page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Page
from tests.docs.place import Place, conversation, matches


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path, "page.md") as place:
        yield place


def run(place: Place, text: str) -> None:
    path = place.folder / "page.md"
    path.write_text(text)
    for block in Page(path).blocks:
        place.run(block)


def test_blocks_of_a_page_share_names_files_and_folder(place: Place) -> None:
    run(
        place,
        "```python\n# shop.py\nPRICE = 7\n```\n\n```python\nfrom shop import PRICE\n```\n"
        "```python\nprint(PRICE * 2)  # 14\n```\n```console\n$ ls shop.py\nshop.py\n```\n",
    )


def test_wrong_comment_behind_print_is_noticed(place: Place) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:2: the page says\n3\nbut it is\n2"):
        run(place, "```python\nprint(1 + 1)  # 3\n```\n")


def test_comment_behind_a_print_that_is_never_reached_is_noticed(place: Place) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:4: this line was never reached"):
        run(place, "```python\nif 1 > 2:\n    x = 1\n    print(x)  # 1\n```\n")


def test_exception_in_an_example_is_noticed(place: Place) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run(place, "```python\n1 / 0\n```\n")


def test_wrong_output_of_a_command_is_noticed(place: Place) -> None:
    with pytest.raises(AssertionError, match="but it is\nworld"):
        run(place, "```console\n$ echo world\nhello\n```\n")


def test_failing_command_is_noticed_unless_its_status_is_shown(place: Place) -> None:
    run(place, "```console\n$ false\n$ echo $?\n1\n```\n")
    with pytest.raises(AssertionError, match="ended with status 1"):
        run(place, "```console\n$ false\n$ true\n```\n")


def test_block_in_an_unknown_language_is_noticed(place: Place) -> None:
    with pytest.raises(AssertionError, match="'pyhton' is neither run"):
        run(place, "```pyhton\n1 / 0\n```\n")


def test_block_that_is_only_compiled_says_why(place: Place) -> None:
    run(place, "<!-- test: compile only, flask is not installed -->\n\n```python\nimport flask\n1 / 0\n```\n")
    with pytest.raises(AssertionError, match="'skip' is not understood"):
        run(place, "<!-- test: skip -->\n```python\n1 / 0\n```\n")


def test_background_command_ends_with_its_page(tmp_path: Path) -> None:
    with Place(tmp_path, "page.md") as place:
        command = "$ (trap 'touch ended; exit' TERM; touch begun; sleep 60 & wait) 2> log &"
        run(place, f"```console\n{command}\n$ until test -e begun; do sleep 0.01; done\n```\n")
        assert not (tmp_path / "ended").exists()
    assert (tmp_path / "ended").exists()


def test_ellipsis_stands_for_anything() -> None:
    assert matches("a ... d\n...\nz", "a b c d\n1\n2\nz\n")
    assert matches("a  b", "a    b ")
    assert not matches("a ... e", "a b c d")


def test_command_may_go_on_in_the_next_line() -> None:
    assert list(conversation("$ echo a \\\n    b\na b\n$ true\n")) == [(1, "echo a \\\n    b", "a b"), (4, "true", "")]
