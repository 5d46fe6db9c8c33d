"""Log lines of the worker as text or JSON on stderr, and what a job logs or prints kept with it."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO, cast

import msgspec

from penstock.context import running, shielded


def set_up_logging(level: str, form: str) -> None:
    """Send every record of this process to stderr."""
    handler = ToStderr(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def capture_job_logs() -> "Capture":
    """Keep what a job logs with the job, besides writing it where it goes anyway."""
    capture = Capture()
    logging.getLogger().addHandler(capture)
    return capture


def overhear_prints(say: Callable[[int, str], None]) -> None:
    """Let what jobs print be among their last words, besides going where it goes anyway.

    Args:
        say: takes the token of a job and what it wrote.
    """
    if sys.stdout is not None:  # closed by whoever started the worker
        sys.stdout = cast("TextIO", Overheard(sys.stdout, say))
    if sys.stderr is not None:
        sys.stderr = cast("TextIO", Overheard(sys.stderr, say))


class Overheard:
    """A stream that passes on what a running job writes to it. It is like the stream in all other ways."""

    def __init__(self, stream: TextIO, say: Callable[[int, str], None]) -> None:
        self._stream, self._say = stream, say

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        context = running()
        if context is not None:
            with shielded():
                self._say(context.claim.fence.token, text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Unbroken(logging.Handler):
    """Takes each record whole: an interrupt of the job that writes it would leave the handler locked for ever."""

    def handle(self, record: logging.LogRecord) -> bool:
        with shielded():
            return bool(super().handle(record))


class ToStderr(Unbroken, logging.StreamHandler[TextIO]):
    """Writes to stderr."""


class TextFormatter(logging.Formatter):
    """Time in UTC with milliseconds, level, message."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        job = getattr(record, "job", None)
        if job is not None:
            fields["job"] = job
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


class Capture(Unbroken):
    """Passes the records that a job logs to the job's own log."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(TextFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        context = running()
        if context is None:
            return
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - a record whose arguments do not fit is reported as logging does it
            self.handleError(record)
            return
        context.log(text)
