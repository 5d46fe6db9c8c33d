"""The README's first example, on every engine: nothing but `PENSTOCK_URL` changes."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page
from tests.docs.place import Place

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgresql"])
def test_first_example_runs_by_changing_the_url_only(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = {"redis": "redis_server", "postgresql": "postgres_server"}.get(engine)
    url = request.getfixturevalue(server).empty_store() if server else f"sqlite:///{tmp_path}/other.db"
    source, shown = Page(ROOT / "README.md").blocks[:2]
    assert (source.file, shown.language) == ("shop.py", "console")
    with Place(tmp_path, "README.md", {"PENSTOCK_URL": url}) as place:
        place.run(source)
        place.run(shown)
    assert not (tmp_path / "penstock.db").exists()
