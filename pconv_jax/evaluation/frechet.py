"""Frechet inception distance (Heusel et al., NeurIPS 2017): between two sets of images, as Gaussians of features.

`|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))` of means and covariances (with n - 1), in float64.
"""

from typing import NamedTuple

import numpy as np

from pconv_jax.models import inception

RELIABLE = inception.FEATURES + 1  # images from which a covariance of so many features can have full rank


class Gaussian(NamedTuple):
    """Of a set of features.

    Attributes:
      mean: `[features]`.
      root: `A` `[at most features, features]` with `A^T A` the covariance.
    """

    mean: np.ndarray
    root: np.ndarray


def gaussian(features: np.ndarray) -> Gaussian:
    """The Gaussian of features `[images, features]` of two images or more.

    Raises:
      ValueError: fewer than two images, of which there is no covariance.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} images have no covariance; needs 2")
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    return Gaussian(mean, np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred)


def distance(one: Gaussian, other: Gaussian) -> float:
    """Frechet distance.

    The covariances are never multiplied: with `S = A^T A` the trace of `(S1 S2)^(1/2)` is the sum of the singular
    values of `A1 A2^T`, which holds for covariances without full rank too, where matrix square roots lose digits.
    """
    shift = one.mean - other.mean
    cross = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    # Rounding can make the distance of equal sets negative.
    return max(0.0, float(shift @ shift + np.square(one.root).sum() + np.square(other.root).sum() - 2 * cross))
