"""A network applied to grids of the whole earth: `[T, H, W, C]`, latitude from south to north, longitude eastward.

Values are in the units that the network was trained on. A grid of another size than the network's can be
resampled to it and back, each by the mean over the overlapping cells.
"""

from collections.abc import Callable

import jax
import numpy as np

from pconv_jax import errors
from pconv_jax.models import unet


class GridInfiller:
    """Fills missing cells of grids; measured cells stay as they are.

    Attributes:
      grid: height and width of the grid that the network was trained on; None where it is not known.
    """

    def __init__(
        self,
        model: unet.UNet,
        variables,
        grid: tuple[int, int] | None = None,
        *,
        batch_size: int = 32,
        regrid: bool = False,
        north_first: bool = False,
    ):
        """Prepares a network.

        Args:
          model: the network.
          variables: its parameters, and the running statistics of batch normalisation.
          grid: height and width of its grid; None accepts all sizes that the network can compute.
          batch_size: time steps that are computed at once.
          regrid: resample grids of another size to `grid` and the result back; otherwise they are refused.
          north_first: whether the network was trained on grids whose first row is the northernmost.

        Raises:
          UserError: the network takes a guess, or has no grid to resample to.
        """
        if model.guess:
            raise errors.UserError(
                "the network takes a guess, as those for photographs do: give weights of a network for grids"
            )
        if regrid and grid is None:
            raise errors.UserError("the weights do not record the network's grid: import them with --grid=HEIGHTxWIDTH")
        self.grid, self._model, self._batch_size, self._regrid = grid, model, batch_size, regrid
        self._north_first = north_first
        self._variables = unet.prepared(variables, model.dtype)
        self._apply = jax.jit(lambda variables, image, mask: model.apply(variables, image, mask))

    def __call__(
        self, values: np.ndarray, valid: np.ndarray, report: Callable[[int, int], object] = lambda done, total: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predicts all cells.

        Args:
          values: `[T, H, W, C]`, finite where `valid`, with the southernmost row first.
          valid: bool `[T, H, W]`, True where all channels of a cell were measured.
          report: receives the number of finished time steps and of all.

        Returns:
          `(output, seen)`: float32 `[T, H, W, C]` and bool `[T, H, W]`. The output has a meaning where a measured cell
          lies within the receptive field, which `seen` marks.

        Raises:
          UserError: the grid has another size than the network's, or other channels.
        """
        self._check(values.shape[1:])
        if self._north_first:
            values, valid = values[:, ::-1], valid[:, ::-1]
        output, seen = np.zeros(values.shape, np.float32), np.zeros(valid.shape, bool)
        for start in range(0, len(values), self._batch_size):
            part = slice(start, start + self._batch_size)
            image = np.where(valid[part][..., None], values[part], 0).astype(np.float32)
            output[part], seen[part] = self._predict(image, valid[part])
            report(min(start + self._batch_size, len(values)), len(values))
        return (output[:, ::-1], seen[:, ::-1]) if self._north_first else (output, seen)

    def _predict(self, image, valid):
        """Returns `(output, seen)` of one batch, which is padded to the batch size so that one size is compiled."""
        size, count = image.shape[1:3], len(image)
        resamples = self._regrid and size != self.grid
        if resamples:
            image, valid = _resample_channels(image, valid, self.grid)
        missing = ((0, self._batch_size - count), (0, 0), (0, 0), (0, 0))
        arrays = (np.pad(x, missing) for x in (image, valid.astype(np.float32)[..., None]))
        output, mask = (np.asarray(x)[:count] for x in self._apply(self._variables, *arrays))
        seen = mask[..., 0] != 0
        return _resample_channels(output, seen, size) if resamples else (output, seen)

    def _check(self, shape):
        """Raises UserError unless the network takes grids of a shape `(H, W, C)`."""
        *size, channels = shape
        size = tuple(size)
        if channels != self._model.channels:
            raise errors.UserError(
                f"the data have {channels} channels and the network has {self._model.channels}: give as many variables "
                "as it was trained on, or weights of a network for these data"
            )
        if self.grid is None:
            if not self._model.any_size:
                unet.check_size(size, self._model.depth)
        elif size != self.grid and not self._regrid:
            raise errors.UserError(
                f"the grid is {size[0]} x {size[1]} (latitude x longitude); needs {self.grid[0]} x {self.grid[1]}, on "
                "which the network was trained: remap the file, or give --regrid to resample it here and back"
            )


def _resample_channels(values, valid, size):
    """Returns `resample` of `[T, H, W, C]`, whose channels share `valid`, `[T, H, W]`."""
    results = [resample(values[..., channel], valid, size) for channel in range(values.shape[-1])]
    return np.stack([resampled for resampled, _ in results], axis=-1), results[0][1]


def resample(values: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Resamples grids to another size by the mean over the valid part of the cells that overlap.

    Both grids cover the same area with cells of equal height and width.

    Args:
      values: `[T, H, W]`; what is not valid does not matter.
      valid: bool `[T, H, W]`.
      size: height and width of the result.

    Returns:
      `(values, valid)` of the new size: float32, and True where a valid cell overlaps.
    """
    rows, columns = (_overlaps(old, new) for old, new in zip(values.shape[1:], size, strict=True))
    total = rows @ np.where(valid, values, 0).astype(np.float64) @ columns.T
    share = rows @ valid.astype(np.float64) @ columns.T
    seen = share > 1e-9  # shares are rounded
    return (total / np.where(seen, share, 1)).astype(np.float32), seen


def _overlaps(old, new):
    """Returns the share of each new cell that each old cell covers, `[new, old]`."""
    edges, new_edges = np.arange(old + 1) / old, np.arange(new + 1) / new
    low = np.maximum(edges[None, :-1], new_edges[:-1, None])
    high = np.minimum(edges[None, 1:], new_edges[1:, None])
    return np.clip(high - low, 0, None) * new
