"""Scores count every image once, baselines see no hole, and tables say what the records say."""

import csv
import itertools
import json
import pathlib

import numpy as np
import pytest

import pictures
from pconv_jax.data import masks, pipeline
from pconv_jax.evaluation import baselines, scores, tables

NAMES = ("first.png", "second.png", "third.png")


def hole(height=20, width=24):
    """Mask `[H, W, 1]` with a block of holes in the middle and one in the upper left corner."""
    mask = np.ones((height, width, 1), np.uint8)
    mask[6:12, 8:16] = 0
    mask[:3, :2] = 0
    return mask


def smooth(channels, height=20, width=24):
    """A ramp, which any inpainting continues well."""
    y, x = np.mgrid[:height, :width]
    return np.stack([60 + (c + 2) * x + 3 * y for c in range(channels)], axis=-1).astype(np.uint8)


def batches(count, batch_size, channels=3):
    """What `pipeline.evaluation_batches` gives, of noise."""
    for start in range(0, count, batch_size):
        index = range(start, min(start + batch_size, count))
        yield {
            "image": np.stack([pictures.noise(i, 20, 24, channels) for i in index]),
            "mask": np.stack([np.roll(hole(), i, axis=1) for i in index]),
            "record": np.asarray([i % len(NAMES) for i in index], np.int32),
            "bucket": np.asarray([i % 6 for i in index], np.int32),
        }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", baselines.BASELINES)
def test_baselines_keep_valid_pixels_and_read_no_hole(method, channels):
    """Valid pixels come back unchanged, and what lies in the hole decides nothing."""
    image, mask = pictures.noise(0, 20, 24, channels), hole()
    filled = baselines.BASELINES[method](image, mask)
    assert filled.dtype == np.uint8 and filled.shape == image.shape
    valid = np.broadcast_to(mask == 1, image.shape)
    np.testing.assert_array_equal(filled[valid], image[valid])
    for junk in (0, 255):
        spoiled = np.where(mask == 1, image, junk).astype(np.uint8)
        np.testing.assert_array_equal(baselines.BASELINES[method](spoiled, mask), filled)


@pytest.mark.parametrize("method", baselines.BASELINES)
def test_baselines_without_and_with_nothing_but_holes(method):
    """No hole: the image itself. Nothing valid: some image, no error."""
    image, mask = pictures.noise(0, 20, 24), np.ones((20, 24, 1), np.uint8)
    np.testing.assert_array_equal(baselines.BASELINES[method](image, mask), image)
    assert baselines.BASELINES[method](image, 0 * mask).shape == image.shape


def test_mean_fill_is_the_mean_of_the_valid_pixels():
    """By hand: valid 10, 20 and 31 give 20, per channel; sums do not overflow uint8."""
    image = np.asarray([[10, 20], [31, 99]], np.uint8)[..., None] * np.asarray([1, 2], np.uint8)
    mask = np.asarray([[1, 1], [1, 0]], np.uint8)[..., None]
    np.testing.assert_array_equal(baselines.mean_fill(image, mask)[1, 1], [20, 41])
    bright = np.full((64, 64, 3), 250, np.uint8)
    large = hole(64, 64)
    np.testing.assert_array_equal(baselines.mean_fill(np.where(large, bright, 0).astype(np.uint8), large), bright)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", ["Telea", "Navier-Stokes"])
def test_opencv_fills_holes_and_not_the_rest(method, channels):
    """On a ramp both beat the mean by far: the mask's polarity is OpenCV's."""
    image, mask = smooth(channels), hole()
    error = np.abs(baselines.BASELINES[method](image, mask).astype(int) - image)[mask[..., 0] == 0].mean()
    mean_error = np.abs(baselines.mean_fill(image, mask).astype(int) - image)[mask[..., 0] == 0].mean()
    assert error < 0.4 * mean_error


