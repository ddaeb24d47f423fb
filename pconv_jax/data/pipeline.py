"""Turns sources into batches: source -> shuffle -> repeat -> decode -> crop, flip, mask -> shard -> batch.

Example k is a function of (seed, k), and batch k of (seed, k, batch size), for any number of threads, workers and
hosts. A run resumes by starting at another batch: there is no iterator state to save. Images and masks stay uint8 until
they are on the device. Grids (`grid_source`) are float32, are not cropped, and have NaN where no value is known.

Grain is imported inside functions, because importing it takes half a second.
"""

import dataclasses
import errno
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from pconv_jax import errors
from pconv_jax.data import masks, sources

# OpenCV's own threads would compete with grain's. Set on import, so that it holds in worker processes too.
cv2.setNumThreads(0)

# One random stream per use, so that no two uses draw the same numbers from a seed.
_ORDER, _CROP, _MASK, _EVAL_CROP, _EVAL_MASK, _EVAL_ORDER = range(6)

# Rotations counter-clockwise by 0, 90, 180 and 270 degrees.
_ROTATIONS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)

SHARED_MEMORY_FULL = (
    "/dev/shm is full, through which worker processes pass batches: enlarge it (docker run --shm-size=8g), or lower "
    "data.workers (0 uses threads and no shared memory); the same command goes on"
)
BUCKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


@dataclasses.dataclass(frozen=True)
class View:
    """Crop and augmentation settings that turn a photograph into an example.

    Attributes:
      size: side of the square example in pixels.
      scale: range of the crop's side, as a fraction of the image's shorter side.
      native: whether to cut `size` pixels as they are, without resizing; `scale` is not used then.
      flip: whether to flip horizontally at random.
      rotate: whether to rotate by a random multiple of 90 degrees.
      permute_channels: whether to put the colour channels in a random order.
    """

    size: int
    scale: tuple[float, float]
    flip: bool = False
    rotate: bool = False
    permute_channels: bool = False
    native: bool = False


