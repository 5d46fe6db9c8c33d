"""`penstock demo` as a person sees it: with a real worker, a real kill and a real store."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import await_true

pytestmark = [pytest.mark.slow, pytest.mark.lonely]

SOURCE = Path(__file__).parents[2] / "src"
FILES = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files of different sizes, one of them no valid Python."""
    below = tmp_path / "sources"
    below.mkdir()
    for number in range(FILES - 1):
        (below / f"module_{number:03}.py").write_text("def f(x):\n    return [x]\n\n" * (1 + 20 * number))
    (below / "old.py").write_text("print 'hello'\n")
    return below


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Whoever runs the tests may ignore hangups, as `nohup` does, and what they start would inherit it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def started(place: Path, *words: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the demo with a temporary folder of its own."""
    place.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(place), "PENSTOCK_QUEUES": "none-of-the-demo"}
    environment |= variables
    run = subprocess.Popen(
        [sys.executable, "-m", "penstock", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with run:
        try:
            yield run
        finally:
            run.terminate()


def test_demo_counts_right_although_a_process_is_killed(tmp_path: Path, folder: Path) -> None:
    with started(tmp_path / "tmp", str(folder)) as run:
        out, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, "")
    assert "60 files\n" in out
    assert "61 jobs, one for each file, enqueued in" in out
    assert re.search(r"process \d+ killed with SIGKILL at \d+ of 61 jobs", out)
    held = re.search(r"Run again and ended: (\d+) of (\d+)\.", out)
    assert "It held no job" in out if held is None else held[1] == held[2]
    assert "LockLeftBehind" in out
    assert "It succeeded at attempt" in out
    assert "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9" in out
    assert re.search(r"^ +files +61 +61 *$", out, re.MULTILINE)
    assert re.search(r"^ +counted +60 +60 *$", out, re.MULTILINE)
    assert re.search(r"^ +unreadable, so the job was buried +1 +1 *$", out, re.MULTILINE)
    assert "Nothing was lost, nothing was counted twice" in out
    assert "60 files counted, 1 buried" in out
    assert list((tmp_path / "tmp").iterdir()) == []


def test_kept_store_can_be_looked_at_with_the_commands_that_are_printed(tmp_path: Path, folder: Path) -> None:
    with started(tmp_path / "tmp", str(folder), "--keep") as run:
        out, _ = run.communicate(timeout=60)
    url, job = re.search(r"PENSTOCK_URL=(\S+)", out), re.search(r"penstock (jobs show \S+)", out)
    assert url is not None
    assert job is not None
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PENSTOCK_URL": url[1]}
    shown = subprocess.run(
        [sys.executable, "-m", "penstock", *job[1].split()], env=environment, capture_output=True, text=True, check=True
    )
    assert "UnicodeDecodeError" in shown.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 128 + signal.SIGHUP)]
)
def test_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: int, status: int) -> None:
    with started(tmp_path / "tmp") as run:
        assert run.stdout is not None
        next(line for line in run.stdout if "by jobs:" in line)
        worker = supervisor_of(tmp_path / "tmp")
        run.send_signal(number)
        run.communicate(timeout=30)
    assert run.returncode == status
    assert list((tmp_path / "tmp").iterdir()) == []
    await_true(lambda: in_session(worker) == [], "its worker is gone", 5)


def test_worker_that_does_not_start_is_told_with_its_own_words(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "click.py").write_text("raise RuntimeError('this is not the module you are looking for')\n")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-P", "-m", "penstock", "demo", str(folder)],  # -P: only its worker looks for modules here
        cwd=tmp_path / "shadow",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert "The worker ended with exit status 1" in run.stderr
    assert "this is not the module you are looking for" in run.stderr


def test_sums_that_differ_are_reported_and_give_status_1(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, zlib\n"
        "if any(word.startswith('penstock.worker.') for word in sys.orig_argv): zlib.compress = lambda data: b''\n"
    )
    with started(tmp_path / "tmp", str(folder), PYTHONPATH=f"{tmp_path}{os.pathsep}{SOURCE}") as run:
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert re.search(r"bytes when compressed +0 +[1-9]", out)
    assert "The sums DIFFER." in out
    assert "60 counted differently" in out


def test_one_file_is_enough(tmp_path: Path) -> None:
    below = tmp_path / "sources"
    below.mkdir()
    (below / "one.py").write_text("x = 1\n")
    with started(tmp_path / "tmp", str(below)) as run:
        out, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (0, "")
    assert "1 file counted, 1 buried" in out


def test_folder_without_sources_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with started(tmp_path / "tmp", str(tmp_path)) as run:
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert err == f"penstock: There is no .py file in {tmp_path}; give a folder that has some.\n"


def test_folder_of_unreadable_files_is_refused_with_their_number(tmp_path: Path) -> None:
    below = tmp_path / "sources"
    below.mkdir()
    for name in ("a.py", "b.py"):
        (below / name).write_bytes(b"\n\n'\xe9'\n")
    with started(tmp_path / "tmp", str(below)) as run:
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert err == f"penstock: None of the .py files in {below} can be read (2 were found); give another folder.\n"


def supervisor_of(place: Path) -> int:
    """Find the worker that works in a folder: the leader of its session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and str(place) in words_of(entry):
            return int(entry.name)
    raise AssertionError(f"No worker runs in {place}.")


def words_of(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def in_session(leader: int) -> list[str]:
    """Give the names of the processes of a session that still live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name, _, rest = (entry / "stat").read_text().partition(") ")
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, _parent, _group, session, *_ = rest.split()
            if int(session) == leader and state != "Z":
                found.append(name)
    return found
