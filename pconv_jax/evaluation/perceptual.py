"""LPIPS and FID of composites, with weights that the user provides.

Images are uint8 `[N, H, W, C]`; grey images are repeated to three channels.
"""

import functools
import hashlib
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax import errors
from pconv_jax.evaluation import frechet
from pconv_jax.models import inception, lpips

LPIPS, FID = "lpips", "fid"  # Names in records and tables. LPIPS is per example, FID per set of examples.


class Lpips:
    """The LPIPS distance with a file of weights.

    Attributes:
      about: the network and the SHA-256 of the weights file, for the report.

    Raises:
      UserError: the weights file is absent or unfit (`lpips.load`).
    """

    def __init__(self, path: str):
        module, params, linear = lpips.load(path)
        self.about = {"network": module.network, "version": "0.1", "weights_sha256": _digest(path)}
        features = jax.jit(lambda params, x: module.apply({"params": params}, 2 * _rgb(x) - 1))
        self._features = functools.partial(
            features, params
        )  # Parameters are arguments, because XLA would take long to fold them as constants.
        self._distance = jax.jit(lambda a, b: lpips.distance(a, b, linear))

    def check_size(self, height: int, width: int):
        """Checks that images are large enough for the network.

        Args:
          height: height of the images, in pixels.
          width: width of the images, in pixels.

        Raises:
          UserError: they are too small.
        """
        network, least = self.about["network"], lpips.SMALLEST[self.about["network"]]
        if min(height, width) < least:
            raise errors.UserError(
                f"images are {height}x{width}; LPIPS with {network} needs {least}x{least} or more: leave "
                "--lpips_weights out"
            )

    def features(self, images: np.ndarray):
        """Computes the features that `distance` compares, for images uint8 `[N, H, W, C]`."""
        return self._features(images)

    def distance(self, features, others) -> np.ndarray:
        """Computes the LPIPS distance.

        Args:
          features: features of the first images.
          others: features of the second images.

        Returns:
          float32 `[N]`.
        """
        return np.asarray(self._distance(features, others))


class Fid:
    """The Frechet inception distance of each method's composites to the originals.

    Attributes:
      about: the network and the SHA-256 of the weights file, for the report.

    Raises:
      UserError: the weights file is absent or unfit (`inception.load`).
    """

    def __init__(self, path: str):
        module, params = inception.load(path)
        self.about = {"network": "inception-2015-12-05", "weights_sha256": _digest(path)}
        features = jax.jit(lambda params, x: module.apply({"params": params}, _rgb(x)))
        self._features = functools.partial(features, params)
        self._batches, self._originals = {}, {}  # Features by method; Gaussians of the originals by members.

    def add(self, method: str | None, images: np.ndarray, count: int):
        """Adds the features of a batch.

        Args:
          method: name of the method whose composites these are; None for the originals.
          images: uint8 `[N, H, W, C]`, of the same shape in every call.
          count: number of images that count; the rest is padding.
        """
        self._batches.setdefault(method, []).append(np.asarray(self._features(images))[:count])

    def distance(self, method: str, members: np.ndarray) -> float | None:
        """Computes the Frechet distance over some of the examples.

        Args:
          method: name of a method that was added.
          members: bool `[examples]`, True for the examples that count.

        Returns:
          The distance; None for a single example, and for a subset of fewer than `frechet.RELIABLE` examples.
        """
        count = int(members.sum())
        if count < 2 or (count < frechet.RELIABLE and not members.all()):
            return None
        key = members.tobytes()
        if key not in self._originals:
            self._originals[key] = self._gaussian(None, members)
        return frechet.distance(self._gaussian(method, members), self._originals[key])

    def _gaussian(self, method, members):
        return frechet.gaussian(np.concatenate(self._batches[method])[members])


def measures(lpips_weights: str | None, fid_weights: str | None, size: tuple[int, int]) -> dict[str, Lpips | Fid]:
    """Loads the measures whose weights are given.

    Args:
      lpips_weights: path of the weights for LPIPS, or None.
      fid_weights: path of the weights for FID, or None.
      size: height and width of the images.

    Returns:
      The measures by name.

    Raises:
      UserError: A weights file is absent or unfit, or the images are too small.
    """
    loaded = {}
    if lpips_weights:
        loaded[LPIPS] = Lpips(lpips_weights)
        loaded[LPIPS].check_size(*size)
    if fid_weights:
        loaded[FID] = Fid(fid_weights)
    return loaded


def notes(names: Collection[str], count: int) -> tuple[str, ...]:
    """Returns remarks on measures that are left out, and on the reliability of FID.

    Args:
      names: names of the measures that were computed.
      count: number of examples.

    Returns:
      One sentence or more per remark.
    """
    missing = [
        f"{name.upper()}: --{name}_weights=FILE, made by {module.TOOL}"
        for name, module in ((LPIPS, lpips), (FID, inception))
        if name not in names
    ]
    remarks = [f"Left out for want of weights: {'; '.join(missing)}."] if missing else []
    if FID in names:
        remarks.append(f"FID: the {count} composites as a set against the {count} originals, without an interval.")
        if count < frechet.RELIABLE:
            remarks[-1] += (
                f" Of fewer than {frechet.RELIABLE} images it is biased upwards (the covariance of "
                f"{inception.FEATURES} features has no full rank): compare it only with one of as many images."
            )
    return tuple(remarks)


def _rgb(images):
    """Converts images to float32 `[N, H, W, 3]` in [0, 1]."""
    return jnp.broadcast_to(images.astype(jnp.float32) / 255, (*images.shape[:3], 3))


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
