"""Where in the application's own code an exception was raised, as a place that outlives edits of its files."""

import os
import sysconfig
from functools import lru_cache
from types import FrameType, TracebackType

__all__ = ["own_frame"]

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def own_frame(trace: TracebackType | None) -> str:
    """Give the innermost function of the application in a traceback, as `shop.jobs:send`; empty if there is no frame.

    What belongs to Python, to penstock or to an installed package is not the application's, unless it is the package
    that the task itself is in. Where nothing else is to be had, the innermost of all frames is given.
    """
    innermost = own = home = ""
    while trace is not None:
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__") or "?")
        if not module.startswith("penstock.worker"):
            package = module.partition(".")[0]
            home = home or package
            innermost = f"{module}:{frame.f_code.co_qualname}"
            own = innermost if package == home or _is_own(frame) else own
        trace = trace.tb_next
    return own or innermost


def _is_own(frame: FrameType) -> bool:
    return _is_own_file(frame.f_code.co_filename)


@lru_cache(maxsize=4096)
def _is_own_file(name: str) -> bool:
    """Say whether a file is the application's; what has no file, as code made by `exec`, is taken for a library's."""
    if not os.path.isabs(name):
        return not name.startswith("<")
    return not any(part in name for part in _INSTALLED) and not name.startswith(_libraries())


@lru_cache(maxsize=1)
def _libraries() -> tuple[str, ...]:
    """Give the folders of what is not the application's, each with a separator at its end."""
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], os.path.dirname(os.path.dirname(__file__))}
    return tuple(os.path.join(folder, "") for folder in folders)
