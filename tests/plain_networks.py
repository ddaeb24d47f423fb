"""Layers of convolutional networks in NumPy and float64, as a reference for Flax modules."""

import numpy as np


def windows(x, height, width, stride, padding, fill):
    """Returns `[N, H', W', C, height, width]` of `x [N, H, W, C]`, padded by `padding` = (rows, columns)."""
    rows, columns = padding
    x = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), (1, 2))[:, ::stride, ::stride]


def conv(x, kernel, bias, stride=1, padding=(0, 0)):
    """Applies a convolution (kernel HWIO) with ReLU."""
    patches = windows(np.asarray(x, np.float64), *kernel.shape[:2], stride, padding, 0)
    return np.maximum(np.tensordot(patches, np.asarray(kernel, np.float64), ([3, 4, 5], [2, 0, 1])) + bias, 0)


def pool(x, window, stride, padding=0):
    """Returns the maximum over the positions inside the image."""
    return windows(x, window, window, stride, (padding, padding), -np.inf).max(axis=(-2, -1))


def average(x):
    """Returns the 3x3 mean over the positions inside the image."""
    return np.nanmean(windows(np.asarray(x, np.float64), 3, 3, 1, (1, 1), np.nan), axis=(-2, -1))


def draw(shapes, seed=0):
    """Returns random arrays by name, with kernels scaled so that features keep their size."""
    rng = np.random.default_rng(seed)
    scales = {name: np.sqrt(2 / np.prod(s[:-1])) if name.endswith("kernel") else 0.1 for name, s in shapes.items()}
    drawn = {name: rng.standard_normal(shape, np.float32) * np.float32(scales[name]) for name, shape in shapes.items()}
    return {name: np.abs(x) if name.startswith("linear") else x for name, x in drawn.items()}
