"""A network applied to images of any size: in tiles of few sizes, each compiled once."""

import functools
from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from pconv_jax.inpainting import tiles
from pconv_jax.models import unet

# Pixels that `mask_update` "keep" fills of a hole: the window of the last layer, and one more, because the mask of half
# the size counts as valid where it is enlarged.
RIM = 2


class TiledNetwork:
    """Applies a network to float images of any size, in square tiles of which those without wanted pixels are skipped.

    The sides of tiles are `tile`, a half, a quarter and an eighth of it, so that at most four functions are compiled
    whatever the sizes of the images; each image takes the side that covers its wanted pixels with the fewest computed
    ones. Tiles start at multiples of `2 ** depth`, share the mean that `model.center` subtracts, and overlap by a
    quarter or by four times the receptive field's radius, whichever is less; in the latter case the result equals one
    application to the whole image. An image that is smaller than a tile is padded, and the network treats the padding
    as what is beyond the border of an image (`inside` of `unet.UNet`). Networks with group normalisation are padded
    only to a multiple of `2 ** depth`, and normalise over a tile.

    Attributes:
      guesses: whether the network takes a guess.
      reach: radius of the network's receptive field in pixels (`unet.receptive_field_radius`).
      sight: largest distance from valid pixels at which one application fills: the reach, but `RIM` with `mask_update`
        "keep".
    """

    def __init__(self, model: unet.UNet, variables, tile: int):
        """Prepares a network.

        Args:
          model: the network.
          variables: its parameters, and the running statistics of batch normalisation.
          tile: largest side of a tile in pixels, rounded up to a multiple of `4 * 2 ** depth`.
        """
        self.guesses = model.guess
        self.reach = unet.receptive_field_radius(model.depth, model.kernels)
        self.sight = RIM if model.mask_update == "keep" else self.reach
        self._channels, self._multiple = model.channels, 2**model.depth
        self._tile = _round_up(tile, 4 * self._multiple)
        self._variables = unet.prepared(variables, model.dtype)
        self._predict = jax.jit(functools.partial(_predict, model.clone(center=False)))
        self._softens = model.soft_mask
        self._centers, self._pads = model.center, model.norm != "group"

    def __call__(
        self,
        image: np.ndarray,
        valid: np.ndarray,
        guess: np.ndarray | None,
        wanted: np.ndarray,
        computed: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Applies the network to an image.

        Args:
          image: float32 `[H, W, C]`, C = 1 or 3, finite.
          valid: bool `[H, W]`, with at least one True.
          guess: as `image`, for networks that take one; else None.
          wanted: bool `[H, W]`, the pixels whose value matters.
          computed: called after each tile with the number of its pixels; may raise an exception to stop.

        Returns:
          `(output float32 [H, W, C], seen bool [H, W])`: meaningful where `wanted`, and the output where `seen`.
        """
        if not wanted.any():
            return image, wanted
        mean = np.mean(image, axis=(0, 1), dtype=np.float64, where=valid[..., None]).astype(np.float32)
        return self._tiled(image, valid, guess, mean, wanted, self._tile, computed)

    def cost(self, wanted: np.ndarray) -> int:
        """Returns the number of pixels of the tiles that an image with these wanted pixels is computed in."""
        size, sides = self._layout(wanted, self._tile)
        return tiles.count(size, sides, self._overlap(max(sides)), wanted) * sides[0] * sides[1]

    def prepare(self, side: int):
        """Compiles the network for tiles of a side, one of `sides`, which takes seconds.

        Args:
          side: side of the tile in pixels.
        """
        image, valid = np.zeros((side, side, max(self._channels, 3)), np.float32), np.ones((side, side), bool)
        self._predict_tile(image, valid, image if self.guesses else None, image[0, 0], (side, side))

    @property
    def sides(self) -> list[int]:
        """Returns the sides of tiles that the network is compiled for, smallest first; none if each image has its own.

        Networks with group normalisation are compiled for each size of image.
        """
        return self._sides(self._tile) if self._pads else []

    def _layout(self, wanted, tile):
        """Returns `(size that the tiles cover, sides of a tile)`, with tiles of at most `tile` pixels per side."""
        size = tuple(_round_up(extent, self._multiple) for extent in wanted.shape)
        if not self._pads:
            return size, tuple(min(extent, tile) for extent in size)
        chosen = tiles.side(size, wanted, self._sides(tile), self._overlap)
        return tuple(max(extent, chosen) for extent in size), (chosen, chosen)

    def _tiled(self, image, valid, guess, mean, wanted, tile, computed):
        """Returns `(output, seen)` where `wanted`, by tiles of at most `tile` pixels per side."""
        size, sides = self._layout(wanted, tile)

        def predict(top, left):
            here = np.s_[top : top + sides[0], left : left + sides[1]]
            tile_guess = None if guess is None else guess[here]
            result = self._predict_tile(image[here], valid[here], tile_guess, mean, sides)
            if computed is not None:
                computed(sides[0] * sides[1])
            return result

        output, seen = tiles.blend(size, sides, self._overlap(max(sides)), wanted, predict)
        missing = wanted & ~seen
        if missing.any() and sides != size and tile < 4 * self.sight:  # a larger tile may show it more
            more, more_seen = self._tiled(image, valid, guess, mean, missing, 2 * tile, computed)
            output[missing], seen[missing] = more[missing], more_seen[missing]
        return output, seen

    def _sides(self, tile):
        """Returns the sides of tiles that the network is compiled for, smallest first."""
        return sorted({_round_up(-(-tile // part), 4 * self._multiple) for part in (8, 4, 2, 1)})

    def _overlap(self, tile):
        return min(tile // 4, _round_up(4 * self.reach, self._multiple))

    def _predict_tile(self, image, valid, guess, mean, sides):
        """Applies the network to one tile, padded to `sides`: output float32 `[*sides, C]` and where it saw."""
        padding = [(0, side - extent) for side, extent in zip(sides, valid.shape, strict=True)]

        def prepared(x):
            return _to_network(np.pad(x, [*padding, (0, 0)]), self._channels)

        planes = prepared(image)
        mask = _soft(valid) if self._softens else valid.astype(np.float32)
        mask = np.broadcast_to(np.pad(mask, padding)[..., None], (*planes.shape[:3], 1))
        offset = _to_network(np.reshape(mean if self._centers else 0 * mean, (1, 1, -1)), self._channels)
        guess = None if guess is None else prepared(guess)
        extent = np.asarray(valid.shape)
        output, seen = self._predict(self._variables, planes, mask, guess, offset, extent)
        return _from_network(np.asarray(output), image.shape[-1]), np.asarray(seen)[0, ..., 0] > 0


def _predict(model, variables, image, mask, guess, offset, extent):
    """Applies a network that does not centre by itself: `(output, seen)`; kinds without a mask see everything.

    Args:
      model, variables: the network.
      image, mask: `[N, H, W, C]` and `[N, H, W, 1]`.
      guess: as `image`, or None where the network takes none.
      offset: `[N, 1, 1, C]`, subtracted from the input and added to the output.
      extent: `(height, width)` of what is not padding.
    """
    rows, columns = (jnp.arange(side) < length for side, length in zip(image.shape[1:3], extent, strict=True))
    inside = jnp.broadcast_to((rows[:, None] & columns)[None, ..., None], mask.shape).astype(jnp.float32)
    guesses = () if guess is None else (guess - offset,)
    output, seen = model.apply(variables, image - offset, mask, *guesses, inside=inside, train=False)
    return output + offset, jnp.ones_like(mask) if seen is None else seen


def _to_network(x, channels):
    """Turns `[H, W, C]` into the network's `[N, H, W, channels]`: grey as three channels, or channels one by one."""
    if x.shape[-1] == channels:
        return x[None]
    return np.moveaxis(x, -1, 0)[..., None] if channels == 1 else np.repeat(x, channels, axis=-1)[None]


def _from_network(x, channels):
    """Reverses `_to_network`: `[N, H, W, ..]` into `[H, W, channels]`."""
    if len(x) > 1:
        return np.moveaxis(x[..., 0], 0, -1)
    return x[0] if x.shape[-1] == channels else x[0].mean(axis=-1, keepdims=True)


def _soft(valid):
    """Returns a mask that is less than 1 within a pixel of the hole, and 0 in the hole, whose content is not known.

    Networks with `soft_mask` were trained on masks that were shrunk with interpolation.
    """
    return cv2.blur(valid.astype(np.float32), (3, 3), borderType=cv2.BORDER_REPLICATE) * valid


def _round_up(x, multiple):
    return -(-x // multiple) * multiple
