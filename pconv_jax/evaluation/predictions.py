"""Results of another program as a method to score: a folder of `<name>.png`, matched to the inputs by name."""

import os

import numpy as np

from pconv_jax.evaluation import inputs, manifest, scores


def method(directory: str, names: tuple[str, ...], size: tuple[int, int], channels: int) -> scores.Fill:
    """Makes a method of a folder with results for all inputs. Only their pixels in the hole are used.

    Args:
      directory: folder of 8-bit PNGs, RGB or grey like the inputs.
      names: names of the inputs.
      size: `(height, width)` of the inputs.
      channels: number of channels of the inputs, 1 or 3.

    Returns:
      The method.

    Raises:
      UserError: files are missing, surplus, or of another size or kind; the message lists them.
    """
    manifest.check_files(directory, names, size, channels)

    def fill(examples: list[inputs.Example]) -> np.ndarray:
        paths = [os.path.join(directory, f"{example.name}.png") for example in examples]
        return np.stack([manifest.read(path, channels) for path in paths])

    return fill
