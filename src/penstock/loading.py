"""From `module:attribute` to the application it names."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.client import Penstock
from penstock.model.errors import PenstockError

__all__ = ["AppNotFound", "import_fault", "load_app", "own_lines"]

FRAMES_SHOWN = 20


class AppNotFound(PenstockError):
    """No application is where it was said to be; `target` holds what was asked for."""

    def __init__(self, target: str, message: str) -> None:
        self.target = target
        super().__init__(message)


def load_app(target: str) -> Penstock:
    """Import the application that `module:attribute` or `path/to/file.py:attribute` names.

    The working directory comes first in `sys.path`. A file is imported under the name of its stem, as if its folder
    were the working directory.

    Raises:
        AppNotFound: names what is missing. What the module itself raises while it is imported passes through, with
            the module's own traceback.
    """
    place, colon, attribute = target.rpartition(":")
    if not colon or not place or not attribute:
        module = (target.strip(":") or "module").removesuffix(".py")
        raise AppNotFound(target, f"{target!r} names no application; write module:attribute, as {module}:app.")
    found = _import_file(target, Path(place)) if place.endswith(".py") else _import_module(target, place)
    return _attribute(target, found, attribute)


def import_fault(target: str, error: BaseException) -> str:
    """Say in one line what went wrong while an application was imported, and in which line of its own code."""
    if isinstance(error, PenstockError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{target!r} cannot be imported: {error.msg} in line {error.lineno} of {error.filename}."
    told = "".join(traceback.TracebackException(type(error), error, None).format_exception_only()).strip()
    frames = _own_frames(error)
    place = f" in line {frames[-1].lineno} of {frames[-1].filename}" if frames else ""
    return f"{target!r} cannot be imported: {told}{place}."


def own_lines(error: BaseException) -> list[str]:
    """Give the lines of a traceback that are of the application's own code, the innermost last."""
    return "".join(traceback.format_list(_own_frames(error)[-FRAMES_SHOWN:])).splitlines()


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Leave out penstock and the import machinery, which are not at fault."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
    ours = str(Path(__file__).parent)
    return [frame for frame in frames if "importlib" not in frame.filename and not frame.filename.startswith(ours)]


def _import_file(target: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise AppNotFound(target, f"There is no file {str(path)!r} in {Path.cwd()}; give its path from there.")
    _search_first(path.resolve().parent)
    return _import_module(target, path.stem)


def _import_module(target: str, name: str) -> ModuleType:
    if name.startswith("."):
        raise AppNotFound(target, f"{name!r} is relative to nothing; write the module's full name.")
    _search_first(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise AppNotFound(
            target,
            f"There is no module {error.name!r} in {Path.cwd()} or where Python looks; call from the folder that holds "
            "it, or write path/to/file.py:attribute.",
        ) from None


def _search_first(folder: Path) -> None:
    """Look for modules in a folder before all others."""
    text = str(folder)
    if sys.path[:1] != [text]:
        sys.path[:] = [text, *(entry for entry in sys.path if entry != text)]
        importlib.invalidate_caches()


def _attribute(target: str, module: ModuleType, attribute: str) -> Penstock:
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise AppNotFound(target, f"Module {module.__name__!r} has no {attribute!r}. {_offer(module)}")
        found = getattr(found, name)
    if not isinstance(found, Penstock):
        raise AppNotFound(target, f"{target!r} is a {type(found).__name__}, not a Penstock. {_offer(module)}")
    return found


def _offer(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Penstock)]
    if not names:
        return "It holds no Penstock; make one with app = Penstock(...)."
    return f"It holds {', '.join(f'{module.__name__}:{name}' for name in names)}."
