"""Batches are a function of (seed, k), with threads and processes; the evaluation set is fixed and balanced."""

import errno
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys

import cv2
import grain
import numpy as np
import pytest
from absl import flags

import pictures
from pconv_jax.data import masks, pipeline, sources
from pconv_jax.errors import UserError
from pconv_jax.training import reporting

VIEW = pipeline.View(size=24, scale=(0.5, 1.0), flip=True)
FAMILY = masks.Family("boxes", (0.1, 0.4))
COUNT = 5


@pytest.fixture
def source():
    """Returns a source of five photographs in memory."""
    encoded = tuple(pictures.encode(pictures.noise(i)) for i in range(COUNT))
    return sources.DecodedSource(pictures.MemorySource(encoded))


def train(source, count, *, seed=3, batch_size=4, **options):
    """Returns the first `count` training batches."""
    batches = pipeline.train_batches(source, VIEW, FAMILY, seed=seed, batch_size=batch_size, **options)
    return list(itertools.islice(batches, count))


def evaluation(source, examples, batch_size=4, seed=3, view=VIEW):
    evaluation_set = pipeline.EvaluationSet(source, view, FAMILY, seed, examples)
    return list(pipeline.evaluation_batches(evaluation_set, batch_size=batch_size))


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(a, b):
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(channels):
    """Batches have uint8 images, masks of exactly 0 and 1 with the wanted area, and counts of skipped images."""
    encoded = (*(pictures.encode(pictures.noise(i)) for i in range(3)), b"broken")
    source = sources.DecodedSource(pictures.MemorySource(encoded), channels)
    batches = train(source, 4)
    for batch in batches:
        assert batch["image"].dtype == np.uint8 and batch["image"].shape == (4, 24, 24, channels)
        assert batch["mask"].dtype == np.uint8 and batch["mask"].shape == (4, 24, 24, 1)
        assert batch["skipped"].dtype == np.int32 and batch["skipped"].shape == (4,)
        assert np.isin(batch["mask"], (0, 1)).all()
        assert all(0.1 < masks.hole_area(mask) <= 0.4 for mask in batch["mask"])
        assert batch["image"].std() > 20
    assert joined(batches)["skipped"].sum() == 4  # one of four images, in four epochs


def test_threads_change_nothing(source):
    """1 and 4 threads give the same batches, over more than one epoch."""
    assert_same(train(source, 6, threads=1), train(source, 6, threads=4))


@pytest.mark.parametrize("start", [1, 3, 4])
def test_start_is_iterating(source, start):
    """Starting at batch k gives what iterating to it gives, before and after the end of an epoch."""
    assert_same(train(source, 3, start=start), train(source, start + 3)[start:])


@pytest.mark.parametrize("start", [0, 2])
def test_shards_are_one_stream(source, start):
    """Two hosts' batches, interleaved, are the batches of one host, over the end of an epoch."""
    halves = [train(source, 4, batch_size=2, shard=(i, 2), start=start) for i in range(2)]
    whole = [
        {name: np.stack([first[name], second[name]], axis=1).reshape(-1, *first[name].shape[1:]) for name in first}
        for first, second in zip(*halves, strict=True)
    ]
    assert_same(whole, train(source, 4, batch_size=4, start=start))


def test_batch_size_keeps_the_examples(source):
    """Examples are numbered, not batches: another batch size cuts the same stream elsewhere."""
    assert_same([joined(train(source, 6, batch_size=2))], [joined(train(source, 3, batch_size=4))])


