"""A trained network that fills holes of photographs of any size, from coarse to fine and in tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.inpainting import pyramid, tiles
from pconv_jax.models import unet
from pconv_jax.training import build, checkpoints, rundir, train_state, validation

TILE = 1024  # pixels per side of the largest tile

# Pixels that `mask_update` "keep" fills of a hole: the window of the last layer, and one more, because the mask of half
# the size counts as valid where it is enlarged.
RIM = 2

_SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}
_TURNS = 8  # flips and turns of a square


class Inpainter:
    """Fills holes of photographs as they are: never resized, valid pixels untouched.

    With `settings`, from coarse to fine (`pyramid`): the network sees an image pyramid of the photograph, the coarsest
    level first, and each level's result guides the next. So holes may be larger than the network's receptive field.
    Without, the network is applied once, and what it cannot see holds the mean of the valid pixels.

    Every level is computed in square tiles, of which those without a hole are skipped. Their sides are `tile`, a half,
    a quarter and an eighth of it, so that at most four functions are compiled whatever the sizes of the photographs;
    each level takes the side that covers its holes with the fewest pixels. Tiles start at multiples of `2 ** depth`,
    share the mean that `model.center` subtracts, and overlap by a quarter or by four times the receptive field's
    radius, whichever is less; in the latter case the result equals one application to the whole image. A level that is
    smaller than a tile is padded, and the network treats the padding as what it is beyond the border of an image
    (`inside` of `unet.UNet`). Networks with group normalisation are not padded further than to a multiple of
    `2 ** depth`, and normalise over a tile.

    Attributes:
      reach: radius of the network's receptive field in pixels (`unet.reach`).
      sight: largest distance from valid pixels at which one application fills: the reach, but `RIM` with `mask_update`
        "keep".
      settings: of the pyramid, or None.
    """

    def __init__(
        self,
        model: unet.UNet,
        variables,
        tile: int = TILE,
        settings: pyramid.Settings | None = None,
        ensemble: int = 1,
    ):
        """Prepares a network.

        Args:
          model: the network.
          variables: its parameters, and the running statistics of batch normalisation.
          tile: largest side of a tile in pixels, rounded up to a multiple of `4 * 2 ** depth`.
          settings: of the pyramid, which belong to the parameters; None for one application.
          ensemble: number of flips and turns of the photograph whose results are averaged, 1 to 8. The time grows
            in proportion.

        Raises:
          UserError: a tile of no pixels, an ensemble of another number.
        """
        if tile < 1:
            raise errors.UserError(f"tile is {tile}; needs a number of pixels, e.g. {TILE}")
        if not 1 <= ensemble <= _TURNS:
            raise errors.UserError(f"ensemble is {ensemble}; needs 1 (none) to {_TURNS} flips and turns")
        self.reach = unet.reach(model.depth, model.kernels)
        self.sight = RIM if model.mask_update == "keep" else self.reach
        self.settings = settings
        self._ensemble = ensemble
        self._channels, self._multiple = model.channels, 2**model.depth
        self._tile = _round_up(tile, 4 * self._multiple)
        self._variables = unet.prepared(variables, model.dtype)
        self._predict = jax.jit(functools.partial(_predict, model.clone(center=False)))
        self._centers, self._pads = model.center, model.norm != "group"
        self._guesses = getattr(model, "guess", False)

    @classmethod
    def from_run(cls, run: str, checkpoint: str = "last", tile: int = TILE, ensemble: int = 1) -> "Inpainter":
        """Loads the network of a run directory, with averaged parameters where the run has them.

        Args:
          run: the directory that training wrote.
          checkpoint: "last" or "best".
          tile, ensemble: as in `__init__`.

        Raises:
          UserError: there is no run, no checkpoint, or one of another network.
        """
        if checkpoint not in ("last", "best"):
            raise errors.UserError(f'checkpoint is "{checkpoint}"; needs last or best')
        config = rundir.read_config(run)
        validation.validate(config)
        state = checkpoints.restore_chosen(run, train_state.shapes(config), checkpoint)
        return cls(build.unet_model(config), state.eval_variables, tile, ensemble=ensemble)

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Fills the hole of an image as `fill` does, and logs a warning about pixels that the network could not see."""
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
          UserError: another shape, dtype or range; a mask that is not 0 or 1, or nothing but hole; a network whose
            output is not finite.
        """
        planes, valid = _checked(image, mask)
        if valid.all():
            return image.copy(), 0.0
        scale = _SCALES[image.dtype.name]
        output, seen = self._output(planes, valid, scale, ~valid)
        hole = output[~valid]
        filled = planes.copy()
        filled[~valid] = hole if scale == 1 else np.round(hole * np.float64(scale))
        return filled.reshape(image.shape), float(np.mean(~seen[~valid]))

    def predict(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns the network's own output for all pixels, valid ones included: the raw prediction.

        Args:
          image, mask: as for `fill`.

        Returns:
          float32 `[H, W, C]`, clipped to [0, 1].

        Raises:
          UserError: as for `fill`.
        """
        planes, valid = _checked(image, mask)
        return self._output(planes, valid, _SCALES[image.dtype.name], np.ones_like(valid))[0]

    def explain(self, unseen: float) -> str:
        """Returns a warning about the share of the hole that the network could not see."""
        share = f"{unseen:.1%}" if unseen >= 0.001 else "less than 0.1%"
        sees, remedy = "can see", "use a smaller hole, or a network of larger model.depth"
        if self.sight < self.reach:
            sees, remedy = "fills with model.mask_update=keep", "use a network with model.mask_update=shrink"
        return (
            f"{share} of the hole is farther from valid pixels than the network {sees} (at most {self.sight} pixels) "
            f"and holds the mean of the valid pixels: {remedy}"
        )

    def _output(self, planes, valid, scale, wanted):
        """Returns `(output [H, W, C] in [0, 1], seen [H, W])` where `wanted`, as the mean over the ensemble."""
        image = np.where(valid[..., None], planes, planes.dtype.type(0)).astype(np.float32) / np.float32(scale)
        total, count = np.zeros(image.shape, np.float32), np.zeros(valid.shape, np.float32)
        for turn in range(self._ensemble):
            output, seen = self._levels(*(_turned(x, turn) for x in (image, valid, wanted)))
            output, seen = _turned_back(output, turn), _turned_back(seen, turn)
            total += np.where(seen[..., None], output, 0)
            count += seen
        seen = count > 0
        mean = np.mean(image, axis=(0, 1), dtype=np.float64, where=valid[..., None])
        output = np.where(seen[..., None], total / np.maximum(count, 1)[..., None], mean)
        if not np.isfinite(output[wanted]).all():
            raise errors.UserError("the network's output is not finite: train again, or take another checkpoint")
        return np.clip(output, 0, 1), seen

    def _levels(self, image, valid, wanted):
        """Fills from the coarsest level to the finest and returns the finest level's `(output, seen)`."""
        if self.settings is None:
            return self._level(image, valid, None, wanted)
        levels, guess = pyramid.build(image, valid, self.settings), None
        for level, (image, valid) in reversed(list(enumerate(levels))):
            if guess is not None:
                guess = pyramid.enlarge(guess, valid.shape)
            elif self._guesses:
                guess = pyramid.interpolate(image, valid)
            output, seen = self._guided(image, valid, guess, wanted if level == 0 else ~valid)
            if guess is None and not seen[~valid].all():
                output = np.where(seen[..., None], output, pyramid.interpolate(image, valid))
            guess = np.where(valid[..., None], image, output)
        return output, np.ones_like(seen)

    def _guided(self, image, valid, guess, wanted):
        """Returns `(output, seen)` of one level of the pyramid, with the coarser level's result as a guess, or None."""
        if self._guesses or guess is None:
            return self._level(image, valid, guess, wanted)
        known = valid | (pyramid.depth(valid) > self.settings.band)
        image = np.where(valid[..., None], image, guess)
        output, seen = self._level(image, known, None, wanted & (~known | valid))
        return np.where(((valid | ~known) & seen)[..., None], output, image), np.ones_like(seen)

    def _level(self, image, valid, guess, wanted):
        """Applies the network to one level: `(output [H, W, C], seen [H, W])` where `wanted`."""
        mean = np.mean(image, axis=(0, 1), dtype=np.float64, where=valid[..., None]).astype(np.float32)
        return self._tiled(image, valid, guess, mean, wanted, self._tile)

    def _tiled(self, image, valid, guess, mean, wanted, tile):
        size = tuple(_round_up(extent, self._multiple) for extent in valid.shape)
        if self._pads:
            chosen = tiles.side(size, wanted, self._sides(tile), self._overlap)
            sides, size = (chosen, chosen), tuple(max(extent, chosen) for extent in size)
        else:
            sides = tuple(min(extent, tile) for extent in size)

        def predict(top, left):
            here = np.s_[top : top + sides[0], left : left + sides[1]]
            return self._predict_tile(image[here], valid[here], None if guess is None else guess[here], mean, sides)

        output, seen = tiles.blend(size, sides, self._overlap(max(sides)), wanted, predict)
        missing = wanted & ~seen
        if missing.any() and sides != size and tile < 4 * self.sight:  # a larger tile may show it more
            more, more_seen = self._tiled(image, valid, guess, mean, missing, 2 * tile)
            output[missing], seen[missing] = more[missing], more_seen[missing]
        return output, seen

    def _sides(self, tile):
        """The sides of tiles that the network is compiled for, smallest first."""
        return sorted({_round_up(-(-tile // part), 4 * self._multiple) for part in (8, 4, 2, 1)})

    def _overlap(self, tile):
        return min(tile // 4, _round_up(4 * self.reach, self._multiple))

    def _predict_tile(self, image, valid, guess, mean, sides):
        """Applies the network to one tile, padded to `sides`: output float32 `[*sides, C]` and where it saw."""
        padding = [(0, side - extent) for side, extent in zip(sides, valid.shape, strict=True)]

        def prepared(x):
            return _to_network(np.pad(x, [*padding, (0, 0)]), self._channels)

        planes = prepared(image)
        mask = np.broadcast_to(np.pad(valid.astype(np.float32), padding)[..., None], (*planes.shape[:3], 1))
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


def _turned(x, turn):
    """Turns an image `[H, W, ..]` by `turn % 4` quarters, after flipping it where `turn` is 4 or more."""
    return np.ascontiguousarray(np.rot90(x[:, ::-1] if turn >= 4 else x, turn % 4))


def _turned_back(x, turn):
    """Reverses `_turned`."""
    x = np.rot90(x, -(turn % 4))
    return x[:, ::-1] if turn >= 4 else x


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


def _checked(image, mask):
    """Returns the image as `[H, W, C]` and where it is valid, bool `[H, W]`, or raises a UserError."""
    if image.dtype.name not in _SCALES:
        raise errors.UserError(f"image is {image.dtype}; needs {', '.join(_SCALES)}")
    planes = image[..., None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[-1] not in (1, 3) or not planes.size:
        raise errors.UserError(
            f"image is {list(image.shape)}; needs [H, W], [H, W, 1] or [H, W, 3]: keep alpha apart from it"
        )
    if mask.shape not in (planes.shape[:2], (*planes.shape[:2], 1)):
        raise errors.UserError(
            f"mask is {list(mask.shape)} and image {list(image.shape)}; needs the same height and width"
        )
    if not np.isin(mask, (0, 1)).all():
        raise errors.UserError(
            f"mask holds {mask.min()} to {mask.max()}; needs 0 (hole) and 1 (valid) and nothing between"
        )
    valid = mask.reshape(planes.shape[:2]) == 1
    if not valid.any():
        raise errors.UserError("the mask is all hole: nothing is left to fill it from")
    if image.dtype == np.float32:
        seen = planes[valid]
        if not (np.isfinite(seen).all() and seen.min() >= 0 and seen.max() <= 1):
            raise errors.UserError(f"valid pixels range from {seen.min()} to {seen.max()}; float32 needs [0, 1]")
    return planes, valid


def _round_up(x, multiple):
    return -(-x // multiple) * multiple
