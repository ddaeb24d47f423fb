"""Fills the hole of a photograph in memory: the steps that the command line and the page share."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from pconv_jax import errors
from pconv_jax.data import masks
from pconv_jax.inpainting import drawn_masks, inpainter, photograph

MAX_PIXELS = 200_000_000
SMALL, LARGE = 0.01, 0.6  # Outside this range of hole areas the polarity may be the wrong one.
GREY = 0.1  # With a larger share of grey pixels, an image may not be a mask.


@dataclasses.dataclass(frozen=True)
class Options:
    """Options for reading and growing holes.

    Attributes:
      polarity: one of `drawn_masks.POLARITIES`.
      dilate: pixels by which the hole grows before it is filled: editors leave halos along its rim.
      feather: pixels, of those by which the hole grew, over which the image fades into the filling.
      max_pixels: largest number of pixels of a file.
    """

    polarity: str
    dilate: int = 0
    feather: int = 0
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if self.polarity not in drawn_masks.POLARITIES:
            raise errors.UserError(f"polarity is {self.polarity}; needs one of {', '.join(drawn_masks.POLARITIES)}")
        if not 0 <= self.feather <= self.dilate:
            raise errors.UserError(
                f"feather is {self.feather} and dilate {self.dilate}; feathering blends within the pixels by which the "
                f"hole grows, so that nothing of what is removed shines through: set dilate to {self.feather} or more"
            )


@dataclasses.dataclass(frozen=True)
class Advice:
    """The ends of messages, which advise what to change in the program that shows them; here the command line.

    Attributes:
      polarity: where the hole may be what should be valid.
      dilate: where a mask has soft edges.
      memory: where the memory does not suffice.
    """

    polarity: str = "check --polarity"
    dilate: str = "--dilate covers soft edges"
    memory: str = "lower --tile"


COMMAND_LINE = Advice()


@dataclasses.dataclass(frozen=True)
class Hole:
    """The masks that filling a hole needs: uint8 `[H, W]`, 1 = valid.

    Attributes:
      drawn: the mask as it was drawn.
      grown: the mask whose hole has grown by `dilate`; this hole is filled.
      context: `grown` without wholly transparent pixels, whose colours mean nothing.
    """

    drawn: np.ndarray
    grown: np.ndarray
    context: np.ndarray


def hole(photo: photograph.Photograph, mask: np.ndarray, dilate: int, advice: Advice = COMMAND_LINE) -> Hole:
    """Grows the hole of a mask, and returns the masks for filling it.

    Args:
      photo: the photograph.
      mask: uint8 `[H, W]`, 1 = valid.
      dilate: pixels by which the hole grows.
      advice: ends of the messages.

    Raises:
      UserError: no pixel is left to fill the hole from.
    """
    grown = drawn_masks.grow(mask, dilate)
    if not grown.any():
        raise errors.UserError(f"is all hole: nothing is left to fill it from; {advice.polarity}")
    context = drawn_masks.context(photo, grown)
    if not context.any():
        raise errors.UserError(f"is hole or wholly transparent: nothing is left to fill it from; {advice.polarity}")
    return Hole(mask, grown, context)


def opaque(photo: photograph.Photograph, mask: np.ndarray) -> photograph.Photograph:
    """Returns a photograph whose hole is opaque, for holes that were drawn as transparency.

    Args:
      photo: the photograph.
      mask: `[H, W]`, 1 = valid.
    """
    if photo.alpha is None:
        return photo
    alpha = np.where(mask[..., None], photo.alpha, photo.white).astype(photo.alpha.dtype)
    return dataclasses.replace(photo, alpha=alpha)


def fill(
    network: inpainter.Inpainter,
    photo: photograph.Photograph,
    hole: Hole,
    feather: int = 0,
    *,
    advice: Advice = COMMAND_LINE,
    progress: Callable[[float], None] | None = None,
) -> tuple[photograph.Photograph, list[str]]:
    """Fills the grown hole of a photograph; every other pixel stays as it is.

    Args:
      network: fills the hole.
      photo: the photograph.
      hole: its masks.
      feather: pixels over which the photograph fades into the filling.
      advice: ends of the messages.
      progress: as for `Inpainter.fill`.

    Returns:
      `(filled photograph, warnings)`.

    Raises:
      UserError: the photograph is too large for the memory, or the network's output is not finite.
    """
    try:
        filled, unseen = network.fill(photo.pixels, hole.context, progress=progress)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise errors.UserError(f"is {photo.size}, too large for this machine: {advice.memory} ({reason})") from error
    warnings = []
    if unseen and np.array_equal(
        hole.context, hole.grown
    ):  # Else it may lie under transparency, where nothing is filled.
        warnings.append(network.explain(unseen))
    filled = np.where(hole.grown[..., None], photo.pixels, filled)  # Keeps what lies under transparency.
    filled = drawn_masks.feather(photo.pixels, filled, hole.drawn, hole.grown, feather)
    return dataclasses.replace(photo, pixels=filled), warnings


def area_warnings(mask: np.ndarray, advice: Advice = COMMAND_LINE) -> list[str]:
    """Returns a warning about a hole that is unusually small or large, or none.

    Args:
      mask: `[H, W]`, 1 = valid.
      advice: ends of the messages.
    """
    area = masks.hole_area(mask)
    if not area:
        return [f"there is no hole: the photograph is written as it is; {advice.polarity}"]
    if SMALL <= area <= LARGE:
        return []
    return [f"{area:.2%} of the photograph is hole (usual is {SMALL:.0%} to {LARGE:.0%}): {advice.polarity}"]


def grey_warnings(drawn: photograph.Photograph, name: str, advice: Advice = COMMAND_LINE) -> list[str]:
    """Returns a warning about a mask image with much grey, or none.

    Args:
      drawn: the mask image.
      name: its name, as it is printed.
      advice: ends of the messages.
    """
    grey = drawn_masks.grey_share(drawn)
    if grey <= GREY:
        return []
    return [
        f"{grey:.0%} of {name} is neither black nor white, and was thresholded at half: is it a mask? ({advice.dilate})"
    ]
