"""The benchmarks run from end to end with tiny numbers; what they measure then means nothing."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("huey", reason="the extra `bench` is not installed")
pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")

from benchmarks.__main__ import THEMES, main
from benchmarks.machine import filesystem_of, real_disk
from benchmarks.workers import WorkerEnded, running


def run(out: Path, *themes: str, store: str = "sqlite", more: Sequence[str] = ()) -> dict[str, dict[str, object]]:
    """Run themes and give the figures they wrote, by key."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--quick", "--scale", "0.05", "--store", store, "--out", str(out), *more, "--only", *themes]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    document = json.loads((out / f"{store}.json").read_text())
    return {figure["key"]: figure for figure in document["figures"]}


def test_themes_without_workers_give_figures_and_a_picture(tmp_path: Path) -> None:
    figures = run(tmp_path, "enqueue", "floor", "verbs")
    assert {key.partition(".")[0] for key in figures} == {"enqueue", "floor", "verbs"}
    assert all(float(str(figure["value"])) > 0 for figure in figures.values())
    assert (tmp_path / "sqlite.png").read_bytes().startswith(b"\x89PNG")


def test_run_says_what_it_was_measured_on_and_how_huey_syncs(tmp_path: Path) -> None:
    run(tmp_path, "enqueue")
    facts = json.loads((tmp_path / "sqlite.json").read_text())["facts"]
    assert {"cpu", "cpus", "python", "sqlite", "penstock", "huey", "filesystem", "durability"} <= set(facts)
    assert facts["huey_synchronous"]["fsync"] == "FULL"


@pytest.mark.slow
@pytest.mark.parametrize(
    "theme",
    ["drain", *(pytest.param(one, marks=pytest.mark.torture) for one in ("recovery", "latency", "idle", "backlog"))],
)
def test_theme_with_real_workers_gives_figures_and_leaves_no_process(tmp_path: Path, theme: str) -> None:
    figures = run(tmp_path, theme)
    assert {key.partition(".")[0] for key in figures} == {theme}
    assert any(figure["goal"] for figure in figures.values())
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_worker_that_ends_by_itself_is_an_error_with_its_last_words() -> None:
    with (
        pytest.raises(WorkerEnded, match="out of order"),
        running(["sh", "-c", "echo out of order; exit 3"], {}) as tree,
    ):
        tree.process.wait()


def test_stores_stand_on_a_disk_and_not_in_memory_if_there_is_one() -> None:
    assert filesystem_of(Path("/proc")) == "proc"
    assert filesystem_of(real_disk()) not in {"proc", "unknown"}


def test_every_theme_is_known_by_the_name_that_its_figures_carry() -> None:
    assert {measure.__module__ for measure in THEMES.values()} == {f"benchmarks.{theme}" for theme in THEMES}


@pytest.mark.slow
@pytest.mark.parametrize(("store", "theme"), [("redis", "size"), ("redis", "enqueue"), ("postgresql", "enqueue")])
def test_theme_runs_on_a_private_server_and_says_how_it_was_set_up(tmp_path: Path, store: str, theme: str) -> None:
    figures = run(tmp_path, theme, store=store)
    assert {key.partition(".")[0] for key in figures} == {theme}
    assert json.loads((tmp_path / f"{store}.json").read_text())["facts"]["settings"]


@pytest.mark.torture
def test_claims_are_timed_while_a_transaction_stays_open(tmp_path: Path) -> None:
    figures = run(tmp_path, "horizon", store="postgresql", more=["--horizon", "1"])
    assert {"horizon.idle.growth", "horizon.enqueued.growth"} <= figures.keys()
