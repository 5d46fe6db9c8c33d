"""A folder for everything that tormented processes write, known to all of them."""

from pathlib import Path

import pytest

from tests.torture.records import FOLDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path
