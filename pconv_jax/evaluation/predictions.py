"""Another program's results as a method: a folder of `<name>.png`, matched to the inputs by name, never by order."""

import os

import numpy as np

from pconv_jax.evaluation import inputs, manifest, scores


def method(directory: str, names: tuple[str, ...], size: tuple[int, int], channels: int) -> scores.Fill:
    """Results of all inputs; valid pixels may be in them or not, the composite takes only the hole.

    Args:
      directory: of 8-bit PNGs, RGB or grey as the inputs are.
      names: of the inputs.
      size: `(height, width)` of the inputs.
      channels: of the inputs.

    Raises:
      ValueError: files are missing, surplus or of another size or kind; all are listed.
    """
    manifest.check_files(directory, names, size, channels)

    def fill(examples: list[inputs.Example]) -> np.ndarray:
        paths = [os.path.join(directory, f"{example.name}.png") for example in examples]
        return np.stack([manifest.read(path, channels) for path in paths])

    return fill
