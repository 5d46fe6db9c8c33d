"""A temporary folder in which the blocks of one page run: one shell, one interpreter, and the workers they start."""

import ast
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.docs.pages import ROOT, RUN, SHOWN, Block

COMMAND_S = 40.0
STOP_S = 30.0

#: Ends the output of a command, with its status, which stays what it was for the next command.
_END = "\x04"
_ANNOUNCE = f"__status=$?; printf '{_END}%d\\n' $__status; (exit $__status)\n"
#: What the shell says, sooner or later, of a background command that was killed; at a terminal it looks different.
_NOTICE = re.compile(r"^bash: line \d+: +\d+ Killed .*\n", re.MULTILINE)
#: A worker in the background, and the file of its log.
_WORKER = re.compile(r"^penstock worker\b.* 2> (\S+) &$")


class Place:
    """Use it as a context: what is still running at the end is stopped.

    Args:
        variables: added to the environment of shell and interpreter.
    """

    def __init__(self, folder: Path, page: str, variables: Mapping[str, str] | None = None) -> None:
        self.folder, self.page = folder, page
        self._environment = environment(folder) | dict(variables or {})
        self._bash: subprocess.Popen[bytes] | None = None
        self._python: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._bash is not None:
                stop_shell(self._bash)
        finally:
            if self._python is not None:
                stop_interpreter(self._python)

    def run(self, block: Block) -> None:
        """Do what the block's language asks for; AssertionError says what was not as written."""
        assert block.language in SHOWN | RUN, (
            f"{self._where(block)}: a block in {block.language or 'no language'!r} is neither run nor known to be shown"
        )
        if block.note:
            assert block.note.startswith("compile only, "), f"{self._where(block)}: {block.note!r} is not understood"
            ast.parse(block.text)
        elif block.file is not None:
            self._write(block.file, block.text)
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "console":
            self._run_console(block)
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)

    def _where(self, block: Block, line: int = 1) -> str:
        return f"{self.page}:{block.line + line - 1}"

    def _write(self, name: str, text: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        if self._python is not None and target.suffix == ".py":
            self._tell({"forget": target.stem})

    # -- Python -------------------------------------------------------------------------------------------------------

    def _run_python(self, block: Block) -> None:
        reply = self._tell({"text": block.text, "place": self._where(block)})
        for line, expected, printed in reply["printed"]:
            told = f"{self._where(block, line)}: the page says\n{expected}\nbut it is\n{printed}"
            assert matches(expected, printed), told
        assert reply["error"] is None, f"{self._where(block)}:\n{reply['error']}"
        assert not reply["missed"], f"{self._where(block, reply['missed'][0])}: this line was never reached"

    def _tell(self, order: dict[str, Any]) -> Any:
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-W", "error", str(Path(__file__).with_name("interpreter.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env=self._environment,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(order) + "\n")
        self._python.stdin.flush()
        reply = self._python.stdout.readline()
        assert reply, f"{self.page}: the interpreter has ended with status {self._python.wait(STOP_S)}"
        return json.loads(reply)

    # -- the shell ----------------------------------------------------------------------------------------------------

    def _run_console(self, block: Block) -> None:
        spoken = list(conversation(block.text))
        for index, (line, command, expected) in enumerate(spoken):
            status, output = self._command(command)
            where = self._where(block, line)
            told = f"{where}: $ {command}\n"
            assert matches(expected, output), f"{told}the page says\n{expected}\nbut it is\n{output}"
            asked = index + 1 < len(spoken) and spoken[index + 1][1] == "echo $?"
            assert status == 0 or asked, f"{told}ended with status {status}:\n{output}"

    def _command(self, command: str) -> tuple[int, str]:
        shell = self._shell()
        assert shell.stdin is not None
        shell.stdin.write(f"{command}\n{_ANNOUNCE}".encode())
        shell.stdin.flush()
        ended = self._listen(shell, command)
        if worker := _WORKER.search(command):
            self._await_worker(self.folder / worker[1])
        return ended

    def _await_worker(self, log: Path) -> None:
        """Be no faster than a person types: a worker that still starts is none that `result()` could wait for."""
        deadline = time.monotonic() + COMMAND_S
        while not log.exists() or " queues " not in log.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, f"{self.page}: no worker began to log to {log} within {COMMAND_S:g} s"
            time.sleep(0.02)

    def _shell(self) -> "subprocess.Popen[bytes]":
        if self._bash is None:
            self._bash = subprocess.Popen(
                ["bash", "--norc", "--noprofile"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
                start_new_session=True,
            )
            assert self._bash.stdin is not None
            self._bash.stdin.write(b"set -m\n")
        return self._bash

    def _listen(self, shell: "subprocess.Popen[bytes]", command: str) -> tuple[int, str]:
        """Read until the shell says that the command has ended."""
        assert shell.stdout is not None
        heard, deadline = b"", time.monotonic() + COMMAND_S
        with selectors.DefaultSelector() as selector:
            selector.register(shell.stdout, selectors.EVENT_READ)
            while not (found := re.search(rf"{_END}(\d+)\n".encode(), heard)):
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{self.page}: `{command}` has not ended after {COMMAND_S:g} s:\n{heard.decode()}"
                if selector.select(left_s):
                    new = os.read(shell.stdout.fileno(), 65536)
                    assert new, f"{self.page}: the shell has ended at `{command}`:\n{heard.decode()}"
                    heard += new
        return int(found[1]), _NOTICE.sub("", heard[: found.start()].decode())


def conversation(text: str) -> Iterator[tuple[int, str, str]]:
    """Give each command of a console block with its line and the output that should follow."""
    line, command, expected = 0, "", list[str]()
    for number, words in enumerate(text.splitlines(), 1):
        if command.endswith("\\"):
            command += f"\n{words.removeprefix('> ')}"
        elif words.startswith("$ "):
            if command:
                yield line, command, "\n".join(expected)
            line, command, expected = number, words[2:], []
        else:
            assert command, f"output without a command: {words!r}"
            expected.append(words)
    if command:
        yield line, command, "\n".join(expected)


def matches(expected: str, found: str) -> bool:
    """Compare line by line, several blanks as one; `...` stands for anything, also for several lines."""
    pattern = r"[\s\S]*".join(re.escape(part) for part in _plain(expected).split("..."))
    return re.fullmatch(pattern, _plain(found)) is not None


def environment(folder: Path) -> dict[str, str]:
    """Give an environment in which `penstock` and `python` are those that run the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    words = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "HOME": str(folder)}
    return {**own, **words, "COLUMNS": "140", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def stop_shell(shell: "subprocess.Popen[bytes]") -> None:
    """Stop what the page left running, then its shell."""
    assert shell.stdin is not None
    with suppress(BrokenPipeError):
        shell.stdin.write(b"for __pid in $(jobs -p); do kill -TERM $__pid 2>/dev/null; done; wait\n")
        shell.stdin.close()
    try:
        shell.wait(STOP_S)
    except subprocess.TimeoutExpired:
        for group in _groups_in_session(shell.pid):
            os.killpg(group, signal.SIGKILL)
        raise
    finally:
        assert shell.stdout is not None
        shell.stdout.close()


def stop_interpreter(python: "subprocess.Popen[str]") -> None:
    try:
        python.communicate(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        python.kill()
        python.communicate()
        raise


def _plain(text: str) -> str:
    return "\n".join(re.sub(r"[ \t]+", " ", line).rstrip() for line in text.strip("\n").splitlines())


def _groups_in_session(session: int) -> set[int]:
    """Find the process groups of a session in /proc."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if os.getsid(int(entry.name)) == session:
                found.add(os.getpgid(int(entry.name)))
        except ProcessLookupError:
            continue
    return found