def test_every_epoch_has_every_image():
    """Each image occurs once per epoch, in an order that changes; crops and masks are drawn anew."""
    encoded = tuple(pictures.encode(np.full((30, 30, 3), 10 * i, np.uint8)) for i in range(COUNT))
    source = sources.DecodedSource(pictures.MemorySource(encoded))
    drawn = train(source, 6, batch_size=COUNT)
    epochs = [[int(image.mean()) // 10 for image in batch["image"]] for batch in drawn]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len({mask.tobytes() for batch in drawn for mask in batch["mask"]}) == 6 * COUNT


def test_seeds_differ(source):
    """Another seed changes order or crops, and every mask."""
    one, other = train(source, 1, seed=0)[0], train(source, 1, seed=1)[0]
    assert (one["image"] != other["image"]).any(axis=(1, 2, 3)).all()
    assert (one["mask"] != other["mask"]).any(axis=(1, 2, 3)).all()


def test_a_broken_source_stops_the_training():
    """The error of a source without a readable image reaches the training loop."""
    source = sources.DecodedSource(pictures.MemorySource((b"broken",) * 3))
    with pytest.raises(ValueError, match="3 images in a row cannot be decoded"):
        train(source, 1)


def test_workers_change_nothing():
    """A worker process gives what threads give."""
    flags.FLAGS.is_parsed() or flags.FLAGS.mark_as_parsed()
    source = sources.DecodedSource(sources.photos()[1])
    assert_same(train(source, 3, start=1), train(source, 3, start=1, workers=1))


def test_signals_to_all_processes_leave_the_workers():
    """SLURM's SIGTERM and Ctrl-C reach them too, while the training process still waits for batches."""
    flags.FLAGS.is_parsed() or flags.FLAGS.mark_as_parsed()
    source = sources.DecodedSource(sources.photos()[1])
    batches = pipeline.train_batches(source, VIEW, FAMILY, seed=3, batch_size=4, workers=1)
    first = [next(batches)]
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert_same(first + list(itertools.islice(batches, 7)), train(source, 8))
    batches.close()
    assert not worker.is_alive()


def test_workers_end_with_a_killed_parent():
    """A process that takes batches from one worker is killed; the worker goes too, and with it the pipe they share."""
    take = """if True:
        import multiprocessing, time, test_pipeline as t
        t.flags.FLAGS.mark_as_parsed()
        source = t.sources.DecodedSource(t.sources.photos()[1])
        batches = t.pipeline.train_batches(source, t.VIEW, t.FAMILY, seed=3, batch_size=4, workers=1)
        next(batches)
        print(multiprocessing.active_children()[0].pid, flush=True)
        time.sleep(60)"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", take], stdout=subprocess.PIPE, env=environment) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
        try:
            parent.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


def test_a_killed_worker_ends_the_batches():
    """A worker killed by the system (out of memory) raises the error that main.py recognises, without a hang."""
    flags.FLAGS.is_parsed() or flags.FLAGS.mark_as_parsed()
    source = sources.DecodedSource(sources.photos()[1])
    batches = pipeline.train_batches(source, VIEW, FAMILY, seed=3, batch_size=4, workers=1)
    next(batches)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"^Worker process was terminated unexpectedly with exit code -9"):
        for _ in range(1000):
            next(batches)
    batches.close()


def test_full_shared_memory_is_named(monkeypatch):
    """Where /dev/shm has no room for batches, the error names it and data.workers, and not the disk of the run."""

    class Full:
        def __iter__(self):
            return self

        def __next__(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            closed.append(True)

    closed = []
    monkeypatch.setattr(grain.IterDataset, "mp_prefetch", lambda *_, **__: Full())
    source = sources.DecodedSource(sources.photos()[1])
    batches = pipeline.train_batches(source, VIEW, FAMILY, seed=3, batch_size=4, workers=1)
    with pytest.raises(UserError, match=r"^/dev/shm is full, .* or lower data.workers"):
        next(batches)
    assert closed == [True]
    assert reporting.explained(
        RuntimeError("Worker process was terminated unexpectedly with exit code -7.")
    ).startswith("/dev/shm is full")


def test_crop_keeps_the_pixels_where_nothing_is_resized():
    """A crop that is not resized is a piece of the image; with `flip` about half of them are flipped."""
    image = np.arange(20 * 30, dtype=np.int64).astype(np.uint8).reshape(20, 30, 1).repeat(3, axis=-1)
    image[..., 1], image[..., 2] = np.arange(20)[:, None], np.arange(30)  # each pixel holds its place
    for flip in (False, True):
        turned, rows, columns = 0, set(), set()
        for i in range(200):
            cut = pipeline.crop(image, pipeline.View(10, (0.5, 0.5), flip), np.random.default_rng(i))
            y, x = int(cut[0, 0, 1]), int(cut[..., 2].min())
            piece = image[y : y + 10, x : x + 10]
            turned += int(cut[0, 0, 2] > cut[0, 1, 2])
            np.testing.assert_array_equal(cut, piece[:, ::-1] if cut[0, 0, 2] > cut[0, 1, 2] else piece)
            rows.add(y)
            columns.add(x)
        assert 70 < turned < 130 if flip else turned == 0
        assert rows == set(range(11)) and columns == set(range(21))  # up to the last row and column


def test_crop_scale_is_the_share_of_the_shorter_side():
    """The side of the crop is within the wanted range, and spread over it."""
    across = np.tile(np.arange(240, dtype=np.uint8), (120, 1))[..., None].repeat(3, axis=-1)
    sides = []
    for i in range(200):
        cut = pipeline.crop(across, pipeline.View(30, (0.5, 0.75), False), np.random.default_rng(i))
        assert cut.shape == (30, 30, 3)
        sides.append((float(cut[0, -1, 0]) - float(cut[0, 0, 0])) * 30 / 29)
    assert 58 < min(sides) < 64 and 86 < max(sides) < 92  # of a shorter side of 120


@pytest.mark.parametrize("shape", [(7, 50), (50, 7), (1, 1), (24, 24), (100, 80)])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_takes_any_image(shape, channels):
    """Images smaller than the example, of one pixel, or of its size give the wanted size and channels."""
    image = pictures.noise(0, *shape, channels)
    cut = pipeline.crop(image, VIEW, np.random.default_rng(0))
    assert cut.dtype == np.uint8 and cut.shape == (24, 24, channels) and cut.flags["C_CONTIGUOUS"]


def test_crop_shrinks_without_aliasing():
    """Each pixel is the mean of all the pixels that it stands for."""
    image = pictures.noise(0, 96, 96)
    cut = pipeline.crop(image, pipeline.View(24, (1.0, 1.0), False), np.random.default_rng(0))
    assert np.abs(cut - image.reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))).max() <= 0.51


def test_evaluation_is_the_same_each_time(source):
    """Two passes agree (naoto0804 drew its validation masks afresh), with any number of threads; seeds differ."""
    first = evaluation(source, 9)
    assert_same(first, evaluation(source, 9))
    assert (joined(first)["mask"] != joined(evaluation(source, 9, seed=4))["mask"]).any(axis=(1, 2, 3)).all()
    evaluation_set = pipeline.EvaluationSet(source, VIEW, FAMILY, 3, 9)
    threads = pipeline.evaluation_batches(evaluation_set, batch_size=4, threads=5)
    assert_same(first, list(threads))


def test_evaluation_is_apart_from_training(source):
    """The same seed gives other masks and crops than training gets."""
    seen = {mask.tobytes() for batch in train(source, 10) for mask in batch["mask"]}
    assert not seen & {mask.tobytes() for mask in joined(evaluation(source, 40))["mask"]}


def test_last_batch_is_short(source):
    """N = batch + 1 gives a full batch and one more example: none is dropped (flax's example drops it) or repeated."""
    batches = evaluation(source, 5, batch_size=4)
    assert [len(batch["image"]) for batch in batches] == [4, 1]
    for name, dtype, shape in (("image", np.uint8, (24, 24, 3)), ("mask", np.uint8, (24, 24, 1))):
        assert all(batch[name].dtype == dtype and batch[name].shape[1:] == shape for batch in batches)
    assert all(batch[name].dtype == np.int32 for batch in batches for name in ("record", "bucket"))
    assert_same([joined(batches)], [joined(evaluation(source, 5, batch_size=2))])
    assert_same([joined(batches)], evaluation(source, 5, batch_size=8))


@pytest.mark.parametrize("examples", [6, 30, 33])
def test_buckets_and_photographs_are_balanced(source, examples):
    """Each bucket and each photograph occurs equally often, up to one, and areas lie in their bucket."""
    drawn = joined(evaluation(source, examples))
    for name, count in (("bucket", 6), ("record", COUNT)):
        numbers = np.bincount(drawn[name], minlength=count)
        assert len(numbers) == count and numbers.sum() == examples and np.ptp(numbers) <= 1
    for mask, bucket in zip(drawn["mask"], drawn["bucket"], strict=True):
        low, high = pipeline.BUCKETS[bucket]
        assert np.isin(mask, (0, 1)).all() and low < masks.hole_area(mask) <= high


def test_records_name_the_photographs():
    """`record` is the photograph that the crop is from, and pairs with buckets in no fixed order."""
    encoded = tuple(pictures.encode(np.full((30, 30, 3), 10 * i, np.uint8)) for i in range(6))
    drawn = joined(evaluation(sources.DecodedSource(pictures.MemorySource(encoded)), 36))
    np.testing.assert_array_equal(drawn["image"].mean(axis=(1, 2, 3)), 10 * drawn["record"])
    assert len(set(zip(drawn["record"].tolist(), drawn["bucket"].tolist(), strict=True))) > 12


def test_opencv_starts_no_threads_of_its_own():
    """Importing the module switches OpenCV's own threads off, which would compete with grain's."""
    assert cv2.getNumThreads() == 1


def test_crop_turns_and_permutes():
    """All four rotations and all six channel orders occur; without these settings the crop equals the image."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 12, 3), np.uint8)
    turned = {pipeline.crop(image, pipeline.View(12, (1, 1), rotate=True), rng).tobytes() for _ in range(60)}
    assert turned == {np.ascontiguousarray(np.rot90(image, k)).tobytes() for k in range(4)}
    view = pipeline.View(12, (1, 1), permute_channels=True)
    permuted = {pipeline.crop(image, view, rng).tobytes() for _ in range(200)}
    orders = itertools.permutations(range(3))
    assert permuted == {np.ascontiguousarray(image[..., order]).tobytes() for order in orders}
    np.testing.assert_array_equal(pipeline.crop(image, pipeline.View(12, (1, 1)), rng), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_resized_then_flipped_turned_and_permuted(channels):
    """The steps have this order and equal NumPy's operations, and every random number is drawn as documented."""
    view = pipeline.View(24, (0.3, 1.0), flip=True, rotate=True, permute_channels=True)
    image = pictures.noise(0, 60, 50, channels)
    for index in range(60):
        rng = np.random.default_rng(index)
        side = round(50 * rng.uniform(0.3, 1.0))
        y, x = rng.integers(0, 60 - side + 1), rng.integers(0, 50 - side + 1)
        flipped, turns, order = rng.integers(2), rng.integers(4), rng.permutation(channels)
        method = cv2.INTER_AREA if side > 24 else cv2.INTER_LINEAR
        cut = cv2.resize(image[y : y + side, x : x + side], (24, 24), interpolation=method).reshape(24, 24, channels)
        cut = np.rot90(np.fliplr(cut) if flipped else cut, turns)[..., order]
        np.testing.assert_array_equal(pipeline.crop(image, view, np.random.default_rng(index)), cut)


def test_an_evaluation_example_is_named_after_the_photograph_it_shows():
    """Where the next photograph replaces a corrupt one, `record` is the index of the one that is shown."""
    encoded = [pictures.encode(np.full((30, 30, 3), 40 * i, np.uint8)) for i in range(COUNT)]
    encoded[-1] = b"no image"  # the next one is the first
    examples = joined(evaluation(sources.DecodedSource(pictures.MemorySource(tuple(encoded))), 20))
    for image, record in zip(examples["image"], examples["record"], strict=True):
        assert record != COUNT - 1 and np.all(image == 40 * record)
    assert np.count_nonzero(examples["record"] == 0) == 8


def test_native_crops_are_never_resized():
    """Each is a part of the image as it is, and an image that is too small is refused."""
    image = pictures.noise(0, 40, 60)
    view = pipeline.View(24, (0.1, 0.1), native=True)
    corners = set()
    for index in range(20):
        cut = pipeline.crop(image, view, np.random.default_rng(index))
        places = [(y, x) for y in range(17) for x in range(37) if (image[y : y + 24, x : x + 24] == cut).all()]
        assert len(places) == 1
        corners |= set(places)
    assert len(corners) > 10
    with pytest.raises(UserError, match="a photograph is 60x40; crops of 41 pixels at native resolution need as many"):
        pipeline.crop(image, pipeline.View(41, (1, 1), native=True), np.random.default_rng(0))


def test_an_evaluation_set_without_buckets():
    """Masks come as they are drawn: here, of circles for 512 pixels in an image of 128, larger than any bucket has."""
    source = sources.DecodedSource(pictures.MemorySource((pictures.encode(pictures.noise(0, 128, 128)),)))
    family = masks.Family("notebook")
    chosen = pipeline.EvaluationSet(source, pipeline.View(128, (1, 1)), family, 0, 6, areas=((0.0, 1.0),))
    areas = [masks.hole_area(chosen[index]["mask"]) for index in range(6)]
    assert max(areas) > 0.6 and len(set(areas)) == 6
