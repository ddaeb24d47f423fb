"""A trained network that fills holes of photographs of any size, from coarse to fine and in tiles."""

import copy
from collections.abc import Callable

import jax
import numpy as np
from absl import logging

from pconv_jax import errors
from pconv_jax.inpainting import arguments, progresses, pyramid, tiled_network, weights_file
from pconv_jax.models import unet

TILE = 1024  # The side of the largest tile in pixels, by default.

_TURNS = 8  # The number of flips and turns of a square.


class Inpainter:
    """Fills holes of photographs without resizing them or changing a valid pixel.

    With `settings`, it fills from coarse to fine: it applies the network to each level of an image pyramid of the
    photograph (`pyramid`), the coarsest first, and the result of a level guides the next. Holes may then be larger than
    the network's receptive field. Without `settings`, it applies the network once, and pixels that are too far from
    valid ones get the mean of the valid pixels.

    Every level is computed in tiles of at most four sizes, so that few functions are compiled however many sizes the
    photographs have (`tiled_network.TiledNetwork`).

    Attributes:
      settings: settings of the pyramid, or None.
    """

    def __init__(
        self,
        model: unet.UNet,
        variables,
        tile: int = TILE,
        settings: pyramid.Settings | None = None,
        ensemble: int = 1,
    ):
        """Prepares the network for photographs.

        Args:
          model: the network.
          variables: its parameters, and the running statistics of batch normalisation.
          tile: largest side of a tile in pixels, rounded up to a multiple of `4 * 2 ** depth`.
          settings: settings of the pyramid, which belong to the parameters. None applies the network once, or with
            the default settings if it takes a guess (`model.guess`).
          ensemble: number of flips and turns of the photograph whose results are averaged, 1 to 8. The time grows
            in proportion.

        Raises:
          UserError: the tile has less than 1 pixel, the ensemble is not 1 to 8, or the network is for grids of the
            whole earth.
        """
        if model.padding == "circular":
            raise errors.UserError(
                "the network's width wraps around, for grids of the whole earth: use python -m pconv_jax.infill"
            )
        if tile < 1:
            raise errors.UserError(f"tile is {tile}; needs a number of pixels, e.g. {TILE}")
        self._ensemble = _checked_ensemble(ensemble)
        with jax.enable_x64(
            False
        ):  # 32 bits, even if other code of this process has enabled 64; `_output` does the same.
            self._network = tiled_network.TiledNetwork(model, variables, tile)
        self.settings = settings or (pyramid.Settings() if self._network.guesses else None)

    @classmethod
    def from_run(cls, run: str, checkpoint: str = "last", tile: int = TILE, ensemble: int = 1) -> "Inpainter":
        """Loads the network of a run directory, with averaged parameters where the run has them.

        It is applied in float32, whatever it was trained in, as an exported weights file is.

        Args:
          run: the directory that training wrote.
          checkpoint: "last" or "best".
          tile, ensemble: as in `__init__`.

        Raises:
          UserError: the run or its checkpoint does not exist, or the checkpoint is of another network.
        """
        if checkpoint not in ("last", "best"):
            raise errors.UserError(f'checkpoint is "{checkpoint}"; needs last or best')
        # Imported here, so that exported weights fill photographs without the libraries that training needs.
        from pconv_jax.inpainting import run_weights
        from pconv_jax.training import build

        config, state = run_weights.restore(run, checkpoint)
        return cls(build.unet_model(config), state.eval_variables, tile, pyramid.of_config(config), ensemble)

    @classmethod
    def from_weights(cls, path: str, tile: int = TILE, ensemble: int = 1, *, soft_mask: bool = False) -> "Inpainter":
        """Loads a weights file, which `tools.export_weights` makes of a run, or `tools.import_weights` of a checkpoint.

        Args:
          path: path of the file.
          tile, ensemble: as in `__init__`.
          soft_mask: pixels beside the hole count less, for networks that were trained with soft masks (naoto0804's).

        Raises:
          UserError: the file does not exist, is damaged, or is of another kind.
        """
        weights = weights_file.read(path)
        model = weights.model()
        if soft_mask:
            model = model.clone(soft_mask=True)
        elif weights.about.get("layout") == "naoto0804":
            logging.warning(
                "%s was trained with soft masks and leaves artefacts along the rim of hard ones: try --soft_mask", path
            )
        return cls(model, weights.variables, tile, weights.settings, ensemble)

    @classmethod
    def pretrained(cls, tile: int = TILE, ensemble: int = 1) -> "Inpainter":
        """Loads the weights that the package contains, for photographs.

        Args:
          tile, ensemble: as in `__init__`.

        Raises:
          UserError: this copy of the package lacks them.
        """
        return cls.from_weights(weights_file.PRETRAINED, tile, ensemble)

    def with_ensemble(self, ensemble: int) -> "Inpainter":
        """Returns the same network with another ensemble; the compiled functions are shared.

        Args:
          ensemble: as in `__init__`.

        Raises:
          UserError: it is not 1 to 8.
        """
        other = copy.copy(self)
        other._ensemble = _checked_ensemble(ensemble)
        return other

    @property
    def sides(self) -> list[int]:
        """Returns the sides of tiles that `prepare` takes, smallest first."""
        return self._network.sides

    def prepare(self, side: int):
        """Compiles the network for tiles of one side, which the first filling would otherwise wait for.

        Args:
          side: one of `sides`.
        """
        with jax.enable_x64(False):
            self._network.prepare(side)

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Fills the hole of an image, and logs a warning about pixels that the network could not see.

        Args:
          image, mask: as for `fill`.

        Returns:
          The filled image, of the same shape and dtype.

        Raises:
          UserError: as for `fill`.
        """
        filled, unseen = self.fill(image, mask)
        if unseen:
            logging.warning("%s", self.explain(unseen))
        return filled

    def fill(
        self, image: np.ndarray, mask: np.ndarray, *, progress: Callable[[float], None] | None = None
    ) -> tuple[np.ndarray, float]:
        """Fills the hole of an image.

        Args:
          image: uint8, uint16, or float32 in [0, 1]; `[H, W]`, `[H, W, 1]` or `[H, W, 3]` in RGB. A network for
            RGB gets a grey image as three equal channels; a network for grey gets the channels of RGB one by one.
          mask: `[H, W]` or `[H, W, 1]`, 1 (or True) = valid, 0 = hole. Pixel values in the hole are not read.
          progress: called before the first tile and after each with the fraction that is done, an estimate in [0, 1].
            An exception that it raises ends the filling.

        Returns:
          `(filled, unseen)`: the filled image, of the same shape and dtype, with the valid pixels bit for bit; and the
          fraction of the hole that the network could not see, which is filled with the mean of the valid pixels.

        Raises:
          UserError: the image has another shape, dtype or range, the mask holds other values than 0 and 1 or no valid
            pixel, or the network's output is not finite.
        """
        image, mask = arguments.arrays(image, mask)
        planes, valid = arguments.checked(image, mask)
        if valid.all():
            return image.copy(), 0.0
        scale = arguments.SCALES[image.dtype.name]
        output, seen = self._output(planes, valid, scale, ~valid, progress)
        hole = output[~valid]
        filled = planes.copy()
        filled[~valid] = hole if scale == 1 else np.round(hole * np.float64(scale))
        return filled.reshape(image.shape), float(np.mean(~seen[~valid]))

    def predict(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Returns the raw prediction, which is the network's output for all pixels, valid ones included.

        Args:
          image, mask: as for `fill`.

        Returns:
          float32 `[H, W, C]`, clipped to [0, 1].

        Raises:
          UserError: as for `fill`.
        """
        image, mask = arguments.arrays(image, mask)
        planes, valid = arguments.checked(image, mask)
        return self._output(planes, valid, arguments.SCALES[image.dtype.name], np.ones_like(valid))[0]

    def explain(self, unseen: float) -> str:
        """Returns a warning that explains why a fraction `unseen` of the hole could not be filled by the network."""
        share = f"{unseen:.1%}" if unseen >= 0.001 else "less than 0.1%"
        sees, remedy = "can see", "use a smaller hole, or a network of larger model.depth"
        if self._network.sight < self._network.reach:
            sees, remedy = "fills with model.mask_update=keep", "use a network with model.mask_update=shrink"
        return (
            f"{share} of the hole is farther from valid pixels than the network {sees} (at most {self._network.sight} "
            f"pixels) and holds the mean of the valid pixels: {remedy}"
        )

    def _output(self, planes, valid, scale, wanted, progress=None):
        """Returns the ensemble's mean output `[H, W, C]` in [0, 1] and the seen pixels `[H, W]` where `wanted`."""
        image = np.where(valid[..., None], planes, planes.dtype.type(0)).astype(np.float32) / np.float32(scale)
        total, count = np.zeros(image.shape, np.float32), np.zeros(valid.shape, np.float32)
        for turn in range(self._ensemble):
            with jax.enable_x64(False):
                report = progresses.part(progress, turn, self._ensemble)
                output, seen = self._levels(*(_turned(x, turn) for x in (image, valid, wanted)), report)
            output, seen = _turned_back(output, turn), _turned_back(seen, turn)
            total += np.where(seen[..., None], output, 0)
            count += seen
        seen = count > 0
        mean = np.mean(image, axis=(0, 1), dtype=np.float64, where=valid[..., None]).astype(np.float32)
        output = np.where(seen[..., None], total / np.maximum(count, 1)[..., None], mean)
        if not np.isfinite(output[wanted]).all():
            raise errors.UserError("the network's output is not finite: train again, or take another checkpoint")
        return np.clip(output, 0, 1), seen

    def _levels(self, image, valid, wanted, report):
        """Fills from the coarsest level to the finest and returns the finest level's `(output, seen)`."""
        if self.settings is None:
            computed = progresses.counter(self._network.cost, [wanted], report)
            return self._network(image, valid, None, wanted, computed)
        levels, guess = pyramid.build(image, valid, self.settings), None
        holes = [wanted, *(~valid for _, valid in levels[1:])]
        computed = progresses.counter(self._network.cost, holes, report)
        for level, (image, valid) in reversed(list(enumerate(levels))):
            if guess is not None:
                guess = pyramid.enlarge(guess, valid.shape)
            elif self._network.guesses:
                guess = pyramid.interpolate(image, valid)
            output, seen = self._guided(image, valid, guess, wanted if level == 0 else ~valid, computed)
            if guess is None and not seen[~valid].all():
                output = np.where(seen[..., None], output, pyramid.interpolate(image, valid))
            guess = np.where(valid[..., None], image, output)
        return output, np.ones_like(seen)

    def _guided(self, image, valid, guess, wanted, computed):
        """Returns `(output, seen)` of one level of the pyramid, with the coarser level's result as a guess, or None."""
        if self._network.guesses or guess is None:
            return self._network(image, valid, guess, wanted, computed)
        known = valid | (pyramid.depth(valid) > self.settings.band)
        image = np.where(valid[..., None], image, guess)
        output, seen = self._network(image, known, None, wanted & (~known | valid), computed)
        return np.where(((valid | ~known) & seen)[..., None], output, image), np.ones_like(seen)


def _checked_ensemble(ensemble):
    """Returns the number of flips and turns if there are so many."""
    if not 1 <= ensemble <= _TURNS:
        raise errors.UserError(f"ensemble is {ensemble}; needs 1 (none) to {_TURNS} flips and turns")
    return ensemble


def _turned(x, turn):
    """Turns an image `[H, W, ..]` by `turn % 4` quarters, after flipping it where `turn` is 4 or more."""
    return np.ascontiguousarray(np.rot90(x[:, ::-1] if turn >= 4 else x, turn % 4))


def _turned_back(x, turn):
    """Reverses `_turned`."""
    x = np.rot90(x, -(turn % 4))
    return x[:, ::-1] if turn >= 4 else x
