"""How slowly a source may send before it is left for the next one."""

from collections import deque

from mnist_cnn.prepare.sources import SourceError

# A server that sends a byte now and then never runs into a time-out. In any minute, a minute's bytes at this speed
# must come: what came fast before is no credit for later. The largest archive, 26 MB, takes 14 minutes at this speed.
PATIENCE_S = 60.0
SLOWEST_BYTES_PER_S = 32 * 1024


def longest_s(size: int) -> float:
    """Seconds that ``size`` bytes may take as a whole: a minute, and their time at the least speed."""
    return PATIENCE_S + size / SLOWEST_BYTES_PER_S


class Pace:
    """Watches what has come since the start."""

    def __init__(self) -> None:
        self._marks = deque([(0.0, 0)])

    def check(self, count: int, seconds: float) -> None:
        """Take note that ``count`` bytes have come in all, ``seconds`` after the start.

        Raises:
            SourceError: too few of them have come in the last minute.
        """
        self._marks.append((seconds, count))
        # The first mark stays the newest one that is a minute old.
        while self._marks[1][0] <= seconds - PATIENCE_S:
            self._marks.popleft()
        since, before = self._marks[0]
        if seconds - since >= PATIENCE_S and count - before < PATIENCE_S * SLOWEST_BYTES_PER_S:
            raise SourceError(f"too slow ({count - before:,} bytes in {seconds - since:.0f} s, {count:,} in all)")
