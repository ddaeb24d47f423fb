"""What a network has to beat: fillings without learning. uint8 `[H, W, C]`, mask uint8 `[H, W, 1]`, 1 = valid."""

import cv2
import numpy as np

RADIUS = 3  # of OpenCV's inpainting, in pixels


def mean_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Holes take the mean of the valid pixels, per channel."""
    count = max(1, int(mask.sum()))
    mean = (image * mask).reshape(-1, image.shape[-1]).sum(axis=0, dtype=np.int64) / count
    return np.where(mask, image, np.round(mean).astype(np.uint8))


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fast marching (Telea 2004), `cv2.INPAINT_TELEA`."""
    return _opencv(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Isophote continuation (Bertalmio et al. 2001), `cv2.INPAINT_NS`."""
    return _opencv(image, mask, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smoothest surface through the valid pixels, `skimage.restoration.inpaint_biharmonic`.

    Slow: 0.06 s for 64 x 64, 8 s for half of 512 x 512.
    """
    from skimage import restoration  # takes SciPy half a second, which training should not pay

    hole = mask[..., 0] == 0
    if hole.all():
        return mean_fill(image, mask)
    filled = restoration.inpaint_biharmonic(image * mask, hole, channel_axis=-1)  # float64 in [0, 1]
    return np.where(mask, image, np.round(filled * 255).astype(np.uint8))


def _opencv(image, mask, method):
    filled = cv2.inpaint(image * mask, 1 - mask[..., 0], RADIUS, method)
    return np.where(mask, image, filled.reshape(image.shape))


BASELINES = {"mean fill": mean_fill, "Telea": telea, "Navier-Stokes": navier_stokes, "biharmonic": biharmonic}
QUICK = ("mean fill", "Telea", "Navier-Stokes")  # what the end of training has time for
