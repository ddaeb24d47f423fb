"""Tests that the dilation by runs of bits equals OpenCV's."""

import cv2
import numpy as np
import pytest

from pconv_jax.data import dilation


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 64), (70, 63), (33, 130)])
def test_dilation_equals_opencv(shape):
    """It holds for ellipses of 1 to 64 pixels and more, also even (asymmetric) ones, rectangles, and border pixels."""
    rng = np.random.default_rng(0)
    ellipses = [cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)) for k in [*range(1, 65), 98, 150]]
    others = [np.ones((4, 9), np.uint8), np.ones((1, 300), np.uint8)]
    others.append(cv2.getStructuringElement(cv2.MORPH_CROSS, (7, 5)))
    for window in ellipses + others:
        image = (rng.random(shape) < 0.01).astype(np.uint8)
        image[rng.integers(shape[0]), [0, -1]] = image[[0, -1], rng.integers(shape[1])] = 1
        dilated = dilation.dilate(image, window)
        assert dilated.dtype == np.uint8
        np.testing.assert_array_equal(dilated, cv2.dilate(image, window), err_msg=str(window.shape))
