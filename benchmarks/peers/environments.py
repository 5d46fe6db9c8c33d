"""An environment for each peer below `build/peers`: their demands on redis-py exclude each other."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.workers import ROOT

__all__ = ["EnvironmentFailed", "install", "pinned", "python_of"]

_PINS = Path(__file__).with_name("pins")
_HOMES = ROOT / "build" / "peers"
_LIMIT_S = 600


class EnvironmentFailed(Exception):
    """A peer could not be installed."""


def python_of(home: str | None) -> str:
    """Give the interpreter of an environment."""
    return sys.executable if home is None else str(_HOMES / home / "bin" / "python")


def install(home: str) -> None:
    """Make the environment, unless it is there with the pinned versions.

    Raises:
        EnvironmentFailed: says what pip said.
    """
    pins, place = (_PINS / f"{home}.txt").read_text(), _HOMES / home
    made = place / "made"
    if made.exists() and made.read_text() == f"{place}\n{pins}":
        return
    shutil.rmtree(place, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(place)])
    pip = [python_of(home), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    _run([*pip, "-r", str(_PINS / f"{home}.txt")])
    made.write_text(f"{place}\n{pins}")


def pinned(home: str) -> dict[str, str]:
    """Give the versions of an environment by package."""
    lines = (_PINS / f"{home}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
    except subprocess.CalledProcessError as error:
        raise EnvironmentFailed(error.stderr.strip()[-1000:]) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(f"{' '.join(command)} did not end within {_LIMIT_S} s.") from error
