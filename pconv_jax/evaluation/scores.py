"""Scores of fillings: of the composite, clamped and rounded to uint8, as papers do, of its hole, and of the output."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax.evaluation import baselines, inputs, perceptual
from pconv_jax.ops import compositing, metrics

NETWORK = "network"
METRICS = ("l1_percent", "psnr", "ssim", "hole_psnr", "raw_psnr")
ABOUT = ("name", "image", "mask", "bucket", "hole_area", "touches_border")

Fill = Callable[[list[inputs.Example]], np.ndarray]
"""Examples -> what a method makes of them, all pixels, uint8 `[N, H, W, C]`."""


def network(predict, variables, batch_size: int) -> Fill:
    """A network as a method.

    Args:
      predict: `(variables, image, mask) -> (output, composite)`, compiled for `batch_size`.
      variables: of the network.
      batch_size: of every call; fewer examples are filled up, and the filling is not returned.
    """

    def fill(examples):
        image, mask = stack(examples)
        output, _ = predict(variables, fill_up(image, batch_size), fill_up(mask, batch_size))
        return to_uint8(output)[: len(examples)]

    return fill


def baseline(name: str) -> Fill:
    """One of `baselines.BASELINES` as a method."""
    return lambda examples: np.stack([baselines.BASELINES[name](e.image, e.mask) for e in examples])


def score(
    methods: Mapping[str, Fill],
    batches: Iterable[list[inputs.Example]],
    lpips: perceptual.Lpips | None = None,
    fid: perceptual.Fid | None = None,
) -> list[dict]:
    """Scores methods on the same examples, one batch after another.

    Args:
      methods: by name.
      batches: of examples (`inputs.batches`), none larger than the first.
      lpips: adds `perceptual.LPIPS` to the records.
      fid: is handed all composites and originals.

    Returns:
      One record per method and example, by method: `{"method", *ABOUT, *METRICS}`. `psnr`, `ssim`, `l1_percent` and
      `lpips` are of the composite, `hole_psnr` is over its hole alone, `raw_psnr` of all that the method returned.
    """
    records, size, done = {method: [] for method in methods}, 0, 0
    for batch in batches:
        size, done = max(size, len(batch)), done + len(batch)
        image, mask = stack(batch)
        originals = fill_up(image, size)
        seen = lpips and lpips.features(originals)
        if fid:
            fid.add(None, originals, len(batch))
        for method, fill in methods.items():
            raw = fill(batch)
            values = _measure(*(fill_up(x, size) for x in (raw, image, mask)))
            composites = fill_up(np.where(mask, image, raw), size)
            if lpips:
                values[perceptual.LPIPS] = lpips.distance(lpips.features(composites), seen)
            if fid:
                fid.add(method, composites, len(batch))
            records[method] += _records(method, batch, values)
        logging.log_every_n_seconds(logging.INFO, "scored %d examples", 30, done)
    return [record for of_method in records.values() for record in of_method]


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
    """Mean PSNR of a network's composites, and nothing else: for checkpoints.

    Args:
      predict, variables, batch_size: as for `network`.
      batches: of `pipeline.evaluation_batches`.
    """
    values = []
    for batch in batches:
        image, mask = (fill_up(batch[name], batch_size) for name in ("image", "mask"))
        output, _ = predict(variables, image, mask)
        values.append(np.asarray(_psnr(to_uint8(output), image, mask))[: len(batch["image"])])
    return float(np.mean(np.concatenate(values), dtype=np.float64))


def stack(examples: list[inputs.Example]) -> tuple[np.ndarray, np.ndarray]:
    """`(image, mask)` of a batch."""
    return np.stack([e.image for e in examples]), np.stack([e.mask for e in examples])


def to_uint8(output) -> np.ndarray:
    """Float in units of white -> clamped and rounded."""
    return np.round(np.clip(np.asarray(output), 0, 1) * 255).astype(np.uint8)


def fill_up(x, count):
    """Repeats the first example so that every batch has the compiled shape."""
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
