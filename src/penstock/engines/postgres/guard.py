"""A guard against a server's clock that is set forward: nothing is voided until live workers could renew."""

from collections.abc import Callable

_LONGEST_LEAP_MS = 2000


class ClockGuard:
    """Compares the server's time with this process's own clock, from one tend to the next."""

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None
        self._spares_until_s = 0.0

    def trusts(self, store_ms: int, own_s: float, longest_lease_ms: Callable[[], int]) -> bool:
        """Say whether leases that have lapsed by the server's time may be voided.

        Args:
            own_s: the time of this process's own clock, which is never set.
            longest_lease_ms: asked for where the server's clock has jumped: so long nothing is voided.
        """
        before, self._seen = self._seen, (store_ms, own_s)
        if before is not None and (store_ms - before[0]) - (own_s - before[1]) * 1000 > _LONGEST_LEAP_MS:
            self._spares_until_s = own_s + longest_lease_ms() / 1000
        return own_s >= self._spares_until_s
