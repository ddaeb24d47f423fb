"""An image pyramid around a network that fills holes: from the coarsest level to the finest, each guided by the last.

A level halves the one before: the mean of the valid pixels of each 2 x 2 block, valid if any pixel of it is. The filled
image of a level, enlarged, is the *guess* of the next finer one: a value for every pixel of its hole, however large the
hole is. Below the coarsest level of the network the guess comes from the pyramid alone (`interpolate`), so that an
image needs no more than one valid pixel.

Images `[N, H, W, C]`, float; masks `[N, H, W, 1]`, 1 = valid. Training and inference call the same functions.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Shaped

from pconv_jax.ops import compositing

Images = Float[ArrayLike, "n h w c"]
Masks = Shaped[ArrayLike, "n h w 1"]


def coarsen(image: Images, mask: Masks) -> tuple[Float[Array, "n p q c"], Float[Array, "n p q 1"]]:
    """Halves an image: the mean of the valid pixels of each 2 x 2 block. Odd sizes are rounded up, as if by holes.

    Args:
      image: `[N, H, W, C]`; the content of holes is not read.
      mask: `[N, H, W, 1]`, 1 = valid.

    Returns:
      `(image, mask)` of `[N, ceil(H / 2), ceil(W / 2), ..]`: float32, 0 in holes; the mask is 1 where any of the
      block's pixels is valid.
    """
    valid = (jnp.asarray(mask) != 0).astype(jnp.float32)
    total = _block_sum(jnp.where(valid != 0, jnp.asarray(image, jnp.float32), 0))
    count = _block_sum(valid)
    return total / jnp.maximum(count, 1), (count > 0).astype(jnp.float32)


def enlarge(image: Images, size: tuple[int, int]) -> Float[Array, "n p q c"]:
    """Doubles an image by bilinear interpolation, with pixel centres at half integers, and cuts it to a size.

    Args:
      image: `[N, H, W, C]`.
      size: height and width of the result, of the level that `coarsen` made the image from: `2 H` or `2 H - 1`.

    Returns:
      `[N, *size, C]`, each pixel 9 / 16, 3 / 16, 3 / 16 and 1 / 16 of the four nearest ones; the border is repeated.
    """
    for axis, extent in ((1, size[0]), (2, size[1])):
        image = lax.slice_in_dim(_double(jnp.asarray(image), axis), 0, extent, axis=axis)
    return jnp.asarray(image)


def interpolate(image: Images, mask: Masks, halvings: int | None = None) -> Float[Array, "n h w c"]:
    """Fills holes without a network: the guess of the coarsest level.

    Coarsens until one pixel is left, then enlarges again, with the valid pixels of each level put back.

    Args:
      image: `[N, H, W, C]`; the content of holes is not read.
      mask: `[N, H, W, 1]`, 1 = valid.
      halvings: coarsen this often instead, for sizes that are not known yet; what is a hole then gets the mean of the
        valid pixels.

    Returns:
      The image with its holes filled, smooth where they are large. Where an image has no valid pixel, 0.
    """
    if halvings == 0 or (halvings is None and image.shape[1] == image.shape[2] == 1):
        return compositing.composite(image, jnp.zeros_like(image) + compositing.valid_mean(image, mask), mask)
    _, height, width, _ = image.shape
    coarser = interpolate(*coarsen(image, mask), None if halvings is None else halvings - 1)
    return compositing.composite(image, enlarge(coarser, (height, width)), mask)


def levels(image: Images, mask: Masks, count: int) -> list[tuple]:
    """Builds an image pyramid.

    Args:
      image: `[N, H, W, C]`; values in holes are not read.
      mask: `[N, H, W, 1]`, 1 valid, 0 hole.
      count: number of levels.

    Returns:
      `[(image, mask), ..]`, the finest level first, which is the arguments themselves.
    """
    pyramid = [(image, mask)]
    while len(pyramid) < count:
        pyramid.append(coarsen(*pyramid[-1]))
    return pyramid


def coarse_to_fine(network: Callable, image: Images, mask: Masks, count: int) -> list:
    """Applies a network at each level of a pyramid, from the coarsest to the finest.

    Args:
      network: `(image, mask, guess) -> output`, at any size that the levels have. `guess` is the enlarged composite of
        the level below, valid pixels included, without gradient; its holes are the network's to improve.
      image: `[N, H, W, C]`; the content of holes is not read.
      mask: `[N, H, W, 1]`, 1 = valid.
      count: number of levels at which the network is applied, at least 1.

    Returns:
      The network's outputs, the finest level first, as `levels`.
    """
    pyramid, outputs = levels(image, mask, count), []
    guess = interpolate(*pyramid[-1])
    for finer, (level_image, level_mask) in zip([*pyramid[-2::-1], None], pyramid[::-1], strict=True):
        output = network(level_image, level_mask, guess)
        outputs.append(output)
        if finer is not None:
            filled = compositing.composite(level_image, output, level_mask)
            guess = enlarge(lax.stop_gradient(filled), finer[0].shape[1:3])
    return outputs[::-1]


def _block_sum(x):
    """Sums 2 x 2 blocks, `[N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]`."""
    n, h, w, c = x.shape
    if h % 2 or w % 2:
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return x.reshape(n, (h + 1) // 2, 2, (w + 1) // 2, 2, c).sum(axis=(2, 4))


def _double(x, axis):
    """Doubles the extent of an axis: pixel 2 i is 3/4 x[i] + 1/4 x[i - 1], pixel 2 i + 1 has x[i + 1] instead."""
    first = lax.slice_in_dim(x, 0, 1, axis=axis)
    last = lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
    # Not jnp.concatenate, for which jax2onnx computes a wrong shape if the size is not known yet.
    before = lax.concatenate([first, lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis)
    after = lax.concatenate([lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), last], axis)
    pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
    return pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
