"""A trained network that fills holes of images of any size: never resized, in tiles where they are large."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax.inpainting import tiles
from pconv_jax.models import unet
from pconv_jax.training import build, checkpoints, rundir, train_state, validation

TILE = 1024  # pixels per side of what is computed at once

# What `mask_update` "keep" fills of a hole, in pixels: the window of the last layer, and a pixel more that the mask of
# half the size, enlarged, takes for valid.
RIM = 2

_SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}


class Inpainter:
    """Fills holes of images as they are: never resized, valid pixels untouched, in tiles where they are large.

    An image is padded at the bottom and on the right with holes to a multiple of `2 ** depth`. For each layer of
    partial convolution by itself that is the same as its padding. For the whole network it nearly is: in the padding
    next to the image, deeper layers have features, which its last `reach` rows and columns see; with `mask_update`
    "vanish" all of the padding has, behind the first layer. An image that needs no padding gets none.

    Tiles start at multiples of `2 ** depth`, share the mean that `model.center` subtracts, and overlap by a quarter or
    by four times the reach, whichever is less; in the latter case they compute what one application to the
    whole image computes. Group normalisation is over a tile. Programs are compiled once per padded size, and once for
    all images with both sides larger than a tile.

    Attributes:
      reach: how far the network looks, in pixels (`unet.reach`).
      sight: how far from valid pixels it fills at most, in pixels: the reach, but `RIM` with `mask_update` "keep".
    """

    def __init__(self, model: unet.UNet, variables, tile: int = TILE):
        """Takes a network and its variables.

        Args:
          model: the network.
          variables: its parameters, and the running statistics of batch normalisation.
          tile: largest side of what is computed at once, in pixels, rounded up to a multiple of `4 * 2 ** depth`.

        Raises:
          ValueError: a tile of no pixels.
        """
        if tile < 1:
            raise ValueError(f"tile is {tile}; needs a number of pixels, e.g. {TILE}")
        self.reach = unet.reach(model.depth, model.kernels)
        self.sight = RIM if model.mask_update == "keep" else self.reach
        self._channels, self._multiple = model.channels, 2**model.depth
        self._tile = _round_up(tile, 4 * self._multiple)
        self._variables = unet.prepared(variables, model.dtype)
        self._predict = jax.jit(functools.partial(_predict, model.clone(center=False)))
        self._centers = model.center

    @classmethod
    def from_run(cls, run: str, checkpoint: str = "last", tile: int = TILE) -> "Inpainter":
        """The network of a run directory, with averaged parameters where the run has them.

        Args:
          run: the directory that training wrote.
          checkpoint: "last" or "best".
          tile: as above.

        Raises:
          ValueError: there is no run, no checkpoint, or one of another network.
        """
        if checkpoint not in ("last", "best"):
            raise ValueError(f'checkpoint is "{checkpoint}"; needs last or best')
        config = rundir.read_config(run)
        validation.validate(config)
        now = checkpoints.restore_chosen(run, train_state.shapes(config), checkpoint)
        return cls(build.unet_model(config), now.eval_variables, tile)

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`fill`, with a warning in the log about pixels that the network could not see."""
        filled, unseen = self.fill(image, mask)
        if unseen:
            logging.warning("%s", self.explain(unseen))
        return filled

    def fill(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
        """Fills the hole of an image.

        Args:
          image: uint8, uint16, or float32 in [0, 1]; `[H, W]`, `[H, W, 1]` or `[H, W, 3]` in RGB. A network for
            RGB sees grey as three equal channels, one for grey sees the channels of RGB one by one.
          mask: `[H, W]` or `[H, W, 1]`, 1 (or True) = valid, 0 = hole. What lies in the hole is not read.

        Returns:
          `(filled, unseen)`: the image with its hole filled, of the same shape and dtype, valid pixels the same bits;
          and the share of the hole that the network could not see, which holds the mean of the valid pixels.

        Raises:
          ValueError: another shape, dtype or range; a mask that is not 0 or 1, or nothing but hole; a network whose
            output is not finite.
        """
        planes, valid = _checked(image, mask)
        if valid.all():
            return image.copy(), 0.0
        scale = _SCALES[image.dtype.name]
        mean = np.mean(planes, axis=(0, 1), dtype=np.float64, where=valid[..., None]) / scale
        output, seen = self._apply(planes, valid, mean.astype(np.float32), ~valid, self._tile)
        output[~seen] = mean
        hole = output[~valid]
        if not np.isfinite(hole).all():
            raise ValueError("the network's output is not finite: train again, or take another checkpoint")
        hole = np.clip(hole, 0, 1)
        filled = planes.copy()
        filled[~valid] = hole if scale == 1 else np.round(hole * np.float64(scale))
        return filled.reshape(image.shape), float(np.mean(~seen[~valid]))

    def explain(self, unseen: float) -> str:
        """What to tell about a share of the hole that the network could not see."""
        share = f"{unseen:.1%}" if unseen >= 0.001 else "less than 0.1%"
        sees, mend = "can see", "use a smaller hole, or a network of larger model.depth"
        if self.sight < self.reach:
            sees, mend = "fills with model.mask_update=keep", "use a network with model.mask_update=shrink"
        return (
            f"{share} of the hole is farther from valid pixels than the network {sees} (at most {self.sight} pixels) "
            f"and holds the mean of the valid pixels: {mend}"
        )

    def _apply(self, planes, valid, mean, wanted, tile):
        """Output float32 `[H, W, C]` in units of white, and where the network saw, both only where `wanted`."""
        size = tuple(_round_up(side, self._multiple) for side in valid.shape)
        sides = tuple(min(side, tile) for side in size)
        overlap = min(tile // 4, _round_up(4 * self.reach, self._multiple))

        def predict(top, left):
            here = np.s_[top : top + sides[0], left : left + sides[1]]
            return self._predict_tile(planes[here], valid[here], mean, sides)

        output, seen = tiles.blend(size, sides, overlap, wanted, predict)
        missing = wanted & ~seen
        if missing.any() and sides != size and tile < 4 * self.sight:  # a larger tile may show it more
            more, more_seen = self._apply(planes, valid, mean, missing, 2 * tile)
            output[missing], seen[missing] = more[missing], more_seen[missing]
        return output, seen

    def _predict_tile(self, planes, valid, mean, sides):
        """One tile, padded to `sides` with holes: output float32 `[*sides, C]` and where the network saw."""
        padding = [(0, side - extent) for side, extent in zip(sides, valid.shape, strict=True)]
        scale = np.float32(_SCALES[planes.dtype.name])
        image = _to_network(np.pad(planes.astype(np.float32) / scale, [*padding, (0, 0)]), self._channels)
        mask = np.pad(valid.astype(np.float32), padding)[..., None]
        mask = np.broadcast_to(mask, (*image.shape[:3], 1))
        offset = _to_network(np.reshape(mean if self._centers else 0 * mean, (1, 1, -1)), self._channels)
        output, seen = self._predict(self._variables, image, mask, offset)
        return _from_network(np.asarray(output), planes.shape[-1]), np.asarray(seen)[0, ..., 0] > 0


def _predict(model, variables, image, mask, offset):
    """`(output, seen)` of a network that does not centre by itself; kinds without a mask are taken to see all."""
    output, seen = model.apply(variables, image - offset, mask, train=False)
    return output + offset, jnp.ones_like(mask) if seen is None else seen


def _to_network(x, channels):
    """`[H, W, C]` -> `[N, H, W, channels]`."""
    if x.shape[-1] == channels:
        return x[None]
    return np.moveaxis(x, -1, 0)[..., None] if channels == 1 else np.repeat(x, channels, axis=-1)[None]


def _from_network(x, channels):
    """`[N, H, W, ..]` -> `[H, W, channels]`: the reverse."""
    if len(x) > 1:
        return np.moveaxis(x[..., 0], 0, -1)
    return x[0] if x.shape[-1] == channels else x[0].mean(axis=-1, keepdims=True)


def _checked(image, mask):
    """The image as `[H, W, C]` and where it is valid, bool `[H, W]`."""
    if image.dtype.name not in _SCALES:
        raise ValueError(f"image is {image.dtype}; needs {', '.join(_SCALES)}")
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[-1] not in (1, 3) or not planes.size:
        raise ValueError(
            f"image is {list(image.shape)}; needs [H, W], [H, W, 1] or [H, W, 3]: keep alpha apart from it"
        )
    if mask.shape not in (planes.shape[:2], (*planes.shape[:2], 1)):
        raise ValueError(f"mask is {list(mask.shape)} and image {list(image.shape)}; needs the same height and width")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(f"mask holds {mask.min()} to {mask.max()}; needs 0 (hole) and 1 (valid) and nothing between")
    valid = mask.reshape(planes.shape[:2]) == 1
    if not valid.any():
        raise ValueError("the mask is all hole: nothing is left to fill it from")
    if image.dtype == np.float32:
        seen = planes[valid]
        if not (np.isfinite(seen).all() and seen.min() >= 0 and seen.max() <= 1):
            raise ValueError(f"valid pixels range from {seen.min()} to {seen.max()}; float32 needs [0, 1]")
    return planes, valid


def _round_up(x, multiple):
    return -(-x // multiple) * multiple
