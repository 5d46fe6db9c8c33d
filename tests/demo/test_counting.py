"""What is counted of a file, and how counts are compared."""

from pathlib import Path

import pytest

from penstock.demo.counting import UNREADABLE, FileCount, balance, count, total


def written(folder: Path, data: bytes) -> Path:
    path = folder / "some.py"
    path.write_bytes(data)
    return path


def test_functions_and_classes_are_counted_wherever_they_stand(tmp_path: Path) -> None:
    path = written(tmp_path, b"class A:\n    def f(self):\n        async def g(): ...\n\nx = lambda: 1\n")
    counted = count(path)
    assert (counted.lines, counted.definitions, counted.broken) == (5, 3, False)
    assert counted.compressed > 0


@pytest.mark.parametrize("data", [b"print 'hello'\n", b"x = (\n", b"x = 1\0\n", b"-" * 100_000 + b"1\n"])
def test_what_is_no_valid_python_is_counted_as_broken(tmp_path: Path, data: bytes) -> None:
    counted = count(written(tmp_path, data))
    assert counted.broken
    assert counted.definitions == 0


def test_announced_encoding_is_used(tmp_path: Path) -> None:
    assert not count(written(tmp_path, b"# coding: latin-1\nx = '\xe9'\n")).broken


@pytest.mark.parametrize("data", [b"\n\n\nx = '\xe9'\n", b"# coding: no-such-thing\n"])
def test_what_cannot_be_decoded_is_unreadable(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        count(written(tmp_path, data))


def test_totals_are_sums() -> None:
    sums = total([FileCount("a", 1, 2, 3), FileCount("b", 10, 20, 30, broken=True)], unreadable=4)
    assert (sums.counted, sums.unreadable, sums.files) == (2, 4, 6)
    assert (sums.lines, sums.definitions, sums.compressed, sums.broken) == (11, 22, 33, 1)


def test_lost_doubled_and_different_paths_are_named() -> None:
    counts = [FileCount(path, 1, 1, 1) for path in ("a", "b", "b", "z")]
    found = balance(["a", "b", "c"], counts, [FileCount("a", 2, 1, 1), FileCount("b", 1, 1, 1)])
    assert found.lost == ("c",)
    assert found.doubled == ("b", "z")
    assert found.different == ("a",)
    assert not found.even


def test_same_counts_are_even() -> None:
    counts = [FileCount("a", 1, 1, 1), FileCount("b", 2, 2, 2)]
    assert balance(["a", "b"], counts, counts).even
