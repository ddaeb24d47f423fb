"""Tests of evaluation sets: they follow from the config, and names follow from pixels."""

import hashlib

import cv2
import numpy as np
import pytest

import runs
import scoring
from pconv_jax.data import mask_folder, masks, pipeline
from pconv_jax.evaluation import inputs
from pconv_jax.training import build, rundir


@pytest.fixture(scope="module")
def drawn():
    """Returns the inputs of a tiny config and its batches."""
    config = runs.tiny()
    _, source = build.image_sources(config)
    return (
        inputs.Drawn(build.evaluation_set(config, source)),
        list(pipeline.evaluation_batches(build.evaluation_set(config, source), batch_size=config.eval.batch_size)),
        source,
    )


def test_inputs_are_the_evaluation_set(drawn):
    """Every example equals what a checkpoint is evaluated on, with the description that follows from it."""
    chosen, batches, source = drawn
    images, drawn_masks, records, buckets = (
        np.concatenate([batch[key] for batch in batches]) for key in ("image", "mask", "record", "bucket")
    )
    assert len(chosen) == len(images) == 10
    for index in range(10):
        example = chosen[index]
        np.testing.assert_array_equal(example.image, images[index])
        np.testing.assert_array_equal(example.mask, drawn_masks[index])
        assert example.about == {
            "name": example.name,
            "image": source.names[records[index]],
            "mask": f"0:{index}",
            "crop": f"0:{index}",
            "bucket": buckets[index],
            "hole_area": masks.hole_area(drawn_masks[index]),
            "touches_border": masks.touches_border(drawn_masks[index]),
            "image_sha256": hashlib.sha256(images[index].tobytes()).hexdigest(),
            "mask_sha256": hashlib.sha256(drawn_masks[index].tobytes()).hexdigest(),
        }


@pytest.mark.parametrize("batch_size", [1, 4, 10, 16])
def test_batches_are_in_order_and_complete(drawn, batch_size):
    result = list(inputs.batches(drawn[0], batch_size, threads=3))
    assert [example.name for batch in result for example in batch] == [drawn[0][index].name for index in range(10)]
    assert [len(batch) for batch in result[:-1]] == [batch_size] * (len(result) - 1) and len(result[-1]) <= batch_size


def test_names_follow_from_the_pixels():
    """Names are in order, and change with a single pixel of the image or the mask."""
    example = scoring.example(7)
    assert example.name == scoring.example(7).name and example.name.startswith("00007_") and len(example.name) == 14
    for changed in ("image", "mask"):
        pixels = {"image": example.image.copy(), "mask": example.mask.copy()}
        pixels[changed][15, 15, 0] ^= 1
        assert scoring.example(7, **pixels).name != example.name
    assert inputs.fingerprint(["a", "b"]) != inputs.fingerprint(["b", "a"])


@pytest.mark.parametrize("augment", [False, True])
def test_masks_of_a_folder_are_named(tmp_path, augment):
    """A mask of a folder is named by its file, and an augmented one by its seed and index as well."""
    for index, side in enumerate(range(3, 13)):
        image = np.zeros((16, 16), np.uint8)
        image[:side, : side + 1] = 255
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    masking = {"kind": "folder", "path": str(tmp_path), "augment": augment}
    config = runs.tiny(**{f"eval.masks.{key}": value for key, value in masking.items()})
    chosen = inputs.Drawn(build.evaluation_set(config, build.image_sources(config)[1]))
    for index in range(10):
        example = chosen[index]
        file, *drawn_by = example.about["mask"].split()
        assert drawn_by == ([f"0:{index}"] if augment else [])
        if not augment:
            hole = mask_folder.read_hole(str(tmp_path / file), "white_hole")
            np.testing.assert_array_equal(example.mask[..., 0], 1 - hole)


def test_nvidia_masks_by_config_alone(shared_data):
    """Both halves of every bucket are counted by the masks at this size, in agreement with their names."""
    masking = {"kind": "folder", "path": str(shared_data("nvidia_masks")), "augment": False}
    changes = {f"eval.masks.{key}": value for key, value in masking.items()}
    config = runs.tiny(**{"data.size": 256, "eval.examples": 60, **changes})
    chosen = inputs.Drawn(build.evaluation_set(config, build.image_sources(config)[1]))
    cells = []
    for index in range(60):
        about = chosen[index].about
        number = int(about["mask"].removesuffix(".png"))
        assert about["bucket"] == index % 6 and abs(about["bucket"] - number // 2000) <= 1
        if number % 2000 < 1000:
            assert not about["touches_border"]
        cells.append((about["bucket"], about["touches_border"]))
    assert set(cells) == {(bucket, touching) for bucket in range(6) for touching in (False, True)}


def saved(directory, data, **changes):
    """Returns a run directory and its config."""
    config = runs.tiny(**changes)
    rundir.claim(str(directory), config, data)
    return str(directory), config


def test_runs_on_the_same_inputs(tmp_path):
    """Settings of training do not matter, and images are compared by fingerprint."""
    first = saved(tmp_path / "a", {"evaluation": "x"})
    other = saved(tmp_path / "b", {"evaluation": "x"}, **{"seed": 3, "model.width": 16, "eval.batch_size": 4})
    inputs.check_same(*first, *other)


@pytest.mark.parametrize(
    ("changes", "fingerprint", "message"),
    [
        ({"eval.seed": 1}, "x", r"eval.seed: 0 in .*a, 1 in .*b"),
        ({"eval.examples": 11}, "x", r"eval.examples: 10 in .*a, 11 in .*b"),
        ({"eval.crop_scale": (0.3, 1.0)}, "x", r"eval.crop_scale: \[0.5, 1.0\] in .*a, \[0.3, 1.0\] in .*b"),
        ({"eval.masks.kind": "boxes"}, "x", r"eval.masks.kind: strokes in .*a, boxes in .*b"),
        ({"data.size": 32}, "x", r"data.size: 16 in .*a, 32 in .*b"),
        ({"model.channels": 1}, "x", r"model.channels: 3 in .*a, 1 in .*b"),
        ({}, "y", r"evaluation images: x in .*a, y in .*b"),
        ({"eval.seed": 2, "data.size": 32}, "y", r"eval.seed: .*; data.size: .*; evaluation images: .*--manifest"),
    ],
)
def test_runs_on_other_inputs_are_refused(tmp_path, changes, fingerprint, message):
    """The refusal lists everything that differs."""
    first = saved(tmp_path / "a", {"evaluation": "x"})
    other = saved(tmp_path / "b", {"evaluation": fingerprint}, **changes)
    with pytest.raises(ValueError, match=message):
        inputs.check_same(*first, *other)


def test_runs_on_other_masks_are_refused(tmp_path):
    """Mask folders are compared by their fingerprints, wherever they lie."""

    def run(name, path, fingerprint):
        masking = {"eval.masks.kind": "folder", "eval.masks.path": path}
        return saved(tmp_path / name, {"evaluation": "x", "evaluation masks": fingerprint}, **masking)

    first = run("a", "/here", "9 files")
    inputs.check_same(*first, *run("b", "/there", "9 files"))
    with pytest.raises(ValueError, match=r"other inputs \(evaluation masks: 9 files in .*a, 8 files in .*d\)"):
        inputs.check_same(*first, *run("d", "/here", "8 files"))
