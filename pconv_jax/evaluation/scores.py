"""Scores of inpainting methods on an evaluation set.

As in papers, the composite is clamped and rounded to uint8 before it is scored. The hole alone and the raw output are
scored beside it. Images are uint8 `[N, H, W, C]`, masks uint8 `[N, H, W, 1]` with 1 = valid.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax.evaluation import baselines, inputs, perceptual
from pconv_jax.inpainting import inpainter as inpainting
from pconv_jax.ops import compositing, metrics

NETWORK = "network"
METRICS = ("l1_percent", "psnr", "ssim", "hole_psnr", "raw_psnr")
ABOUT = ("name", "image", "mask", "bucket", "hole_area", "touches_border")

Fill = Callable[[list[inputs.Example]], np.ndarray]
"""A method: a function from examples to its predictions for all pixels, uint8 `[N, H, W, C]`."""


def network(predict, variables, batch_size: int) -> Fill:
    """Makes a method of a network.

    Args:
      predict: `(variables, image, mask) -> (output, composite)`, compiled for `batch_size`.
      variables: the variables of the network.
      batch_size: batch size of every call; shorter batches are padded, and the padding is not returned.

    Returns:
      The method.
    """

    def fill(examples):
        image, mask = stack(examples)
        output, _ = predict(variables, pad(image, batch_size), pad(mask, batch_size))
        return to_uint8(output)[: len(examples)]

    return fill


def baseline(name: str) -> Fill:
    """Makes a method of one of `baselines.BASELINES`."""
    return lambda examples: np.stack([baselines.BASELINES[name](e.image, e.mask) for e in examples])


def inpainter(fill: inpainting.Inpainter) -> Fill:
    """Makes a method of an Inpainter: its prediction for all pixels, image by image."""
    return lambda examples: np.stack([to_uint8(fill.predict(e.image, e.mask)) for e in examples])


class Timed:
    """A method that measures its own time; the first call, which may compile, is left out if there are others.

    Attributes:
      seconds: per example.
    """

    def __init__(self, fill: Fill):
        self._fill, self._calls = fill, []

    def __call__(self, examples: list[inputs.Example]) -> np.ndarray:
        """Calls the method."""
        started = time.perf_counter()
        result = self._fill(examples)
        self._calls.append((time.perf_counter() - started, len(examples)))
        return result

    @property
    def seconds(self) -> float:
        """Returns the mean time per example, in seconds."""
        calls = self._calls[1:] or self._calls
        return sum(seconds for seconds, _ in calls) / sum(count for _, count in calls)


def score(
    methods: Mapping[str, Fill],
    batches: Iterable[list[inputs.Example]],
    lpips: perceptual.Lpips | None = None,
    fid: perceptual.Fid | None = None,
) -> list[dict]:
    """Scores methods on the same examples, batch by batch.

    Args:
      methods: the methods by name.
      batches: batches of examples (`inputs.batches`); none is larger than the first.
      lpips: adds the LPIPS distance to the records, if given.
      fid: collects the features of all composites and originals, if given.

    Returns:
      One record per method and example, sorted by method: `{"method", *ABOUT, *METRICS}`. `psnr`, `ssim`,
      `l1_percent` and `lpips` measure the composite, `hole_psnr` its hole alone, and `raw_psnr` the raw output.
    """
    records, size, done = {method: [] for method in methods}, 0, 0
    for batch in batches:
        size, done = max(size, len(batch)), done + len(batch)
        image, mask = stack(batch)
        originals = pad(image, size)
        target_features = lpips and lpips.features(originals)
        if fid:
            fid.add(None, originals, len(batch))
        for method, fill in methods.items():
            raw = fill(batch)
            values = _measure(*(pad(x, size) for x in (raw, image, mask)))
            composites = pad(np.where(mask, image, raw), size)
            if lpips:
                values[perceptual.LPIPS] = lpips.distance(lpips.features(composites), target_features)
            if fid:
                fid.add(method, composites, len(batch))
            records[method] += _records(method, batch, values)
        logging.log_every_n_seconds(logging.INFO, "scored %d examples", 30, done)
    return [record for method_records in records.values() for record in method_records]


def _records(method, batch, values):
    values = {name: np.asarray(values[name]).tolist() for name in (*METRICS, perceptual.LPIPS) if name in values}
    return [
        {
            "method": method,
            **{key: example.about[key] for key in ABOUT},
            **{name: value[i] for name, value in values.items()},
        }
        for i, example in enumerate(batch)
    ]


def psnr(predict, variables, batches: Iterable[dict], batch_size: int) -> float:
    """Computes the mean PSNR of a network's composites, by which checkpoints are ranked.

    Args:
      predict: `(variables, image, mask) -> (output, composite)`, compiled for `batch_size`.
      variables: the variables of the network.
      batches: batches of `pipeline.evaluation_batches`.
      batch_size: batch size of every call; shorter batches are padded.

    Returns:
      The mean over all examples, in dB.
    """
    values = []
    for batch in batches:
        image, mask = (pad(batch[name], batch_size) for name in ("image", "mask"))
        output, _ = predict(variables, image, mask)
        values.append(np.asarray(_psnr(to_uint8(output), image, mask))[: len(batch["image"])])
    return float(np.mean(np.concatenate(values), dtype=np.float64))


def stack(examples: list[inputs.Example]) -> tuple[np.ndarray, np.ndarray]:
    """Stacks the images and the masks of examples into `(image, mask)`."""
    return np.stack([e.image for e in examples]), np.stack([e.mask for e in examples])


def to_uint8(output) -> np.ndarray:
    """Clamps values to [0, 1] and rounds them to uint8."""
    return np.round(np.clip(np.asarray(output), 0, 1) * 255).astype(np.uint8)


def pad(x, count):
    """Pads a batch to a size with copies of its first example.

    Args:
      x: array `[N, ...]` with N at most `count`.
      count: batch size to reach.

    Returns:
      Array `[count, ...]`.
    """
    return np.concatenate([x, np.broadcast_to(x[:1], (count - len(x), *x.shape[1:]))])


@jax.jit
def _measure(raw, image, mask):
    raw, image = raw.astype(jnp.float32), image.astype(jnp.float32)
    filled = compositing.composite(image, raw, mask)
    return {
        "l1_percent": metrics.l1_percent(filled, image),
        "psnr": metrics.psnr(filled, image),
        "ssim": metrics.ssim(filled, image),
        "hole_psnr": metrics.hole_psnr(raw, image, mask),
        "raw_psnr": metrics.psnr(raw, image),
    }


@jax.jit
def _psnr(raw, image, mask):
    raw, image = raw.astype(jnp.float32), image.astype(jnp.float32)
    return metrics.psnr(compositing.composite(image, raw, mask), image)
