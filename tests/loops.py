"""Slow, obvious loops straight from the paper's formulas, as a reference for the fast code."""

import itertools

import numpy as np


def partial_conv(x, mask, kernel, bias, strides, pads, dilation, groups, group_sizes):
    """Computes equations 1 and 2, one window and output channel at a time, in float64.

    Returns:
      `(y, m')`; the mask has one channel per convolution group.
    """
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    rank, window = x.ndim - 2, kernel.shape[:-2]
    per_channel = np.ones_like(x) if mask is None else np.repeat(np.asarray(mask, np.float64), group_sizes, axis=-1)
    around = [(0, 0), *pads, (0, 0)]
    held = np.pad(np.where(per_channel != 0, x, 0), around)
    valid = np.pad(per_channel, around)
    out = [(held.shape[1 + a] - (window[a] - 1) * dilation[a] - 1) // strides[a] + 1 for a in range(rank)]
    inputs, outputs = kernel.shape[-2], kernel.shape[-1]
    y, m = np.zeros((len(x), *out, outputs)), np.zeros((len(x), *out, groups))
    for n, place, o in itertools.product(range(len(x)), np.ndindex(*out), range(outputs)):
        group = o // (outputs // groups)
        at = [
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, window, dilation, strict=True)
        ]
        channels = slice(group * inputs, (group + 1) * inputs)
        seen = valid[(n, *at, channels)].sum()
        if seen > 0:
            total = (held[(n, *at, channels)] * kernel[..., o]).sum()
            y[(n, *place, o)] = total * kernel[..., o].size / seen + (0 if bias is None else bias[o])
            m[(n, *place, group)] = 1
    return y, m


def dilate(mask, window):
    """Returns 1 where any pixel of the centred window is valid, `[H, W]`."""
    h, w = mask.shape
    rows, columns = window[0] // 2, window[1] // 2
    result = np.zeros_like(mask)
    for i, j in np.ndindex(h, w):
        near = mask[max(0, i - rows) : i + rows + 1, max(0, j - columns) : j + columns + 1]
        result[i, j] = near.max()
    return result


def total_variation(image, mask):
    """Sums differences between neighbours in the hole dilated by one pixel, over the number of elements."""
    n, h, w, c = image.shape
    total = 0.0
    for b in range(n):
        region = dilate(1 - mask[b, ..., 0], (3, 3))
        for i, j in np.ndindex(h, w):
            for y, x in ((i + 1, j), (i, j + 1)):
                if y < h and x < w and region[i, j] and region[y, x]:
                    total += np.abs(image[b, y, x] - image[b, i, j]).sum()
    return total / (n * h * w * c)


def gram(features):
    """Returns `Psi^T Psi / (C H W)`, one pair of channels at a time."""
    n, h, w, c = features.shape
    result = np.zeros((n, c, c))
    for b, i, j in np.ndindex(n, c, c):
        result[b, i, j] = (features[b, ..., i] * features[b, ..., j]).sum() / (c * h * w)
    return result


def coarsen(image, mask):
    """Returns the mean of the valid pixels of each 2 x 2 block, and 1 where there is one."""
    n, h, w, c = image.shape
    rows, columns = -(-h // 2), -(-w // 2)
    coarse, coarse_mask = np.zeros((n, rows, columns, c)), np.zeros((n, rows, columns, 1))
    for k, i, j in np.ndindex(n, rows, columns):
        block = np.s_[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        valid = image[block][mask[block][..., 0] != 0].astype(np.float64)
        if len(valid):
            coarse[k, i, j], coarse_mask[k, i, j] = valid.mean(axis=0), 1
    return coarse, coarse_mask


def enlarge(image):
    """Interpolates bilinearly at the centres of pixels of half the size, and repeats the border."""
    n, h, w, c = image.shape
    large = np.zeros((n, 2 * h, 2 * w, c))
    for i, j in np.ndindex(2 * h, 2 * w):
        y, x = (i + 0.5) / 2 - 0.5, (j + 0.5) / 2 - 0.5
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                large[:, i, j] += weight * image[:, min(max(row, 0), h - 1), min(max(column, 0), w - 1)]
    return large
