"""Both ways of looking at a file say the same."""

import os
from pathlib import Path

import pytest

from penstock.engines.sqlite.standing import standing, standing_by_stat


def test_both_ways_give_the_same_answer(tmp_path: Path) -> None:
    path = tmp_path / "größe ☂"
    path.write_bytes(b"x" * 12345)
    assert standing(os.fsencode(path)) == standing_by_stat(os.fsencode(path))
    assert standing(os.fsencode(path)).size == 12345


def test_links_are_followed_as_sqlite_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert standing(os.fsencode(tmp_path / "link")) == standing(os.fsencode(tmp_path / "file"))


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        standing(os.fsencode(tmp_path / "nothing"))
