"""Which files the demo takes, and the trouble it adds."""

import os
from pathlib import Path

import pytest

from penstock.demo.counting import read_source
from penstock.demo.sources import find_sources, make_trouble, standard_library


def test_python_files_below_a_folder_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "below/c.py", "notes.txt", ".hidden/d.py", "site-packages/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_sources(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found.files] == ["a.py", "b.py", "below/c.py"]
    assert found.left_out == 0


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_bytes(b"\n\n'\xe9'\n")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "gone.py")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / os.fsdecode(b"name-\xff.py")).touch()
    found = find_sources(tmp_path)
    assert found.files == ()
    assert found.left_out == 4


def test_standard_library_is_a_folder_of_modules() -> None:
    assert (standard_library() / "ast.py").is_file()


def test_trouble_is_a_file_that_cannot_be_read_and_a_lock(tmp_path: Path) -> None:
    trouble = make_trouble(tmp_path)
    assert trouble.lock.exists()
    with pytest.raises(UnicodeDecodeError):
        read_source(trouble.unreadable)
