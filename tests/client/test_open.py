import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.engines.open import open_engine, without_password
from penstock.model.errors import EngineUnknown


def complaint(url: str) -> str:
    with pytest.raises(EngineUnknown) as caught:
        open_engine(url)
    return str(caught.value)


def test_plain_memory_is_private_and_named_memory_is_shared() -> None:
    assert open_engine("memory://") is not open_engine("memory://")
    assert open_engine("memory://shared-by-test") is open_engine("memory://shared-by-test")


def test_sqlite_opens_relative_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there.db?durability=normal&timeout=2s&keep_jobs=10"):
        engine = open_engine(url)
        assert engine.describe().kind == "sqlite"
        engine.close()
    assert (tmp_path / "here.db").exists()
    assert (tmp_path / "there.db").exists()


def test_two_slashes_are_told_to_be_three() -> None:
    assert "sqlite:///shop.db" in complaint("sqlite://shop.db")


@pytest.mark.parametrize("path", [":memory:", "%00"])
def test_names_that_no_file_should_have_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "or memory:// for tests" in complaint(f"sqlite:///{path}")
    assert not list(tmp_path.iterdir())


def test_a_plain_path_is_told_to_be_a_url() -> None:
    assert "write sqlite:///shop.db" in complaint("shop.db")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("redis:/localhost", "write redis://localhost."),
        ("sqlite:shop.db", "write sqlite:///shop.db."),
        ("postgresql:/me:secret@host/shop", "write postgresql://user@host."),
        ("me:secret@host", "write sqlite:///penstock.db."),
    ],
)
def test_missing_slashes_are_told_and_no_password(written: str, meant: str) -> None:
    told = complaint(written)
    assert told.endswith(meant)
    assert "secret" not in told


def test_a_misspelt_scheme_is_told_what_was_meant() -> None:
    assert "Did you mean sqlite:///shop.db?" in complaint("sqlit:///shop.db")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_engines_of_later_versions_are_named(scheme: str) -> None:
    told = complaint(f"{scheme}://user:secret@host/0")
    assert "no engine" in told
    assert "secret" not in told


def test_unknown_options_are_named_with_those_known() -> None:
    told = complaint("sqlite:///shop.db?durabilty=full")
    assert "durabilty" in told
    assert "Did you mean 'durability'? Known: durability, timeout, keep_jobs." in told


@pytest.mark.parametrize(
    "option",
    [
        *("durability=most", "timeout=soon", "timeout=0", "timeout=0s", "timeout=25h", "keep_jobs=many"),
        f"keep_jobs={10**30}",
    ],
)
def test_options_that_cannot_be_used_say_why(option: str) -> None:
    assert option.partition("=")[2] in complaint(f"sqlite:///shop.db?{option}")


def test_passwords_are_never_shown() -> None:
    assert without_password("redis://me:pw@host/1?ssl_password=x&a=1") == "redis://me:***@host/1?ssl_password=***&a=1"


@pytest.mark.parametrize(
    ("driver", "extra", "url"), [("hiredis", "redis", "redis://host"), ("psycopg", "postgres", "postgresql://host/db")]
)
def test_driver_that_is_missing_is_named_with_what_installs_it(
    driver: str, extra: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == driver else object())
    assert f"needs {driver}, which is not installed: pip install 'penstock[{extra}]'" in complaint(url)


@pytest.mark.parametrize("url", ["sqlite:///shop.db", "redis://localhost", "postgresql://localhost/shop"])
def test_engine_is_imported_at_the_first_call_not_by_naming_its_store(url: str) -> None:
    program = (
        "import sys; from penstock import Penstock; Penstock(sys.argv[1]);"
        "print([name for name in sys.modules if name.endswith('.engine') and name.startswith('penstock.engines')])"
    )
    run = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