def fake_network(batch_size, offset=0.0):
    """A network of no parameters that knows the image: its composite is the image plus `offset` in holes."""
    calls = []

    def predict(variables, image, mask):
        assert len(image) == len(mask) == batch_size, "another shape than the compiled one"
        calls.append(variables)
        image = image.astype(np.float32) / 255
        return image, np.clip(np.where(mask != 0, image, image + offset), 0, 1)

    return predict, calls


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_every_image_is_counted_once(count):
    """N = batch + 1: one record per image, in order, equal to the image scored alone (nothing padded is counted)."""
    predict, calls = fake_network(4, 0.1)
    records = scores.network(predict, "variables", batches(count, 4), 4, NAMES)
    assert [record["example"] for record in records] == list(range(count))
    assert calls == ["variables"] * -(-count // 4)
    alone = []
    for batch in batches(count, 1):
        predict, _ = fake_network(1, 0.1)
        alone += scores.network(predict, "variables", [batch], 1, NAMES)
    for record, single in zip(records, alone, strict=True):
        for name in scores.METRICS:
            assert record[name] == pytest.approx(single[name], rel=1e-5)
    assert len({record["psnr"] for record in records}) == count


def test_records_say_what_was_scored():
    """Name, bucket, hole area and border of each example, beside its scores."""
    predict, _ = fake_network(4)
    records = scores.network(predict, None, batches(5, 4), 4, NAMES)
    examples = list(batches(5, 1))
    for index, (record, batch) in enumerate(zip(records, examples, strict=True)):
        assert list(record) == [
            "method",
            "example",
            "image",
            "bucket",
            "hole_area",
            "touches_border",
            "l1_percent",
            "psnr",
            "ssim",
        ]
        assert record["method"] == scores.NETWORK and record["example"] == index
        assert record["image"] == NAMES[index % 3] and record["bucket"] == index
        assert record["hole_area"] == masks.hole_area(batch["mask"][0]) == 54 / 480
        assert record["touches_border"] is True
    json.dumps(records)


def test_perfect_and_known_errors():
    """A perfect filling has L1 0, PSNR at its ceiling and SSIM 1; an error of 51 in 54 of 480 pixels by hand."""
    predict, _ = fake_network(4)
    for record in scores.network(predict, None, batches(4, 4), 4, NAMES):
        assert (record["l1_percent"], record["psnr"]) == (0, 100) and record["ssim"] == pytest.approx(1, abs=1e-5)
    batch = {**next(batches(1, 1)), "image": np.full((1, 20, 24, 3), 100, np.uint8)}
    predict, _ = fake_network(1, 51 / 255)
    (record,) = scores.network(predict, None, [batch], 1, NAMES)
    assert record["l1_percent"] == pytest.approx(100 * 54 / 480 * 51 / 255, rel=1e-4)
    assert record["psnr"] == pytest.approx(10 * np.log10(255**2 / (51**2 * 54 / 480)), rel=1e-4)
    assert 0 < record["ssim"] < 0.99


def test_composites_are_rounded_not_truncated():
    """Half a grey level less than the truth is the truth: scores are of the uint8 image that is saved."""
    predict, _ = fake_network(4, -0.4 / 255)
    for record in scores.network(predict, None, batches(4, 4), 4, NAMES):
        assert record["l1_percent"] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_baselines_are_scored_on_the_same_examples(channels):
    """The records of a baseline differ from the network's in method and scores alone."""
    predict, _ = fake_network(4)
    network = scores.network(predict, None, batches(5, 4, channels), 4, NAMES)
    mean = scores.baseline("mean fill", batches(5, 4, channels), NAMES)
    for one, other in zip(network, mean, strict=True):
        different = {name for name in one if one[name] != other[name]}
        assert different == {"method", *scores.METRICS} and other["method"] == "mean fill"
        assert other["psnr"] < one["psnr"]


def record(method, bucket, psnr, ssim=0.5, l1=1.0):
    return {"method": method, "example": 0, "bucket": bucket, "l1_percent": l1, "psnr": psnr, "ssim": ssim}


RECORDS = [
    record("network", 0, 30.0, 0.9, 1.0),
    record("network", 0, 33.0, 0.8, 2.0),
    record("network", 3, 21.0, 0.1, 6.0),
    record("mean fill", 0, 12.0),
    record("mean fill", 0, 12.0),
    record("mean fill", 3, 9.0),
]


def test_summary_by_hand():
    """Means and counts per bucket; the mean over all is over images, not over buckets."""
    rows = tables.summarise(RECORDS)
    by_key = {(row["method"], row["bucket"]): row for row in rows}
    assert list(by_key) == list(itertools.product(["network", "mean fill"], ["(1%, 10%]", "(30%, 40%]", "all"]))
    first = by_key["network", "(1%, 10%]"]
    assert (first["count"], first["psnr"], first["l1_percent"]) == (2, 31.5, 1.5)
    assert first["ssim"] == pytest.approx(0.85)
    assert (by_key["network", "all"]["count"], by_key["network", "all"]["psnr"]) == (3, 28.0)
    assert (by_key["mean fill", "all"]["count"], by_key["mean fill", "all"]["psnr"]) == (3, 11.0)


def test_bucket_names():
    """The paper's ranges, open below and closed above."""
    names = [tables.bucket_name(bucket) for bucket in range(len(pipeline.BUCKETS))]
    assert names == ["(1%, 10%]", "(10%, 20%]", "(20%, 30%]", "(30%, 40%]", "(40%, 50%]", "(50%, 60%]"]
    assert tables.bucket_name(tables.ALL) == "all"


def test_markdown_by_hand():
    """A table per metric, a line per method, counts in the header."""
    lines = tables.markdown(tables.summarise(RECORDS)).splitlines()
    assert lines[:5] == [
        "| PSNR, dB (higher is better) | (1%, 10%] n=2 | (30%, 40%] n=1 | all n=3 |",
        "|---|---|---|---|",
        "| network | 31.50 | 21.00 | 28.00 |",
        "| mean fill | 12.00 | 9.00 | 11.00 |",
        "",
    ]
    assert "| network | 0.8500 | 0.1000 | 0.6000 |" in lines and "| network | 1.50 | 6.00 | 3.00 |" in lines
    assert len(lines) == 14 and [i for i, line in enumerate(lines) if not line] == [4, 9]


def test_tables_are_written(tmp_path):
    """JSON holds everything, CSV the rows, Markdown the table; no other file is left."""
    tables.write(str(tmp_path / "eval"), "last", RECORDS, {"step": 7})
    rows = tables.summarise(RECORDS)
    content = json.loads((tmp_path / "eval" / "last.json").read_text())
    assert content == {"step": 7, "rows": rows, "records": RECORDS}
    with open(tmp_path / "eval" / "last.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [{**row, "count": int(row["count"]), **{m: float(row[m]) for m in scores.METRICS}} for row in read] == rows
    assert (tmp_path / "eval" / "last.md").read_text() == tables.markdown(rows)
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["last.csv", "last.json", "last.md"]


def test_tables_are_the_same_each_time(tmp_path):
    """Written twice, over the old ones or elsewhere: byte for byte the same."""

    def content(directory):
        tables.write(str(tmp_path / directory), "last", RECORDS, {"step": 7})
        return [path.read_bytes() for path in sorted(pathlib.Path(tmp_path / directory).iterdir())]

    assert content("a") == content("a") == content("b")
