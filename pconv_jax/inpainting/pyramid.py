"""Image pyramids of photographs, by which holes of any size are filled from coarse to fine.

Each level has half the size of the one before: a pixel is the mean of the valid pixels of a 2 x 2 block, and is valid
if any of them is. This module uses NumPy and OpenCV, because the size differs between photographs; `ops.pyramid` does
the same in JAX for training.

Images are float32 `[H, W, C]` with C = 1 or 3, masks bool `[H, W]`, True = valid.
"""

import dataclasses

import cv2
import numpy as np

from pconv_jax import errors


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that decide how many levels a pyramid has. They belong to a network and are stored with its weights.

    An image is halved until its deepest hole pixel is at most `threshold` pixels from a valid one, but to no short side
    of less than `smallest` pixels.

    Attributes:
      threshold: largest distance of a hole pixel from a valid one on the coarsest level, in pixels; 0 halves until no
        hole is left.
      smallest: least short side of a level, in pixels.
      band: largest distance in pixels from a valid pixel at which a network without a guess fills on each level. Hole
        pixels farther away keep the enlarged result of the coarser level. Networks with a guess fill the whole hole on
        every level.
    """

    threshold: float = 8.0
    smallest: int = 16
    band: float = 4.0

    def __post_init__(self):
        if not (self.threshold >= 0 and self.smallest >= 1 and self.band >= 1):
            raise errors.UserError(
                f"the pyramid's settings are {dataclasses.asdict(self)}; needs smallest and band of at least 1, and a "
                "threshold of at least 0"
            )


def of_config(config) -> Settings | None:
    """Returns the settings for the network of a config: those of its training, or None if it was trained without."""
    if not config.model.guess:
        return None
    return Settings(threshold=0, smallest=config.data.size >> (config.train.pyramid_levels - 1))


def build(image: np.ndarray, valid: np.ndarray, settings: Settings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Builds the pyramid of an image.

    Args:
      image: float32 `[H, W, C]`, finite.
      valid: bool `[H, W]`.
      settings: settings of the pyramid, which decide the number of levels.

    Returns:
      `(image, valid)` of each level, the finest first, which holds the arguments themselves.
    """
    levels = [(image, valid)]
    while (min(levels[-1][1].shape) + 1) // 2 >= settings.smallest and depth(levels[-1][1]).max() > settings.threshold:
        levels.append(coarsen(*levels[-1]))
    return levels


def depth(valid: np.ndarray) -> np.ndarray:
    """Returns the distance of each pixel from the nearest valid one, float32 `[H, W]` in pixels; 0 where valid."""
    return cv2.distanceTransform((~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def coarsen(image: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halves an image: the mean of the valid pixels of each 2 x 2 block. Odd sizes are rounded up, as if by holes.

    Args:
      image: float32 `[H, W, C]`, finite also in holes, whose content does not matter.
      valid: bool `[H, W]`.

    Returns:
      `(image, valid)` of `[ceil(H / 2), ceil(W / 2), ..]`, the image 0 in holes.
    """
    total, count = _block_sum(image * valid[..., None]), _block_sum(valid.astype(np.float32)[..., None])
    return total / np.maximum(count, 1), count[..., 0] > 0


def enlarge(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Doubles an image by bilinear interpolation, with pixel centres at half integers, and cuts it to a size.

    Args:
      image: float32 `[H, W, C]`.
      size: height and width of the result: `2 H` or `2 H - 1`, `2 W` or `2 W - 1`.

    Returns:
      float32 `[*size, C]`.
    """
    height, width, channels = image.shape
    double = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    return double.reshape(2 * height, 2 * width, channels)[: size[0], : size[1]]


def interpolate(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fills holes without a network: coarsens until no hole is left, then enlarges, valid pixels put back each time.

    Args:
      image: float32 `[H, W, C]`.
      valid: bool `[H, W]` with at least one valid pixel.

    Returns:
      float32 `[H, W, C]`, smooth where holes are large.
    """
    if valid.all():
        return image
    guess = enlarge(interpolate(*coarsen(image, valid)), valid.shape)
    return np.where(valid[..., None], image, guess)


def _block_sum(x):
    """Sums 2 x 2 blocks, `[H, W, C] -> [ceil(H / 2), ceil(W / 2), C]`."""
    height, width, channels = x.shape
    if height % 2 or width % 2:
        x = np.pad(x, ((0, height % 2), (0, width % 2), (0, 0)))
    return x.reshape((height + 1) // 2, 2, (width + 1) // 2, 2, channels).sum(axis=(1, 3))
