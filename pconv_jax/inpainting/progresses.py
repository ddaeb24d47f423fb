"""Reports the progress of a filling: the pixels of computed tiles become a fraction of the whole."""

from collections.abc import Callable, Sequence

import numpy as np


def part(progress: Callable[[float], None] | None, index: int, count: int) -> Callable[[float], None] | None:
    """Returns a function that reports the fraction of one of several equal parts as a fraction of the whole.

    Args:
      progress: takes the fraction of the whole, or None.
      index: number of the part, from 0.
      count: number of parts.
    """
    return None if progress is None else lambda fraction: progress((index + fraction) / count)


def counter(
    cost: Callable[[np.ndarray], int], levels: Sequence[np.ndarray], report: Callable[[float], None] | None
) -> Callable[[int], None] | None:
    """Returns a function that takes the pixels of each computed tile, and reports the fraction of all levels.

    Args:
      cost: takes the wanted pixels of a level, and returns how many pixels are computed for them.
      levels: the wanted pixels of each level, bool `[H, W]`.
      report: takes the fraction; it is called with 0 at once. None counts nothing.
    """
    if report is None:
        return None
    total, done = max(1, sum(cost(wanted) for wanted in levels if wanted.any())), 0

    def computed(pixels):
        nonlocal done
        done += pixels
        report(min(1.0, done / total))

    report(0.0)
    return computed
