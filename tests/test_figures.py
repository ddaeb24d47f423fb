"""Tests of figures: they show what was scored."""

import cv2
import numpy as np
import pytest

import scoring
from pconv_jax.evaluation import figures, tables

RECORDS = [scoring.record(m, i, i % 6, 40 - 3 * (i % 6) - k) for k, m in enumerate("abc") for i in range(12)]


def test_psnr_over_area_is_a_picture_the_same_each_time():
    """Every method has a line, so the figure changes without one of them; a single example has no interval."""
    png = figures.psnr_over_area(RECORDS, tables.summarise(RECORDS))
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (576, 900, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert figures.psnr_over_area(RECORDS, tables.summarise(RECORDS)) == png
    assert figures.psnr_over_area(RECORDS[:24], tables.summarise(RECORDS)) != png
    alone = [scoring.record("a", 0, 2, 30.0), scoring.record("a", 1, None, 20.0)]
    assert figures.psnr_over_area(alone, tables.summarise(alone)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("psnr", "expected"),
    [([3, 9, 1, 5, 7], [1, 3, 2]), ([5, 5, 5], [0, 1, 2]), ([4], [0, 0, 0]), ([2, 8], [1, 0, 0])],
)
def test_best_median_and_worst(psnr, expected):
    result = figures.chosen([scoring.record("a", i, 0, float(value)) for i, value in enumerate(psnr)])
    assert result == list(zip(("best", "median", "worst"), expected, strict=True))


def test_error_map_by_hand():
    """No error is black, a mean error of 64 grey levels or more is brightest, and others are in between."""
    target = np.full((2, 2, 3), 100, np.uint8)
    image = target.copy()
    image[0, 1], image[1, 0], image[1, 1] = (100, 100, 196), (36, 164, 36), (255, 255, 255)
    result = figures.error_map(image, target).astype(int)
    assert result[0, 0].sum() < 10 and (result[1, 0] == result[1, 1]).all() and result[1, 1].sum() > 500
    assert result[0, 0].sum() < result[0, 1].sum() < result[1, 1].sum()


def test_error_sheet():
    """Rows show masked, composite, error and original; the error is that of the hole alone."""
    examples = [scoring.example(0), scoring.example(1)]
    raw = np.stack([np.where(e.mask, 255 - e.image, np.uint8(128)) for e in examples])
    sheet = figures.errors(examples, raw, ["best", "worst"])
    scale = 6  # 128 / 20, rounded
    top, wide, high = 22, 24 * scale + 4, 20 * scale + 4
    pixels = [
        [sheet[top + r * high :, c * wide :][: 20 * scale, : 24 * scale][::scale, ::scale] for c in range(4)]
        for r in (0, 1)
    ]
    for (masked, filled, error, shown), example in zip(pixels, examples, strict=True):
        below = np.s_[4:]  # of the label
        hole = example.mask[..., 0] == 0
        np.testing.assert_array_equal(shown, example.image)
        np.testing.assert_array_equal(masked[below], np.where(example.mask, example.image, 255)[below])
        np.testing.assert_array_equal(filled, np.where(example.mask, example.image, 128))
        assert (error[~hole].sum(axis=-1) < 10).all() and error[hole].mean() > 50
