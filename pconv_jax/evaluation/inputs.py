"""Evaluation sets: pairs of an image and a mask, each with a name that depends on its pixels.

An evaluation set is a sequence of `Example`. It is drawn from a config (`Drawn`) or read from a manifest
(evaluation/manifest.py).
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import grain
import ml_collections
import numpy as np

from pconv_jax import errors
from pconv_jax.data import masks, pipeline
from pconv_jax.training import build, rundir


@dataclasses.dataclass(frozen=True)
class Example:
    """An image and its mask.

    Attributes:
      image: uint8 `[H, W, C]`.
      mask: uint8 `[H, W, 1]`, 1 = valid.
      about: description with `name`, `image` (the photograph), `mask` (its file, or "seed:index" of a generated one),
        `crop` ("seed:index"), `bucket` (index into `pipeline.BUCKETS`, or None), `hole_area` (fraction of the image),
        `touches_border`, and the SHA-256 of both arrays.
    """

    image: np.ndarray
    mask: np.ndarray
    about: dict

    @property
    def name(self) -> str:
        """Returns the name of the example, which is also the stem of its files."""
        return self.about["name"]


class Drawn:
    """The evaluation set of a run."""

    def __init__(self, evaluation_set: pipeline.EvaluationSet):
        self._chosen, self._names = evaluation_set, evaluation_set.source.names
        self._seed = evaluation_set.seed
        self._as_is = evaluation_set.family.kind == "folder" and not evaluation_set.family.augment

    def __len__(self):
        return len(self._chosen)

    def __getitem__(self, index):
        example = self._chosen[index]
        drawn = f"{self._seed}:{index}"
        mask = example["mask_file"] if self._as_is else f"{example['mask_file']} {drawn}".strip()
        origin = {"image": self._names[int(example["record"])], "mask": mask, "crop": drawn}
        return describe(example["image"], example["mask"], index, origin)


def describe(image: np.ndarray, mask: np.ndarray, index: int, origin: dict) -> Example:
    """Makes an example and derives its name, hole area and hashes from the pixels.

    Args:
      image: uint8 `[H, W, C]`.
      mask: uint8 `[H, W, 1]`, 1 = valid.
      index: position in the evaluation set.
      origin: `image`, `mask` and `crop` of `Example.about`.

    Returns:
      The example.
    """
    image_sha, mask_sha = (hashlib.sha256(np.ascontiguousarray(x)).hexdigest() for x in (image, mask))
    # The digest is part of the name, so that results for other inputs cannot be mistaken for results for these.
    digest = hashlib.sha256(f"{image_sha} {mask_sha}".encode()).hexdigest()
    about = {
        "name": f"{index:05d}_{digest[:8]}",
        **origin,
        "bucket": pipeline.bucket(mask),
        "hole_area": masks.hole_area(mask),
        "touches_border": masks.touches_border(mask),
        "image_sha256": image_sha,
        "mask_sha256": mask_sha,
    }
    return Example(image, mask, about)


def batches(inputs: Sequence[Example], batch_size: int, threads: int = 2) -> Iterator[list[Example]]:
    """Yields all examples in order, in batches.

    Args:
      inputs: the evaluation set.
      batch_size: number of examples in a batch; the last batch may be shorter.
      threads: number of threads that decode and draw.

    Yields:
      Lists of examples.
    """
    dataset = grain.MapDataset.range(len(inputs)).map(inputs.__getitem__)
    batch = []
    for example in dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)):
        batch.append(example)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def fingerprint(names: Sequence[str]) -> str:
    """Returns a text that is equal for evaluation sets with the same pixels in the same order.

    Args:
      names: names of the examples, which depend on their pixels.
    """
    return f"{len(names)} examples, sha256 {hashlib.sha256(' '.join(names).encode()).hexdigest()}"


def check_same(run: str, config: ml_collections.ConfigDict, other: str, other_config: ml_collections.ConfigDict):
    """Checks that two runs are evaluated on the same inputs.

    Args:
      run: run directory, whose record of the evaluation images is compared.
      config: its config.
      other: the other run directory.
      other_config: its config.

    Raises:
      UserError: the inputs differ; the message lists the differing settings.
    """
    values, others = (_deciding(c, path) for c, path in ((config, run), (other_config, other)))
    differing = [
        f"{key}: {values[key]} in {run}, {others[key]} in {other}" for key in values if values[key] != others[key]
    ]
    if differing:
        raise errors.UserError(
            f"{run} and {other} are evaluated on other inputs ({'; '.join(differing)}): give both --manifest=DIR, or "
            "train one with the other's eval section and images"
        )


def _deciding(config, run):
    """Returns everything that decides the pixels of an evaluation set.

    Images and mask folders count by their fingerprints, so the same files may lie at different paths.
    """
    data = rundir.read_data(run)
    return {
        **{f"eval.{key}": config.eval[key] for key in ("examples", "seed", "buckets", "native")},
        "eval.crop_scale": list(config.eval.crop_scale),
        **{f"eval.masks.{key}": value for key, value in config.eval.masks.items() if key != "path"},
        "data.size": config.data.size,
        "model.channels": config.model.channels,
        "evaluation images": data.get("evaluation"),
        build.EVALUATION_MASKS: data.get(build.EVALUATION_MASKS),
    }