def train_batches(
    source: sources.DecodedSource,
    view: View | None,
    family: masks.Family,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Returns an endless iterator of training batches that starts at batch `start`.

    Args:
      source: decoded images, or grids.
      view: crop and augmentation settings; None uses images as they are, which all have one size then.
      family: the masks to draw.
      seed: seed of order, crops, flips and masks.
      batch_size: examples per batch of this shard.
      start: index of the first batch; earlier ones are not computed.
      shard: index of this host and number of hosts.
      threads: number of threads that prepare batches, in this process or in each worker.
      workers: number of processes that prepare batches; 0 uses threads only.

    Yields:
      `image` uint8 `[B, size, size, 3]`, or float32 `[B, H, W, C]` of grids; `mask` uint8 `[B, size, size, 1]`;
      `skipped` int32 `[B]`.
    """
    import grain

    make = _TrainExample(source, view, family, seed)
    dataset = grain.MapDataset.range(len(source)).repeat().map_with_index(make)
    dataset = dataset[shard[0] :: shard[1]]  # After repeat, so that hosts stay in step over epochs.
    dataset = dataset.batch(batch_size, drop_remainder=True)[start:]
    iterator = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        return _with_shared_memory(iterator.mp_prefetch(options, worker_init_fn=_ignore_signals))
    return iter(iterator)


def _with_shared_memory(dataset):
    """Yields the batches of worker processes, which pass them in shared memory; raises a UserError if it is full."""
    batches = iter(dataset)
    try:
        yield from batches
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise errors.UserError(SHARED_MEMORY_FULL) from error
    finally:
        batches.close()


def _ignore_signals(*_):
    """Makes a worker process ignore signals and exit when its parent exits, for whatever reason.

    Ctrl-C and SLURM signal all processes of a run, but the training process needs batches until it has stopped.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def evaluation_batches(
    evaluation_set: "EvaluationSet", *, batch_size: int, threads: int = 2
) -> Iterator[dict[str, np.ndarray]]:
    """Returns an iterator over the fixed evaluation set, whose last batch may be smaller.

    Args:
      evaluation_set: the examples by index.
      batch_size: examples per batch.
      threads: number of threads that prepare examples.

    Yields:
      `image`, `mask` as in `train_batches`; `record` int32 `[B]`, the index of the photograph; `bucket` int32 `[B]`, an
      index into `BUCKETS`; `mask_file` str `[B]`, the name from `masks.draw_named`.
    """
    import grain

    dataset = grain.MapDataset.range(len(evaluation_set)).map(evaluation_set.__getitem__)
    dataset = dataset.batch(batch_size, drop_remainder=False)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def bucket(mask: np.ndarray) -> int | None:
    """Returns the index in `BUCKETS` of the hole area of a mask `[H, W, 1]`, or None if it lies in no bucket."""
    return next((i for i, area in enumerate(BUCKETS) if masks.has_area(mask, area)), None)


def crop(image: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """Cuts a random square, resizes it and augments it.

    Args:
      image: uint8 `[H, W, C]`.
      view: crop and augmentation settings.
      rng: random generator that all draws are taken from.

    Returns:
      uint8 `[size, size, C]`. Shrinking averages areas, enlarging is bilinear.

    Raises:
      UserError: the view is native and larger than the image.
    """
    height, width = image.shape[:2]
    side = view.size if view.native else max(1, round(min(height, width) * rng.uniform(*view.scale)))
    if side > min(height, width):
        raise errors.UserError(
            f"a photograph is {width}x{height}; crops of {view.size} pixels at native resolution need as many: "
            "lower data.size, or leave small photographs out"
        )
    y, x = rng.integers(0, (height - side + 1, width - side + 1))
    cut = image[y : y + side, x : x + side]
    flipped = view.flip and rng.integers(2) == 1
    quarter_turns = rng.integers(4) if view.rotate else 0
    channels = rng.permutation(image.shape[-1]) if view.permute_channels else None
    if side != view.size:
        method = cv2.INTER_AREA if side > view.size else cv2.INTER_LINEAR
        cut = cv2.resize(cut, (view.size, view.size), interpolation=method)
    # OpenCV takes a tenth of the time that NumPy takes for views and their copies.
    if flipped:
        cut = cv2.flip(cut, 1)
    if quarter_turns:
        cut = cv2.rotate(cut, _ROTATIONS[quarter_turns])
    if channels is not None:
        permuted = np.empty((view.size, view.size, len(channels)), np.uint8)
        cv2.mixChannels([cut], [permuted], np.stack([channels, range(len(channels))], axis=1).ravel().tolist())
        cut = permuted
    return np.ascontiguousarray(cut).reshape(view.size, view.size, image.shape[-1])  # OpenCV drops a single channel.


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of the records in an epoch, a permutation of `range(count)`.

    It replaces grain's shuffle, which takes 1.5 ms per example for a set of a dozen images.

    Args:
      seed: seed of the training data.
      epoch: number of the epoch, from 0.
      count: number of records.
    """
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


class _TrainExample:
    """Makes training example `index`. It is a class and not a closure, so that it can be sent to worker processes."""

    def __init__(self, source, view, family, seed):
        self.source, self.view, self.family, self.seed = source, view, family, seed

    def __call__(self, index, _):
        epoch, position = divmod(index, len(self.source))
        image, skipped = self.source[int(epoch_order(self.seed, epoch, len(self.source))[position])]
        rng = np.random.default_rng([self.seed, _CROP, index])
        image = image if self.view is None else crop(image, self.view, rng)
        return {
            "image": image,
            "mask": masks.draw(self.family, self.seed, _MASK, index, image.shape[:2]),
            "skipped": np.int32(skipped),
        }


class EvaluationSet:
    """The fixed evaluation set: `set[i]` is example i with the entries of `evaluation_batches`, not batched.

    Hole-area buckets alternate, and each photograph is used equally often.
    """

    def __init__(
        self,
        source: sources.DecodedSource,
        view: View | None,
        family: masks.Family,
        seed: int,
        examples: int,
        areas: Sequence[tuple[float, float]] = BUCKETS,
    ):
        """Pairs photographs with buckets.

        Args:
          source: decoded images, or grids.
          view: crop and augmentation settings; None uses images as they are.
          family: the masks to draw; each bucket's range replaces `family.area`.
          seed: seed of crops, masks and the pairing of photographs with buckets.
          examples: size of the set.
          areas: ranges of the hole area, which are used in turn.
        """
        self.source, self.view, self.family, self.seed, self.areas = source, view, family, seed, areas
        order = np.random.default_rng([seed, _EVAL_ORDER])
        self.records = order.permutation(np.arange(examples) % len(source))

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        record, bucket = int(self.records[index]), index % len(self.areas)
        image, skipped = self.source[record]
        family = dataclasses.replace(self.family, area=self.areas[bucket])
        if self.view is not None:
            image = crop(image, self.view, np.random.default_rng([self.seed, _EVAL_CROP, index]))
        mask, mask_file = masks.draw_named(family, self.seed, _EVAL_MASK, index, image.shape[:2])
        return {
            "image": image,
            "mask": mask,
            "record": np.int32((record + skipped) % len(self.source)),
            "bucket": np.int32(bucket),
            "mask_file": mask_file,
        }
