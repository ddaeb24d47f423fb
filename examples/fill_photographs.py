"""Fills holes of scikit-image's photographs with the weights in the package, and draws docs/photographs.jpg.

    PYTHONPATH=. python examples/fill_photographs.py docs/photographs.jpg

The columns are the photograph with its hole in white, the filled photograph, and the original. The weights were not
trained on these photographs. The last row shows what they are bad at: a deep hole.
"""

import sys

import cv2
import numpy as np
import skimage.data

import pconv_jax
from pconv_jax.data import masks

# Photograph, kind of mask, range of hole area, and the seed of the mask.
ROWS = (
    ("astronaut", "scratches", (0.06, 0.08), 1),
    ("coffee", "text", (0.06, 0.09), 0),
    ("rocket", "outlines", (0.05, 0.08), 2),
    ("chelsea", "blobs", (0.12, 0.15), 0),
)
WIDTH = 440  # Width of each picture in pixels.


def row(fill: pconv_jax.Inpainter, name: str, kind: str, area: tuple[float, float], seed: int) -> np.ndarray:
    """Returns one row of the figure, uint8 `[H, 3 * WIDTH, 3]`."""
    image = np.ascontiguousarray(getattr(skimage.data, name)())
    mask = masks.draw(masks.Family(kind, area), seed, 0, 0, image.shape[:2])
    pictures = [np.where(mask == 1, image, np.uint8(255)), fill(image, mask), image]
    height = round(WIDTH * image.shape[0] / image.shape[1])
    return np.hstack([cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA) for picture in pictures])


def main(path: str):
    """Draws the figure."""
    fill = pconv_jax.Inpainter.pretrained()
    figure = np.vstack([row(fill, *settings) for settings in ROWS])
    cv2.imwrite(str(path), figure[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(*sys.argv[1:])
