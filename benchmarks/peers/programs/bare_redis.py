"""The floor on Redis: redis-py with hiredis and the least commands that could be correct, with no task, check or lease.

Jobs move to a list of their worker's own before they run, and leave it when their results are stored, all of a batch at
once: a crash loses none. A batch is ended and the next one taken in one round trip. A single job is waited for by
BLMOVE. Source: https://redis.io/docs/latest/commands/lmove/ ("Reliable queue").
"""

import os
import sys
from collections.abc import Sequence

from redis import Redis

from benchmarks.peers.journal import note
from benchmarks.peers.producing import URL

_BATCH = 500
#: KEYS: the waiting jobs, those taken by this worker; ARGV: how many to take.
_TAKE = """
local taken = redis.call('RPOP', KEYS[1], ARGV[1])
if taken then redis.call('LPUSH', KEYS[2], unpack(taken)) end
return taken
"""
#: As large as an envelope of penstock's with one number as argument.
_BODY = b"%012d" + b"." * 60


class Program:
    def prepare(self) -> None:
        self._redis = Redis.from_url(os.environ[URL])

    def enqueue(self, number: int) -> None:
        self._redis.lpush("jobs", _BODY % number)

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self._redis.lpush("jobs", *(_BODY % number for number in numbers))

    def enqueue_hold(self, number: int) -> None:
        raise NotImplementedError(f"Job {number} would be lost: the floor has no recovery.")

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:  # noqa: ARG002
        return [[sys.executable, "-m", "benchmarks.peers.programs.bare_redis"]] * processes


def run() -> None:
    """Run jobs for ever."""
    redis = Redis.from_url(os.environ[URL])
    own = f"taken:{os.getpid()}"
    take = redis.register_script(_TAKE)
    ended: list[bytes] = []
    while True:
        pipe = redis.pipeline()
        if ended:
            pipe.hset("results", mapping={body[:12]: b"1" for body in ended})
            pipe.delete(own)
        take(["jobs", own], [_BATCH], client=pipe)
        ended = pipe.execute()[-1] or [redis.blmove("jobs", own, 0, "RIGHT", "LEFT")]
        for body in ended:
            note(int(body[:12]))


if __name__ == "__main__":
    run()
