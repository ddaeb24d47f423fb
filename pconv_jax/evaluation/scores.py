"""Scores of fillings on a fixed set of images and masks: the composite, clamped and rounded to uint8, as papers do."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.data import masks
from pconv_jax.evaluation import baselines
from pconv_jax.ops import metrics

NETWORK = "network"
METRICS = ("l1_percent", "psnr", "ssim")


def network(predict, variables, batches: Iterator[dict], batch_size: int, names: tuple[str, ...]) -> list[dict]:
    """Scores the network's composites: one record per image.

    Args:
      predict: `(variables, image, mask) -> (output, composite)`, compiled for `batch_size`.
      variables: of the network.
      batches: of `pipeline.evaluation_batches`; a shorter last one is filled up and the filling not counted.
      batch_size: of every call.
      names: of the photographs, by record.

    Returns:
      `{"method", "example", "image", "bucket", "hole_area", "touches_border", "l1_percent", "psnr", "ssim"}` each.
    """
    records = []
    for batch in batches:
        count = len(batch["image"])
        full = {name: fill_up(batch[name], batch_size) for name in ("image", "mask")}
        _, filled = predict(variables, full["image"], full["mask"])
        filled = np.round(np.asarray(filled)[:count] * 255).astype(np.uint8)
        records += _score(NETWORK, filled, batch, names, len(records))
    return records


def baseline(method: str, batches: Iterator[dict], names: tuple[str, ...]) -> list[dict]:
    """Scores one of `baselines.BASELINES` on the same images and masks; records as `network` returns them."""
    records, fill = [], baselines.BASELINES[method]
    for batch in batches:
        filled = np.stack([fill(i, m) for i, m in zip(batch["image"], batch["mask"], strict=True)])
        records += _score(method, filled, batch, names, len(records))
    return records


def _score(method, filled, batch, names, first):
    """Records of a batch of uint8 composites."""
    values = {name: np.asarray(value) for name, value in _measure(filled, batch["image"]).items()}
    return [
        {
            "method": method,
            "example": first + i,
            "image": names[int(batch["record"][i])],
            "bucket": int(batch["bucket"][i]),
            "hole_area": masks.hole_area(batch["mask"][i]),
            "touches_border": masks.touches_border(batch["mask"][i]),
            **{name: float(value[i]) for name, value in values.items()},
        }
        for i in range(len(filled))
    ]


@jax.jit
def _measure(image, target):
    image, target = image.astype(jnp.float32), target.astype(jnp.float32)
    return {name: getattr(metrics, name)(image, target) for name in METRICS}


def fill_up(x, count):
    """Repeats the first example so that every batch has the compiled shape."""
    return np.concatenate([x, np.broadcast_to(x[:1], (count - len(x), *x.shape[1:]))])
