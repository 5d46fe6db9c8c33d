"""What is told of a process that has ended, above all of its memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.worker.forensics import Gauge, Remains, memory_bytes, out_of_memory_kills, peak_bytes

MB = 1024**2
GB = 1024**3
KILLED = signal.SIGKILL.value


def test_peak_of_a_process_is_its_own_although_it_was_started_by_a_large_one() -> None:
    ballast = b"x" * (400 * MB)
    process = subprocess.Popen(["sleep", "600"])
    del ballast
    gauge = Gauge(process.pid)
    process.kill()
    remains = gauge.wait()
    process.returncode = remains.code
    assert remains.bound_bytes > 400 * MB
    assert 0 < remains.peak_bytes < 50 * MB
    assert "likely out of memory" not in remains.story()


def test_peak_is_what_was_seen_last_and_falls_no_more() -> None:
    program = "import sys; b'x' * 100_000_000; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        gauge = Gauge(process.pid)
        assert process.stdout is not None
        process.stdout.read(1)
        gauge.look()
        assert peak_bytes(process.pid) > 95 * MB
        process.kill()
        remains = gauge.wait()
        process.returncode = remains.code
    assert remains.peak_bytes > 95 * MB
    assert gauge.reap() is None


def test_want_of_memory_is_told_of_a_process_that_was_looked_at_while_it_ended() -> None:
    """The kernel counts its kill at once; to give much memory back takes a while."""
    kills = 7
    process = subprocess.Popen(["sleep", "600"])
    gauge = Gauge(process.pid, lambda: kills)
    process.kill()
    kills += 1
    gauge.look()
    remains = gauge.wait()
    process.returncode = remains.code
    assert remains.starved


def test_process_that_lives_is_not_reaped() -> None:
    process = subprocess.Popen(["sleep", "600"])
    gauge = Gauge(process.pid)
    assert gauge.reap() is None
    process.kill()
    process.returncode = gauge.wait().code
    assert process.returncode == -signal.SIGKILL
    assert peak_bytes(process.pid) == 0


@pytest.mark.parametrize(
    ("remains", "words"),
    [
        (Remains(7 << 8), "exited with status 7"),
        (Remains(KILLED, 50 * MB, 52 * MB), "was killed by signal 9 (SIGKILL); peak memory 50 MB"),
        (Remains(KILLED, 50 * MB, 3 * GB), "was killed by signal 9 (SIGKILL); peak memory between 50 MB and 3.0 GB"),
        (Remains(KILLED, 0, 52 * MB), "was killed by signal 9 (SIGKILL); peak memory at most 52 MB"),
        (Remains(KILLED, 2**60, 2**60), "was killed by signal 9 (SIGKILL, likely out of memory); peak memory"),
        (Remains(KILLED, 1, 1, starved=True), "was killed by signal 9 (SIGKILL, out of memory); peak memory"),
        (
            Remains(signal.SIGSEGV.value, 2**60, 2**60),
            "was killed by signal 11 (SIGSEGV, often a fault in a C extension); peak",
        ),
        (Remains(60), "was killed by signal 60 (unknown); peak memory at most 0 MB"),
    ],
)
def test_end_of_a_process_is_told_in_words(remains: Remains, words: str) -> None:
    assert remains.story().startswith(words)


def test_memory_is_that_of_the_machine_where_no_group_bounds_it(tmp_path: Path) -> None:
    machine(tmp_path, "0::/\n")
    assert memory_bytes(tmp_path) == 8 * GB


@pytest.mark.parametrize(("kinds", "name"), [("", "memory.max"), ("memory", "memory.limit_in_bytes")])
def test_memory_is_the_least_limit_of_the_groups_around_a_process(tmp_path: Path, kinds: str, name: str) -> None:
    machine(tmp_path, f"12:cpu:/jobs\n4:{kinds}:/jobs/mine\n")
    top = tmp_path / "sys/fs/cgroup" / kinds
    limit(top / "jobs/mine" / name, "max")
    limit(top / "jobs" / name, str(GB))
    limit(top / name, str(2**63 - 4096))
    limit(tmp_path / "sys/fs/cgroup/cpu/jobs" / name, "1")
    assert memory_bytes(tmp_path) == GB


def test_memory_is_asked_of_the_system_where_it_has_no_files_for_it(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_kills_for_want_of_memory_are_counted_where_the_kernel_tells(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 3\nthp_split 0\n")
    assert out_of_memory_kills(tmp_path / "vmstat") == 3
    assert out_of_memory_kills(tmp_path / "missing") == 0


def machine(root: Path, groups: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemFree: 1 kB\nMemTotal:  {8 * 1024**2} kB\n")
    (root / "proc/self/cgroup").write_text(groups)


def limit(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
