"""What a checker finds."""

from msgspec import Struct

from tests.histories.history import Op


class Violation(Struct, frozen=True):
    """An invariant that does not hold, of which job, and the acts that show it."""

    invariant: str
    job: str
    what: str
    ops: tuple[Op, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.invariant}: job {self.job}: {self.what}", *(f"    {op}" for op in self.ops)])
