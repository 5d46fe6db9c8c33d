"""The comparison with other queues: who takes part, how jobs are counted, and what becomes of who fails."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import journal, results
from benchmarks.peers.__main__ import main
from benchmarks.peers.contenders import BARE, CONTENDERS, OWN, STORES, Contender, chosen
from benchmarks.peers.environments import pinned
from benchmarks.peers.journal import JOURNAL, What, counted, note, read
from benchmarks.peers.rounds import Effort, Findings, measure
from benchmarks.peers.sessions import HELD, Killed
from benchmarks.places import Place, open_place

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "benchmarks" / "peers" / "programs"
TINY = Effort(rounds=1, enqueue_s=0.05, share=0.01, spaced=3, patience_s=1.0)
KILLED = Killed(completed=HELD, interrupted=2, again_s=[0.5, 30.2], twice=0, waited_s=31.0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place("sqlite", tmp_path) as place:
        yield place


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A journal that this process writes."""
    file = tmp_path / "journal"
    file.touch()
    monkeypatch.setenv(JOURNAL, str(file))
    journal._file.cache_clear()
    yield file
    os.close(journal._file())
    journal._file.cache_clear()


def stranger(program: str = "penstock_any", home: str | None = None) -> Contender:
    return Contender("sqlite", "stranger", "Stranger", program, home, 1000, "as it comes")


def test_penstock_stands_on_every_store_and_a_floor_on_each_server() -> None:
    assert [one.store for one in CONTENDERS if one.name == OWN] == list(STORES)
    assert [one.store for one in CONTENDERS if one.name == BARE] == ["redis", "postgresql"]


@pytest.mark.parametrize("one", [pytest.param(one, id=one.key) for one in CONTENDERS])
def test_contender_has_a_program_that_cites_its_source_and_pinned_versions(one: Contender) -> None:
    text = (PROGRAMS / f"{one.program}.py").read_text()
    assert one.home is None or "https://" in text
    assert one.home is None or set(one.packages) <= set(pinned(one.home))


def test_words_choose_by_store_by_name_and_by_both() -> None:
    assert {one.store for one in chosen(["postgresql"])} == {"postgresql"}
    assert [one.key for one in chosen(["huey"])] == ["redis.huey", "sqlite.huey"]
    assert [one.key for one in chosen(["sqlite.huey"])] == ["sqlite.huey"]
    assert chosen([]) == list(CONTENDERS)


def test_word_that_names_nobody_is_refused_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"'celeri' is no contender.*celery"):
        chosen(["celeri"])


def test_journal_gives_back_what_jobs_noted_in_the_order_of_time(notes: Path) -> None:
    note(7, What.STARTED)
    note(7)
    assert counted(notes) == 2
    assert [(one.number, one.what) for one in read(notes)] == [(7, What.STARTED), (7, What.RAN)]


@pytest.mark.parametrize(
    ("killed", "cells"),
    [
        (KILLED, ["200 of 200", "30.2 s"]),
        (Killed(190, 10, [], 0, 60.0), ["190 of 200", "not within 60 s"]),
        (Killed(195, 10, [1.0] * 5, 3, 60.0), ["195 of 200, 3 twice", "5 of 10, not within 60 s"]),
        (Killed(195, 0, [], 0, 60.0), ["195 of 200", "none was interrupted"]),
        (None, ["–", "–"]),
    ],
)
def test_table_says_what_a_kill_did(killed: Killed | None, cells: list[str]) -> None:
    one = chosen(["sqlite.penstock"])[0]
    findings = Findings(kills={one.key: killed} if killed else {})
    findings.samples[one.key, "drain.1"] = [1000.0]
    assert results.table("sqlite", results.figures_of([one], findings), findings)[0][-2:] == cells


def test_ratios_are_those_of_penstock_to_each_other_on_its_store_and_carry_the_goals() -> None:
    contenders, findings = chosen(["sqlite"]), Findings()
    findings.samples["sqlite.penstock", "drain.1"] = [1000.0, 3000.0]
    findings.samples["sqlite.huey", "drain.1"] = [100.0, 300.0]
    ratio = next(one for one in results.figures_of(contenders, findings) if one.unit == "ratio")
    assert (ratio.key, ratio.value, ratio.is_met) == ("sqlite.penstock.drain_to.huey", 10.0, True)


def test_contender_that_does_not_run_is_named_with_its_error_and_the_others_go_on(place: Place) -> None:
    said: list[str] = []
    findings = measure([stranger("no_such_program")], {"sqlite": place}, TINY, said.append)
    assert "No module named 'benchmarks.peers.programs.no_such_program'" in findings.failures["sqlite.stranger"]
    assert "Stranger on sqlite is left out from here" in said[-1]


@pytest.mark.slow
def test_round_gives_every_measure_and_the_fate_of_killed_jobs(place: Place) -> None:
    findings = measure([stranger()], {"sqlite": place}, TINY, lambda _: None)
    assert findings.failures == {}
    measures = {measure for _, measure in findings.samples}
    assert measures == {"one", "many", "drain.1", "drain.2", "memory.1", "memory.2", "latency"}
    assert len(findings.samples["sqlite.stranger", "latency"]) == TINY.spaced
    killed = findings.kills["sqlite.stranger"]
    assert HELD // 2 <= killed.completed < HELD  # the lease of what was interrupted outlasts the patience of this test
    assert killed.interrupted > 0
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("store", [pytest.param("redis", marks=pytest.mark.torture), "postgresql"])
def test_floor_runs_on_a_private_server_and_is_written_down(tmp_path: Path, store: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["--quick", "--out", str(tmp_path), "--only", f"{store}.{BARE}"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    document = json.loads((tmp_path / "peers.json").read_text())
    assert document["failures"] == {}
    assert document["tables"][store][0][0].startswith("bare ")
    assert len(document["tables"][store][0]) == len(document["columns"])
    assert document["facts"][store]
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_programs_leave_this_process_alone() -> None:
    assert not [name for name in sys.modules if name.startswith("benchmarks.peers.programs.")]
