"""How far a mean can be trusted: bootstrap intervals, and paired comparisons on the same examples.

Examples are taken to be independent of each other. Many crops of few photographs are not: the intervals then are those
of other crops and masks of these photographs, not of other photographs. Of few examples they are somewhat too narrow:
of 16 from a normal distribution, 92 % of the intervals hold the mean.
"""

import dataclasses

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95

_SEED = 0  # the same resamples for every table: two evaluations agree
_CHUNK = 2_000_000  # values at once


def bootstrap(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean over examples, `LEVEL` wide, from `RESAMPLES` resamples.

    Args:
      values: `[examples, columns]`, of two examples or more; each resample takes whole rows.

    Returns:
      `(low, high)`, `[columns]` each.

    Raises:
      ValueError: fewer than two examples, of which nothing can be said.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} example has no interval; needs 2")
    rng, means = np.random.default_rng(_SEED), []
    for start in range(0, RESAMPLES, step := max(1, _CHUNK // values.size)):
        chosen = rng.integers(0, count, (min(step, RESAMPLES - start), count))
        means.append(values[chosen].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


@dataclasses.dataclass(frozen=True)
class Paired:
    """A mean difference over pairs, its bootstrap interval (None of one pair), and the p-value of the test."""

    difference: float
    low: float | None
    high: float | None
    p: float


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compares two methods on the same examples: `first - second`, two-sided Wilcoxon signed-rank test.

    Pairs without a difference do not count for the test (Wilcoxon 1945); with none left p is 1.

    Args:
      first, second: scores `[examples]`, in the same order.
    """
    import scipy.stats  # takes a third of a second, which only comparisons should pay

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    p = float(scipy.stats.wilcoxon(difference[difference != 0]).pvalue) if difference.any() else 1.0
    if len(difference) < 2:
        return Paired(float(difference.mean()), None, None, p)
    low, high = bootstrap(difference[:, None])
    return Paired(float(difference.mean()), float(low[0]), float(high[0]), p)


def student(values: np.ndarray) -> tuple[float, float] | None:
    """Interval of the mean of few values, such as one per seed, `LEVEL` wide, by Student's t distribution.

    A bootstrap of three values is far too narrow; this is right where they are drawn from a normal distribution.

    Args:
      values: `[n]`.

    Returns:
      `(low, high)`, or None of a single value.
    """
    import scipy.stats  # takes a third of a second, which only comparisons should pay

    count = len(values)
    if count < 2:
        return None
    error = np.std(values, ddof=1) / np.sqrt(count)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
    return float(np.mean(values)) - half, float(np.mean(values)) + half
