"""What the demo's tasks do when they are called here and now."""

from pathlib import Path

import pytest

from penstock.demo.tasks import LockLeftBehind, count_file, count_locked_file


def test_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text("def f(): ...\n")
    assert count_file(str(path)).definitions == 1


def test_lock_left_behind_fails_one_attempt_and_no_more(tmp_path: Path) -> None:
    path, lock = tmp_path / "some.py", tmp_path / "some.lock"
    path.write_text("def f(): ...\n")
    lock.touch()
    with pytest.raises(LockLeftBehind, match="left behind"):
        count_locked_file(str(path), str(lock))
    assert count_locked_file(str(path), str(lock)).definitions == 1
    assert not lock.exists()
