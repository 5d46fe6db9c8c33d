"""The scripts of the engine, put together from the files in `lua/`.

A line `-- include NAME` stands for that file; `-- flags: no-writes` marks a script that only reads.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).with_name("lua")
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)
_VERBS = (
    *("open", "enrol", "add", "add_plain", "divide", "exchange", "renew", "tend", "begin", "record", "share", "note"),
    *("get", "find", "standing", "ended", "groups", "queues", "workers", "load", "alter", "alter_queue", "drain"),
    "evict",
)

#: The scripts that a server without memory refuses.
_GROWING = frozenset({"add", "add_plain", "load"})

# A server before 7 knows no flags of scripts. It refuses commands for want of memory until a script has written, so one
# that helps to drain the store begins with a write that needs none, and does nothing.
_FIRST_WRITE = "redis.call('DEL', KEYS[1] .. 'nothing')\n"


class Script(NamedTuple):
    """A script as a server is given it, and the digest by which it is called."""

    text: bytes
    digest: bytes


def scripts_for(version: tuple[int, ...]) -> dict[str, Script]:
    """Give the scripts, by verb, in the form that a server of this version takes."""
    return {verb: _script(verb, _assembled(verb), knows_flags=version >= (7,)) for verb in _VERBS}


def _script(verb: str, body: str, *, knows_flags: bool) -> Script:
    reads = "\n-- flags: no-writes\n" in body
    if knows_flags and verb not in _GROWING:
        front = f"#!lua flags={'no-writes' if reads else 'allow-oom'}\n"
    elif knows_flags:
        front = "#!lua\n"
    else:
        front = "" if reads or verb in _GROWING else _FIRST_WRITE
    text = (front + body).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


def _assembled(name: str, included: set[str] | None = None) -> str:
    """Give a script with what it includes, each file once, before its first user."""
    included = set() if included is None else included
    if name in included:
        return ""
    included.add(name)
    text = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: _assembled(found[1], included), text)
