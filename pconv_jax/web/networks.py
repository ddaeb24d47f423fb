"""The networks that the page offers: the weights that the package contains, files of weights, and runs."""

import dataclasses
import os
from collections.abc import Sequence

from pconv_jax import errors
from pconv_jax.inpainting import inpainter
from pconv_jax.reading import files

PRETRAINED = "pretrained"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A network by which holes can be filled.

    Attributes:
      id: its identifier.
      name: its name for people.
      description: where it is from.
      network: the network, with an ensemble of 1.
    """

    id: str
    name: str
    description: str
    network: inpainter.Inpainter


def load(
    weights: Sequence[str] = (), runs: Sequence[str] = (), tile: int = inpainter.TILE, *, soft_mask: bool = False
) -> dict[str, Choice]:
    """Loads networks; the first is the default, and the weights of the package are the last.

    Args:
      weights: paths of weights files.
      runs: run directories.
      tile: largest side of a tile in pixels.
      soft_mask: as for `Inpainter.from_weights`, for all files of weights.

    Returns:
      The networks by `id`.

    Raises:
      UserError: one of them does not exist or cannot be read.
    """
    choices = [
        Choice(f"weights{number}", _name(path), path, inpainter.Inpainter.from_weights(path, tile, soft_mask=soft_mask))
        for number, path in enumerate(weights, 1)
    ]
    choices += [
        Choice(f"run{number}", _name(path), path, inpainter.Inpainter.from_run(path, tile=tile))
        for number, path in enumerate(runs, 1)
    ]
    shipped = inpainter.Inpainter.pretrained(tile)
    choices.append(Choice(PRETRAINED, "photographs", "the weights that the package contains", shipped))
    return {choice.id: choice for choice in choices}


def chosen(choices: dict[str, Choice], identifier: str) -> inpainter.Inpainter:
    """Returns a network.

    Args:
      choices: what `load` returned.
      identifier: `id` of a choice; empty for the default.

    Raises:
      UserError: there is no such choice.
    """
    identifier = identifier or next(iter(choices))
    if identifier not in choices:
        raise errors.UserError(f"weights are {identifier[:40]!r}; needs one of {', '.join(choices)}")
    return choices[identifier].network


def _name(path):
    return files.printable(os.path.splitext(os.path.basename(os.path.normpath(path)))[0])
