"""Confidence intervals of means, and paired comparisons on the same examples.

Examples are treated as independent. Many crops of few photographs are not: their intervals hold for other crops and
masks of the same photographs, not for other photographs. With few examples the bootstrap is somewhat too narrow: with
16 examples from a normal distribution, 92 % of the 95 % intervals contain the mean.
"""

import dataclasses

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95

_SEED = 0  # Every table uses the same resamples, so two evaluations of the same scores agree.
_CHUNK = 2_000_000  # Values that are resampled at once, to bound the memory.


def bootstrap(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the percentile bootstrap interval of the mean over examples.

    Args:
      values: array `[examples, columns]` with at least two examples. Each resample takes whole rows, so the columns
        stay paired.

    Returns:
      `(low, high)`, `[columns]` each, at level `LEVEL` from `RESAMPLES` resamples.

    Raises:
      ValueError: there are fewer than two examples.
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
    """Result of a paired comparison.

    Attributes:
      difference: mean difference over the pairs.
      low: lower end of its bootstrap interval; None for a single pair.
      high: upper end.
      p: p-value of the two-sided Wilcoxon signed-rank test.
    """

    difference: float
    low: float | None
    high: float | None
    p: float


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compares the scores of two methods on the same examples.

    Pairs without a difference are left out of the test (Wilcoxon 1945); if none remains, p is 1.

    Args:
      first: scores `[examples]`.
      second: scores `[examples]` of the same examples in the same order.

    Returns:
      The comparison of `first - second`.
    """
    import scipy.stats  # The import takes a third of a second, which training without a comparison avoids.

    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    p = float(scipy.stats.wilcoxon(difference[difference != 0]).pvalue) if difference.any() else 1.0
    if len(difference) < 2:
        return Paired(float(difference.mean()), None, None, p)
    low, high = bootstrap(difference[:, None])
    return Paired(float(difference.mean()), float(low[0]), float(high[0]), p)


def student(values: np.ndarray) -> tuple[float, float] | None:
    """Computes Student's t interval of the mean of few values, such as one per seed.

    A bootstrap of three values is far too narrow. Student's interval is exact for normally distributed values.

    Args:
      values: array `[n]`.

    Returns:
      `(low, high)` at level `LEVEL`, or None for a single value.
    """
    import scipy.stats  # The import takes a third of a second, which training without a comparison avoids.

    count = len(values)
    if count < 2:
        return None
    error = np.std(values, ddof=1) / np.sqrt(count)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
    return float(np.mean(values)) - half, float(np.mean(values)) + half
