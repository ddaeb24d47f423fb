"""Tests that files of other programs are read as the right picture, or refused with an error that names the kind."""

import collections

import numpy as np

import file_cases
from pconv_jax import errors
from pconv_jax.data import sources
from pconv_jax.reading import images


def same(image, case):
    """Returns whether a decoded image is the picture of its file, of the right depth, upright, with its alpha."""
    if image.pixels.shape != case.pixels.shape or (image.alpha is None) != (case.alpha is None):
        return False
    levels = 255 / image.white
    wanted = case.pixels * (255 / np.iinfo(case.pixels.dtype).max)
    if np.abs(image.pixels * levels - wanted).mean() > case.tolerance + 1e-6:
        return False
    return case.alpha is None or np.array_equal(
        image.alpha * levels, case.alpha * (255 / np.iinfo(case.alpha.dtype).max)
    )


def test_none_is_silently_wrong():
    """Each of some 500 files is read as its picture or refused in one line; training sees what filling sees."""
    counts, wrong = collections.Counter(), []
    for case in file_cases.cases():
        try:
            image = images.decode(case.encoded)
        except errors.UserError as error:
            counts["refused"] += 1
            if case.pixels is not None or "\n" in str(error) or "damaged" in str(error):
                wrong.append(f"{case.name}: {error}")
            continue
        if case.pixels is None or not same(image, case):
            wrong.append(f"{case.name}: {image.pixels.shape} {image.pixels.dtype} {image.orientation}")
        np.testing.assert_array_equal(sources.decode(case.encoded), images.to_8_bits(image, 3), err_msg=case.name)
        counts["read"] += 1
    print(dict(counts))
    assert not wrong, f"{len(wrong)} of {counts.total()}: " + "\n".join(wrong)
    assert counts["read"] > 400 and counts["refused"] > 40
