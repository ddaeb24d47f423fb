"""Frechet inception distance (Heusel et al., NeurIPS 2017) between two sets of images.

Both sets are described by a Gaussian of their features. The distance is `|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`
of the means and the covariances (divided by n - 1), in float64.
"""

from typing import NamedTuple

import numpy as np

from pconv_jax.models import inception

RELIABLE = inception.FEATURES + 1  # Number of images from which on the covariance can have full rank.


class Gaussian(NamedTuple):
    """A Gaussian, described by its mean and a root of its covariance.

    Attributes:
      mean: float64 `[features]`.
      root: float64 matrix A `[rows, features]` whose `A^T A` is the covariance; it has at most as many rows as columns.
    """

    mean: np.ndarray
    root: np.ndarray


def gaussian(features: np.ndarray) -> Gaussian:
    """Fits a Gaussian to features `[images, features]`.

    Raises:
      ValueError: there are fewer than two images, so there is no covariance.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} images have no covariance; needs 2")
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    return Gaussian(mean, np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred)


def distance(one: Gaussian, other: Gaussian) -> float:
    """Computes the Frechet distance between two Gaussians.

    The covariances are never multiplied. With `S = A^T A`, the trace of `(S1 S2)^(1/2)` is the sum of the singular
    values of `A1 A2^T`. This also holds for covariances without full rank, where matrix square roots lose digits.

    Args:
      one: the first Gaussian.
      other: the second Gaussian.

    Returns:
      The distance, at least 0.
    """
    shift = one.mean - other.mean
    cross = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    # Rounding can make the distance of equal sets negative.
    return max(0.0, float(shift @ shift + np.square(one.root).sum() + np.square(other.root).sum() - 2 * cross))
