"""LPIPS and FID of composites, by networks whose weights the user gave. uint8 `[N, H, W, C]`, grey as three equal."""

import functools
import hashlib
from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.evaluation import frechet
from pconv_jax.models import inception, lpips

LPIPS, FID = "lpips", "fid"  # names of the measures; the former of each example, the latter of a set


class Lpips:
    """LPIPS by a file of weights; see `lpips.load` for what it raises.

    Attributes:
      about: the network and the file's SHA-256.
    """

    def __init__(self, path: str):
        module, params, linear = lpips.load(path)
        self.about = {"network": module.network, "version": "0.1", "weights_sha256": _digest(path)}
        features = jax.jit(lambda params, x: module.apply({"params": params}, 2 * _rgb(x) - 1))
        self._features = functools.partial(features, params)  # an argument: XLA would fold a constant for long
        self._distance = jax.jit(lambda a, b: lpips.distance(a, b, linear))

    def check_size(self, height: int, width: int):
        """Raises ValueError where images are too small for the network."""
        network, least = self.about["network"], lpips.SMALLEST[self.about["network"]]
        if min(height, width) < least:
            raise ValueError(
                f"images are {height}x{width}; LPIPS with {network} needs {least}x{least} or more: leave "
                "--lpips_weights out"
            )

    def features(self, images: np.ndarray):
        """What `distance` compares."""
        return self._features(images)

    def distance(self, features, others) -> np.ndarray:
        """`[N]`, from the features of both images."""
        return np.asarray(self._distance(features, others))


class Fid:
    """Collects Inception's features, and says how far a method's composites are from the originals as a set.

    Attributes:
      about: the file's SHA-256.
    """

    def __init__(self, path: str):
        module, params = inception.load(path)
        self.about = {"network": "inception-2015-12-05", "weights_sha256": _digest(path)}
        features = jax.jit(lambda params, x: module.apply({"params": params}, _rgb(x)))
        self._features = functools.partial(features, params)
        self._found, self._originals = {}, {}  # the latter by members: all methods are held against the same

    def add(self, method: str | None, images: np.ndarray, count: int):
        """The next composites of a method, or the next originals where `method` is None.

        Args:
          method: whose.
          images: a batch of the shape of all others.
          count: how many of the batch there are; the others fill it up.
        """
        self._found.setdefault(method, []).append(np.asarray(self._features(images))[:count])

    def distance(self, method: str, members: np.ndarray) -> float | None:
        """Frechet distance over some of the examples.

        Args:
          method: that was added.
          members: bool `[examples]`.

        Returns:
          The distance; None of a part of the examples that is too small for it (`frechet.RELIABLE`), and of one.
        """
        count = int(members.sum())
        if count < 2 or (count < frechet.RELIABLE and not members.all()):
            return None
        key = members.tobytes()
        if key not in self._originals:
            self._originals[key] = self._gaussian(None, members)
        return frechet.distance(self._gaussian(method, members), self._originals[key])

    def _gaussian(self, method, members):
        return frechet.gaussian(np.concatenate(self._found[method])[members])


def measures(lpips_weights: str | None, fid_weights: str | None, size: tuple[int, int]) -> dict[str, Lpips | Fid]:
    """Those whose weights are given, by name.

    Args:
      lpips_weights, fid_weights: paths.
      size: height and width of the images.

    Raises:
      FileNotFoundError, ValueError: wrong weights, or images that are too small.
    """
    found = {}
    if lpips_weights:
        found[LPIPS] = Lpips(lpips_weights)
        found[LPIPS].check_size(*size)
    if fid_weights:
        found[FID] = Fid(fid_weights)
    return found


def notes(given: Collection[str], count: int) -> tuple[str, ...]:
    """What is left out and what would add it, and how far FID can be trusted.

    Args:
      given: names of the measures.
      count: of examples.
    """
    missing = [
        f"{name.upper()}: --{name}_weights=FILE, made by {module.TOOL}"
        for name, module in ((LPIPS, lpips), (FID, inception))
        if name not in given
    ]
    told = [f"Left out for want of weights: {'; '.join(missing)}."] if missing else []
    if FID in given:
        told.append(f"FID: the {count} composites as a set against the {count} originals, without an interval.")
        if count < frechet.RELIABLE:
            told[-1] += (
                f" Of fewer than {frechet.RELIABLE} images it is biased upwards (the covariance of "
                f"{inception.FEATURES} features has no full rank): compare it only with one of as many images."
            )
    return tuple(told)


def _rgb(images):
    """float32 `[N, H, W, 3]` in [0, 1]."""
    return jnp.broadcast_to(images.astype(jnp.float32) / 255, (*images.shape[:3], 3))


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
