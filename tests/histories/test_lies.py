"""Real processes on an engine that lies about what it did: what they write down gives the lie away."""

import hashlib
from pathlib import Path

import pytest

from penstock.engines.open import open_engine
from tests.histories import lies, reading
from tests.histories.checker import check
from tests.torture.records import ERRANDS, FOLDER
from tests.torture.torment import Torment

SOURCES = Path(__file__).parents[2] / "src"


def of_this_version() -> str:
    """Choose a lie by what the sources say, so that each change tries another, and a red run can be repeated."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.read_bytes())
    return list(lies.LIES)[digest.digest()[0] % len(lies.LIES)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", [of_this_version()])
def test_lie_of_this_version_is_found(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lies.LIES[name].invariant in found(name, folder, monkeypatch)


@pytest.mark.torture
@pytest.mark.parametrize("name", lies.LIES)
def test_each_lie_is_found(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lies.LIES[name].invariant in found(name, folder, monkeypatch)


def found(lie: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Torment processes that tell a lie for a while; give the invariants that it breaks."""
    monkeypatch.setenv(lies.LIE, lie)
    url = f"sqlite:///{folder}/store.db"
    engine = open_engine(url)
    engine.alter_queue(ERRANDS, max_jobs=60)
    with Torment(folder, "1", url) as killer:
        killer.run(kills=12, jobs=500)
        killer.finish()
        killer.work_off(6)
    reading.keep(folder, reading.see(engine), ())
    engine.close()
    return {violation.invariant for violation in check(reading.read(folder))}
