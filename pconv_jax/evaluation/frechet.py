"""Frechet inception distance (Heusel et al., NeurIPS 2017): between two sets of images, as Gaussians of features.

`|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))` of means and covariances (with n - 1), in float64.
"""

import numpy as np

from pconv_jax.models import inception

RELIABLE = inception.FEATURES + 1  # images from which a covariance of so many features can have full rank


def distance(features: np.ndarray, others: np.ndarray) -> float:
    """Frechet distance of two sets of features, `[images, features]` each, of two images or more.

    The covariances are never multiplied: with `S = A^T A` the trace of `(S1 S2)^(1/2)` is the sum of the singular
    values of `A1 A2^T`, which holds for covariances without full rank too, where matrix square roots lose digits.

    Raises:
      ValueError: fewer than two images, of which there is no covariance.
    """
    if min(len(features), len(others)) < 2:
        raise ValueError(f"{len(features)} and {len(others)} images have no covariances; needs 2 of each")
    features, others = (np.asarray(x, np.float64) for x in (features, others))
    shift = features.mean(axis=0) - others.mean(axis=0)
    first, second = _root(features), _root(others)
    cross = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    # Rounding can make the distance of equal sets negative.
    return max(0.0, float(shift @ shift + np.square(first).sum() + np.square(second).sum() - 2 * cross))


def _root(features):
    """`A` with `A^T A` the covariance, of as few rows as there can be."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred
