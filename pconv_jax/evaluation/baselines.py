"""Classical inpainting algorithms, the baselines of a network.

What lies in a hole is not read. The result is uint8 `[H, W, C]` like the image, with the valid pixels unchanged.
"""

import os
import shutil
import subprocess
import tempfile

import cv2
import numpy as np

from pconv_jax import errors

RADIUS = 3  # The radius of OpenCV's inpainting, in pixels.

_GMIC_SECONDS = 600  # After this time G'MIC counts as hanging; a 12-megapixel photograph takes a few minutes.


def mean_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills holes with the mean of the valid pixels, per channel.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.
    """
    count = max(1, int(mask.sum()))
    mean = (image * mask).reshape(-1, image.shape[-1]).sum(axis=0, dtype=np.int64) / count
    return np.where(mask, image, np.round(mean).astype(np.uint8))


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills by fast marching (Telea 2004), `cv2.INPAINT_TELEA`.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.
    """
    return _opencv(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills by continuing isophotes (Bertalmio et al. 2001), `cv2.INPAINT_NS`.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.
    """
    return _opencv(image, mask, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills with the smoothest surface through the valid pixels, `skimage.restoration.inpaint_biharmonic`.

    Slow: 0.06 s for 64 x 64, 8 s for half of 512 x 512.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.
    """
    from skimage import (
        restoration,
    )  # Here, because SciPy takes half a second to import, which training should not wait for.

    hole = mask[..., 0] == 0
    if hole.all():
        return mean_fill(image, mask)
    filled = restoration.inpaint_biharmonic(image * mask, hole, channel_axis=-1)  # float64 in [0, 1]
    return np.where(mask, image, np.round(filled * 255).astype(np.uint8))


def frequency_selective(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills by frequency selective reconstruction (Genser et al. 2018), `cv2.xphoto.INPAINT_FSR_FAST`.

    It extends periodic texture, and is the strongest filler in OpenCV. Slow: 6 s for 256 x 256.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.
    """
    if not mask.any():
        return mean_fill(image, mask)
    masked = np.ascontiguousarray((image * mask)[..., ::-1]).reshape(image.shape)
    filled = np.zeros_like(masked)
    cv2.xphoto.inpaint(masked, mask[..., 0], filled, cv2.xphoto.INPAINT_FSR_FAST)  # its mask: nonzero = valid
    return np.where(mask, image, filled.reshape(image.shape)[..., ::-1])


def gmic_pde(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills by isotropic multi-scale diffusion, `inpaint_pde` of the program G'MIC, which has to be installed.

    The program runs in an empty home directory, so that no settings of the user change the result.

    Args:
      image: uint8 `[H, W, C]`, RGB or grey.
      mask: uint8 `[H, W, 1]`, 1 = valid, 0 = hole.

    Raises:
      UserError: the program is missing or fails.
    """
    if not mask.any():
        return mean_fill(image, mask)
    if not gmic_is_installed():
        raise errors.UserError("the program gmic is not on PATH: install G'MIC, or leave GMIC out of --baselines")
    with tempfile.TemporaryDirectory(prefix="gmic_") as directory:
        for name, pixels in (("image.png", (image * mask)[..., ::-1]), ("hole.png", 255 * (1 - mask))):
            cv2.imwrite(os.path.join(directory, name), pixels)
        fill = ["inpaint_pde[0]", "[1],75%,0", "remove[1]", "round[0]", "cut[0]", "0,255", "output[0]", "filled.png"]
        command = ["gmic", "-v", "-1", "image.png", "hole.png", *fill]
        environment = {"HOME": directory, "PATH": os.environ["PATH"]}
        result = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=_GMIC_SECONDS
        )
        filled = cv2.imread(os.path.join(directory, "filled.png"), cv2.IMREAD_COLOR_RGB)
    if filled is None:
        raise errors.UserError(f"gmic wrote no image (exit code {result.returncode}): {result.stderr.strip()[-300:]}")
    return np.where(mask, image, filled[..., : image.shape[-1]])


def gmic_is_installed() -> bool:
    """Returns True if the program G'MIC is on PATH."""
    return shutil.which("gmic") is not None


def _opencv(image, mask, method):
    """Fills by one of the methods of `cv2.inpaint`, whose mask is nonzero in holes."""
    filled = cv2.inpaint(image * mask, 1 - mask[..., 0], RADIUS, method)
    return np.where(mask, image, filled.reshape(image.shape))


BASELINES = {
    "mean fill": mean_fill,
    "Telea": telea,
    "Navier-Stokes": navier_stokes,
    "biharmonic": biharmonic,
    "FSR": frequency_selective,
    "GMIC": gmic_pde,
}
DEFAULT = (
    "mean fill",
    "Telea",
    "Navier-Stokes",
    "biharmonic",
)  # For the command evaluate; the others take seconds per image.
QUICK = ("mean fill", "Telea", "Navier-Stokes")  # For the end of training.
