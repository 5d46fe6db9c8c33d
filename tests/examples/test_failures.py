"""Each example in `failures` prints what the page "When things go wrong" shows, on SQLite and some on the servers."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page
from tests.docs.place import conversation, matches
from tests.examples.place import environment

PAGE = Page(ROOT / "docs" / "how-to" / "when-things-go-wrong.md")
FOLDER = "examples/failures"
EXAMPLES = sorted(path.name for path in (ROOT / FOLDER).glob("[0-9]*.py"))

#: What depends on how an engine counts leases, refuses what is late and is reached.
ON_SERVERS = [("postgres", "09_killed.py"), ("redis", "10_frozen.py"), ("redis", "14_store_cut.py")]

_SECONDS = re.compile(r"^ *\d+\.\d s +", re.MULTILINE)


def shown() -> dict[str, str]:
    """Give what the page shows of each example, by the name of its file."""
    blocks = [block.text for block in PAGE.blocks if block.text.startswith(f"$ python {FOLDER}/")]
    return {command.rpartition("/")[2]: output for block in blocks for _, command, output in conversation(block)}


def printed(example: str, place: Path, **variables: str) -> str:
    """Run an example from the root, as the page says; if it does not end, end it and the workers that it has begun."""
    own = environment(TMPDIR=str(place), **variables)
    command = [sys.executable, f"{FOLDER}/{example}"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            output, _ = run.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            raise
    assert run.returncode == 0, output
    return output


def assert_as_shown(example: str, output: str) -> None:
    page, found = (_SECONDS.sub("", text) for text in (shown()[example], output))
    assert matches(page, found), f"the page says\n{page}\nbut it is\n{found}"


def test_page_shows_every_example_in_its_order() -> None:
    assert list(shown()) == EXAMPLES


def test_examples_say_what_to_watch() -> None:
    texts = {name: (ROOT / FOLDER / name).read_text(encoding="utf-8") for name in EXAMPLES}
    assert [name for name, text in texts.items() if not re.match(r'"""[^"]+\n\nWatch [^"]+\n"""', text)] == []


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_prints_what_the_page_shows(example: str, tmp_path: Path) -> None:
    assert_as_shown(example, printed(example, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "example"), ON_SERVERS)
def test_example_prints_the_same_on_a_server(
    engine: str, example: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{engine}_server").empty_store()
    assert_as_shown(example, printed(example, tmp_path, PENSTOCK_URL=url))
