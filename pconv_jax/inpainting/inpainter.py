"""A trained network that fills holes of photographs of any size, from coarse to fine and in tiles."""

import jax
import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.inpainting import pyramid, tiled_network, weights_file
from pconv_jax.models import unet

TILE = 1024  # pixels per side of the largest tile

_SCALES = {"uint8": 255, "uint16": 65535, "float32": 1}
_TURNS = 8  # flips and turns of a square


class Inpainter:
    """Fills holes of photographs as they are: never resized, valid pixels untouched.

    With `settings`, from coarse to fine (`pyramid`): the network sees an image pyramid of the photograph, the coarsest
    level first, and each level's result guides the next. So holes may be larger than the network's receptive field.
    Without, the network is applied once, and what it cannot see holds the mean of the valid pixels.

    Every level is computed in tiles of at most four sizes, whatever the sizes of the photographs
    (`tiled_network.TiledNetwork`).

    Attributes:
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
          settings: of the pyramid, which belong to the parameters; None for one application, or for the default
            settings where the network takes a guess.
          ensemble: number of flips and turns of the photograph whose results are averaged, 1 to 8. The time grows
            in proportion.

        Raises:
          UserError: a tile of no pixels, an ensemble of another number.
        """
        if tile < 1:
            raise errors.UserError(f"tile is {tile}; needs a number of pixels, e.g. {TILE}")
        if not 1 <= ensemble <= _TURNS:
            raise errors.UserError(f"ensemble is {ensemble}; needs 1 (none) to {_TURNS} flips and turns")
        self._ensemble = ensemble
        with jax.enable_x64(False):  # 32 bits, here and in `_output`, whatever another program of the process sets.
            self._network = tiled_network.TiledNetwork(model, variables, tile)
        self.settings = settings or (pyramid.Settings() if self._network.guesses else None)

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
        # Here, because photographs are filled by exported weights without the libraries that training needs.
        from pconv_jax.training import build, checkpoints, rundir, validation

        config = rundir.read_config(run)
        validation.validate(config)
        state = checkpoints.restore_chosen(run, build.state_shapes(config), checkpoint)
        return cls(build.unet_model(config), state.eval_variables, tile, pyramid.of_config(config), ensemble)

    @classmethod
    def from_weights(cls, path: str, tile: int = TILE, ensemble: int = 1) -> "Inpainter":
        """Loads a weights file, which `python -m pconv_jax.tools.export_weights` makes of a run.

        Args:
          path: of the file.
          tile, ensemble: as in `__init__`.

        Raises:
          UserError: there is no such file, it is damaged, or of another kind.
        """
        weights = weights_file.read(path)
        return cls(weights.model(), weights.variables, tile, weights.settings, ensemble)

    @classmethod
    def pretrained(cls, tile: int = TILE, ensemble: int = 1) -> "Inpainter":
        """Loads the weights that the package contains, for photographs.

        Args:
          tile, ensemble: as in `__init__`.

        Raises:
          UserError: this copy of the package lacks them.
        """
        return cls.from_weights(weights_file.PRETRAINED, tile, ensemble)

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
        image, mask = _arrays(image, mask)
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
        image, mask = _arrays(image, mask)
        planes, valid = _checked(image, mask)
        return self._output(planes, valid, _SCALES[image.dtype.name], np.ones_like(valid))[0]

    def explain(self, unseen: float) -> str:
        """Returns a warning about the share of the hole that the network could not see."""
        share = f"{unseen:.1%}" if unseen >= 0.001 else "less than 0.1%"
        sees, remedy = "can see", "use a smaller hole, or a network of larger model.depth"
        if self._network.sight < self._network.reach:
            sees, remedy = "fills with model.mask_update=keep", "use a network with model.mask_update=shrink"
        return (
            f"{share} of the hole is farther from valid pixels than the network {sees} (at most {self._network.sight} "
            f"pixels) and holds the mean of the valid pixels: {remedy}"
        )

    def _output(self, planes, valid, scale, wanted):
        """Returns `(output [H, W, C] in [0, 1], seen [H, W])` where `wanted`, as the mean over the ensemble."""
        image = np.where(valid[..., None], planes, planes.dtype.type(0)).astype(np.float32) / np.float32(scale)
        total, count = np.zeros(image.shape, np.float32), np.zeros(valid.shape, np.float32)
        for turn in range(self._ensemble):
            with jax.enable_x64(False):
                output, seen = self._levels(*(_turned(x, turn) for x in (image, valid, wanted)))
            output, seen = _turned_back(output, turn), _turned_back(seen, turn)
            total += np.where(seen[..., None], output, 0)
            count += seen
        seen = count > 0
        mean = np.mean(image, axis=(0, 1), dtype=np.float64, where=valid[..., None]).astype(np.float32)
        output = np.where(seen[..., None], total / np.maximum(count, 1)[..., None], mean)
        if not np.isfinite(output[wanted]).all():
            raise errors.UserError("the network's output is not finite: train again, or take another checkpoint")
        return np.clip(output, 0, 1), seen

    def _levels(self, image, valid, wanted):
        """Fills from the coarsest level to the finest and returns the finest level's `(output, seen)`."""
        if self.settings is None:
            return self._network(image, valid, None, wanted)
        levels, guess = pyramid.build(image, valid, self.settings), None
        for level, (image, valid) in reversed(list(enumerate(levels))):
            if guess is not None:
                guess = pyramid.enlarge(guess, valid.shape)
            elif self._network.guesses:
                guess = pyramid.interpolate(image, valid)
            output, seen = self._guided(image, valid, guess, wanted if level == 0 else ~valid)
            if guess is None and not seen[~valid].all():
                output = np.where(seen[..., None], output, pyramid.interpolate(image, valid))
            guess = np.where(valid[..., None], image, output)
        return output, np.ones_like(seen)

    def _guided(self, image, valid, guess, wanted):
        """Returns `(output, seen)` of one level of the pyramid, with the coarser level's result as a guess, or None."""
        if self._network.guesses or guess is None:
            return self._network(image, valid, guess, wanted)
        known = valid | (pyramid.depth(valid) > self.settings.band)
        image = np.where(valid[..., None], image, guess)
        output, seen = self._network(image, known, None, wanted & (~known | valid))
        return np.where(((valid | ~known) & seen)[..., None], output, image), np.ones_like(seen)


def _turned(x, turn):
    """Turns an image `[H, W, ..]` by `turn % 4` quarters, after flipping it where `turn` is 4 or more."""
    return np.ascontiguousarray(np.rot90(x[:, ::-1] if turn >= 4 else x, turn % 4))


def _turned_back(x, turn):
    """Reverses `_turned`."""
    x = np.rot90(x, -(turn % 4))
    return x[:, ::-1] if turn >= 4 else x


def _arrays(image, mask):
    """Returns an image and a mask, given as anything that NumPy converts, as arrays.

    Masked pixels of a masked array are hole.
    """
    for name, value in (("image", image), ("mask", mask)):
        if getattr(value, "mode", "L") not in ("1", "L", "RGB", "I;16"):  # NumPy takes a palette's indices for grey.
            raise errors.UserError(f"{name} is a Pillow image of mode {value.mode}: convert it to RGB or L first")
    hidden = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    image = np.asarray(image)
    mask = np.asarray(np.ma.filled(mask, 0) if isinstance(mask, np.ma.MaskedArray) else mask)
    if hidden is not None and mask.shape[:2] == image.shape[:2]:
        hidden = hidden.reshape(*image.shape[:2], -1).any(axis=-1)
        mask = np.where(hidden.reshape(mask.shape), 0, mask)
    return image, mask


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
