"""Other processes for the tests of one file: started with a function of a test module, steered line by line."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

PROMPT_S = 20.0
_ROOT = os.path.abspath(__file__).removesuffix(f"{__name__.replace('.', os.sep)}.py")
_MAIN = "import importlib, json, sys; module, name, given = sys.argv[1:]; \
getattr(importlib.import_module(module), name)(*json.loads(given))"


class Child:
    """A process that runs `function(*arguments)`, of which only JSON may be asked.

    What it tells with `tell` is heard with `heard`; leaving the context kills it, frozen or not.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any, **environment: str) -> None:
        path = os.pathsep.join((_ROOT, os.environ.get("PYTHONPATH", "")))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, function.__module__, function.__name__, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def heard(self, within_s: float = PROMPT_S) -> Any:
        """Give the next thing the child tells; fails if it ends or stays silent."""
        line = self._lines.get(timeout=within_s)
        assert line, f"the child ended with {self._process.wait()}"
        return json.loads(line)

    def rest(self) -> list[Any]:
        """Give what a child that has ended had told to the last whole line and nobody had heard."""
        told = []
        while line := self._lines.get(timeout=PROMPT_S):
            if line.endswith("\n"):
                told.append(json.loads(line))
        return told

    def is_running(self) -> bool:
        return self._process.poll() is None

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        """Wait until the child has returned; fails if it raised."""
        assert self._process.wait(PROMPT_S) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(PROMPT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def tell(value: Any = None) -> None:
    """Say something to the parent, from within a child."""
    os.write(1, json.dumps(value).encode() + b"\n")


def wait_for_parent() -> None:
    """Block until the parent says `go_on`."""
    sys.stdin.readline()
