"""Processes that neither end nor begin as they should: forks that live on, applications that cannot start."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.model.errors import JobFailed
from penstock.task import Task
from tests.polling import await_true
from tests.worker import forks
from tests.worker.harness import working

pytestmark = [pytest.mark.slow, pytest.mark.lonely]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path}/store.db"
    forks.app.redirect(url)
    yield url
    forks.app.close()


@pytest.mark.parametrize("task", [forks.die_in_thread, forks.die_in_child], ids=["thread", "process"])
def test_end_is_noticed_although_a_daemon_of_the_job_lives_on(
    url: str, tmp_path: Path, task: Task[[Path], None]
) -> None:
    """A copy of the process holds all that it had open, its end of the line to the supervisor too."""
    note = tmp_path / "daemon"
    job = task.enqueue(note)
    with working(url, app="tests.worker.forks:app") as worker:
        try:
            with pytest.raises(JobFailed, match="exited with status 7"):
                job.result(timeout=15)
            assert forks.add.enqueue(1, 2).result(timeout=15) == 3
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        finally:
            os.kill(int(note.read_text()), signal.SIGKILL)


def test_application_larger_than_the_memory_limit_is_refused(url: str) -> None:
    with working(url, app="tests.worker.forks:app", max_memory="5M") as worker:
        assert worker.wait() == 2
    (line,) = worker.lines
    assert line.startswith("penstock: max_memory is 5 MB, but a process with the application imported already uses")


def test_worker_does_not_wait_for_an_application_that_is_never_imported(url: str, tmp_path: Path) -> None:
    began = tmp_path / "began"
    (tmp_path / "endless.py").write_text(
        f"import pathlib, time\npathlib.Path({str(began)!r}).touch()\ntime.sleep(600)\n"
    )
    with working(url, app=f"{tmp_path}/endless.py:app", shutdown_timeout="60s") as worker:
        await_true(began.exists)
        worker.signal(signal.SIGTERM)
        assert worker.wait(timeout=10) == 0
