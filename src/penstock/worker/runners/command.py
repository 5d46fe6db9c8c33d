"""External commands: the job as JSON on stdin, its result as JSON on stdout, its fate in the exit status.

Status 0 succeeds, 75 asks to be run again later (EX_TEMPFAIL of sysexits.h), 100 buries the job, any other fails it.
Each command has a session of its own. At its timeout the group gets SIGTERM, five seconds later SIGKILL.
"""

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import msgspec
from msgspec.structs import replace

from penstock.model.codec import decode_envelope
from penstock.model.errors import EnvelopeCorrupt, EnvelopeTooNew, PayloadInvalid
from penstock.model.job import Claim, ErrorInfo, Evidence, Fence
from penstock.model.outcome import Ending, Outcome
from penstock.worker.execution import Attempt, Interrupt, JobStopped, JobTimeout, Runnable, bounded, explain, refuse
from penstock.worker.forensics import Gauge, Remains
from penstock.worker.runners.child import Spawn
from penstock.worker.runners.contract import Surroundings
from penstock.worker.runners.waiting import Waiting
from penstock.worker.words import last_lines

log = logging.getLogger("penstock.worker")

RETRY_STATUS, BURY_STATUS = 75, 100
LONGEST_STDERR = 8 * 1024
TICK_S = 0.1

#: Ties a command to its worker: the kernel kills it when the worker's process ends. It replaces itself by the command.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


