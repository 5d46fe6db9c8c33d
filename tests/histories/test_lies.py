"""Real processes on an engine that lies about what it did: what they write down gives the lie away."""

import hashlib
from pathlib import Path

import pytest

from penstock.engines.open import open_engine
from tests.histories import lies, reading
from tests.histories.checker import check
from tests.torture.records import ERRANDS, FOLDER
from tests.torture.torment import Torment

TORMENTS = 3
SOURCES = Path(__file__).parents[2] / "src"


def of_this_version() -> str:
    """Choose a lie by what the sources say, so that each change tries another, and a red run can be repeated."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.read_bytes())
    return list(lies.LIES)[digest.digest()[0] % len(lies.LIES)]


@pytest.mark.torture
@pytest.mark.parametrize("name", [of_this_version()])
def test_lie_of_this_version_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_found(name, tmp_path, monkeypatch)


@pytest.mark.torture
@pytest.mark.parametrize("name", lies.LIES)
def test_each_lie_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_found(name, tmp_path, monkeypatch)


def assert_found(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lie is found in one of three short torments: on a busy machine one may end before it was told at all."""
    told: list[set[str]] = []
    for number in range(TORMENTS):
        told.append(found(name, folder, str(number), monkeypatch))
        if lies.LIES[name].invariant in told[-1]:
            return
    pytest.fail(f"{name} broke {told} and not {lies.LIES[name].invariant}")


def found(lie: str, place: Path, seed: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Torment processes that tell a lie for a while; give the invariants that it breaks."""
    folder = place / seed
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(lies.LIE, lie)
    url = f"sqlite:///{folder}/store.db"
    engine = open_engine(url)
    engine.alter_queue(ERRANDS, max_jobs=60)
    with Torment(folder, seed, url) as killer:
        killer.run(kills=12, jobs=500)
        killer.finish()
        killer.work_off(60)
    reading.keep(folder, reading.see(engine), ())
    engine.close()
    return {violation.invariant for violation in check(reading.read(folder))}