class CommandRunner(Waiting):
    """Runs commands, each with a thread that feeds and watches it; the threads start when first needed."""

    def __init__(self, around: Surroundings, first: int, places: int, *, spawn: Spawn) -> None:
        super().__init__(places)
        self.spawn = spawn
        self._posts = [Post(self, around, first + index) for index in range(places)]

    def start(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self.claims.put(claim)
            if self.begun < self.places:
                post = self._posts[self.begun]
                self.begin(post.serve, f"penstock-command-{post.place}")

    def cancel(self, fence: Fence) -> None:
        for post in self._posts:
            attempt = post.attempt
            if attempt is not None and attempt.claim.fence == fence:
                attempt.cancelled = True

    def check(self, now_ns: int) -> None:
        """Nothing to do: each post keeps the time of its own command."""

    def interrupt(self) -> None:
        for post in self._posts:
            attempt = post.attempt
            if attempt is not None and attempt.interrupt is None:
                attempt.interrupt = JobStopped


class Post:
    """The thread that runs one command at a time."""

    def __init__(self, runner: CommandRunner, around: Surroundings, place: int) -> None:
        self.attempt: Attempt | None = None
        self._runner, self._around, self.place = runner, around, place

    def serve(self) -> None:
        """Run claims until None comes."""
        while (claim := self._runner.claims.get()) is not None:
            self._around.deliver(self._runner, claim, self._run(claim))

    def _run(self, claim: Claim) -> Outcome:
        attempt = Attempt(claim, self._around.notes)
        board = self._around.board
        board.occupy(self.place, claim.fence.token, claim.id, attempt.deadline_ns, attempt.began_ns)
        self.attempt = attempt
        try:
            return self._attempted(attempt, self._around.tasks[claim.task])
        except (EnvelopeCorrupt, EnvelopeTooNew) as error:
            return refuse(attempt, error)
        except OSError as error:
            log.error("the command of job %s cannot be started or watched: %s", claim.id, error)
            return explain(attempt, error)
        except Exception as error:  # the last resort of the post's thread
            log.exception("the command of job %s was given up", claim.id)
            return explain(attempt, error)
        finally:
            self.attempt = None
            board.set_group(self.place, 0)
            board.vacate(self.place)

    def _attempted(self, attempt: Attempt, task: Runnable) -> Outcome:
        words = _words(attempt.claim)
        process = self._start(task)
        self._around.board.set_group(self.place, process.pid)
        talk = _Talk(process, words, self._around)
        remains = talk.attend(attempt)
        return _judge(attempt, task, remains, talk)

    def _start(self, task: Runnable) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        argv = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *(task.command or ())]
        process = self._runner.spawn(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        process.returncode = 0  # it is collected here with wait4, never by Popen
        return process


class _Talk:
    """What is said between a job and its command, within bounds."""

    def __init__(self, process: "subprocess.Popen[bytes]", words: bytes, around: Surroundings) -> None:
        self._process, self._words = process, memoryview(words)
        self.max_payload, self._hard_limit_s = around.max_payload, around.hard_limit_s
        self.stdout, self.stderr = bytearray(), bytearray()
        self.said = 0
        self._signalled_ns = 0
        self._selector = selectors.PollSelector()  # takes no descriptor, of which there may be none left

    def attend(self, attempt: Attempt) -> Remains:
        """Feed the command and listen until it has ended; then end whatever is left of its group.

        Raises:
            OSError: it cannot be watched. Nothing of it is left either.
        """
        gauge = Gauge(self._process.pid)
        with contextlib.ExitStack() as held:
            for stream in self._streams():
                held.callback(_close, stream)
            try:
                self._watch(attempt, gauge, held)
            finally:
                self._signal(signal.SIGKILL)
                remains = gauge.wait()
            self._drain()
        return remains

    def _watch(self, attempt: Attempt, gauge: Gauge, held: contextlib.ExitStack) -> None:
        ended = os.pidfd_open(self._process.pid)
        held.callback(os.close, ended)
        for stream, event in zip(self._streams(), (_WRITE, _READ, _READ), strict=True):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, event)
        self._selector.register(ended, _READ)
        while ended not in (ready := self._step()):
            if not ready:
                gauge.look()
            self._keep_time(attempt)

    def _streams(self) -> list[IO[bytes]]:
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        return [stream for stream in streams if stream is not None]

    def _step(self) -> list[Any]:
        """Move what can be moved; give what was ready."""
        ready = [key.fileobj for key, _ in self._selector.select(TICK_S)]
        for stream in ready:
            if stream is self._process.stdin:
                self._feed(stream)
            elif stream is self._process.stdout or stream is self._process.stderr:
                self._hear(stream)
        return ready

    def _feed(self, stream: Any) -> None:
        try:
            self._words = self._words[os.write(stream.fileno(), self._words) :]
        except BrokenPipeError:  # it does not care for its arguments
            self._words = self._words[:0]
        if not self._words:
            self._selector.unregister(stream)
            _close(stream)

    def _hear(self, stream: Any) -> bool:
        """Read once; False at the end of the stream, or when there is nothing to read now."""
        try:
            heard = os.read(stream.fileno(), 65536)
        except BlockingIOError:
            return False
        if not heard:
            self._selector.unregister(stream)
            return False
        if stream is self._process.stdout:
            self.said += len(heard)
            self.stdout += heard[: max(0, self.max_payload + 1 - len(self.stdout))]
        else:
            self.stderr += heard
            del self.stderr[:-LONGEST_STDERR]
        return True

    def _drain(self) -> None:
        """Read what the command wrote before it ended; a descendant that left its group may hold the pipe open."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream in [key.fileobj for key in self._selector.get_map().values()]:
                for _ in range(1024):
                    if not self._hear(stream):
                        break

    def _keep_time(self, attempt: Attempt) -> None:
        now_ns = time.monotonic_ns()
        if attempt.interrupt is None and 0 < attempt.deadline_ns <= now_ns:
            attempt.interrupt = JobTimeout
        if not self._signalled_ns and (attempt.interrupt is not None or attempt.cancelled):
            self._signalled_ns = now_ns
            self._signal(signal.SIGTERM)
        elif self._signalled_ns and now_ns - self._signalled_ns > self._hard_limit_s * 1e9:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):
        stream.close()


def _words(claim: Claim) -> bytes:
    envelope = decode_envelope(claim.envelope, claim.crc)
    return msgspec.json.encode(
        {
            "id": claim.id,
            "task": claim.task,
            "attempt": claim.attempt,
            "args": envelope.args,
            "kwargs": envelope.kwargs,
            "headers": envelope.headers or {},
        }
    )


def _judge(attempt: Attempt, task: Runnable, remains: Remains, talk: _Talk) -> Outcome:
    if remains.code == 0:
        return _result(attempt, task, talk)
    if attempt.interrupt is not None:
        return _interrupted(attempt, attempt.interrupt, remains, talk)
    if attempt.cancelled:
        return _ended(attempt, Ending.CANCELLED, "cancelled", "cancelled while it ran", talk)
    message = f"the command {remains.story()}"
    if remains.code == BURY_STATUS:
        return _ended(attempt, Ending.FAILED, "failed", message, talk, verdict="bury")
    if remains.code == RETRY_STATUS:
        return _ended(attempt, Ending.FAILED, "failed", message, talk, verdict="retry")
    outcome = _ended(attempt, Ending.FAILED, "failed", message, talk)
    return outcome if remains.code > 0 else _with(outcome, Evidence(remains.code, remains.cause(), remains.peak_bytes))


def _interrupted(attempt: Attempt, why: type[Interrupt], remains: Remains, talk: _Talk) -> Outcome:
    """Tell of one that was ended, with what it had said last if its time was out."""
    outcome = explain(attempt, why())
    how = "did not end at SIGTERM" if remains.code == -signal.SIGKILL else "ended at SIGTERM"
    said = last_lines(bytes(talk.stderr).decode(errors="replace"))
    return _with(outcome, Evidence(remains.code, f"its time was out, and it {how}", remains.peak_bytes, log=said))


def _with(outcome: Outcome, evidence: Evidence) -> Outcome:
    if outcome.error is None:
        return outcome
    return replace(outcome, error=replace(outcome.error, evidence=replace(evidence, ran_us=outcome.ran_us)))


def _result(attempt: Attempt, task: Runnable, talk: _Talk) -> Outcome:
    if talk.said > talk.max_payload:
        message = f"the command wrote {talk.said:,} bytes to stdout, over the limit of {talk.max_payload:,}"
        return _unkept(attempt, message, talk)
    try:
        value = msgspec.json.decode(talk.stdout) if talk.stdout.strip() else None
        result = task.encode_result(value)
    except (msgspec.MsgspecError, PayloadInvalid, UnicodeDecodeError, RecursionError) as error:
        said = bounded(bytes(talk.stdout[:200]).decode(errors="replace"), 200)
        return _unkept(attempt, f"the command's stdout is not one JSON value ({error}): {said!r}", talk)
    return Outcome(ending=Ending.SUCCEEDED, result=result, cancel_requested=attempt.cancelled, ran_us=attempt.ran_us)


def _unkept(attempt: Attempt, why: str, talk: _Talk) -> Outcome:
    message = f"{why}. The job of task {attempt.claim.task!r} is not run again, because its command has done its work."
    return _ended(attempt, Ending.FAILED, "failed", message, talk, verdict="bury")


def _ended(attempt: Attempt, ending: Ending, kind: str, message: str, talk: _Talk, verdict: Any = None) -> Outcome:
    stderr = bounded(bytes(talk.stderr).decode(errors="replace"), LONGEST_STDERR)
    return Outcome(
        ending=ending,
        error=ErrorInfo(kind=kind, message=message, traceback=stderr, attempt=attempt.claim.attempt),
        verdict=verdict,
        cancel_requested=attempt.cancelled,
        ran_us=attempt.ran_us,
    )


_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
