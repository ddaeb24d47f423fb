"""Files as ImageMagick writes them, where it is installed."""

import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import PIL.Image

CONVERT = pathlib.Path("/usr/bin/convert")  # ImageMagick 6; other programs of this name lie elsewhere.

_CORNERS = ("top-left", "top-right", "bottom-right", "bottom-left")
_CORNERS += ("left-top", "right-top", "right-bottom", "left-bottom")


def files(rgb: np.ndarray, stored: Callable) -> Iterator[tuple[str, bytes, np.ndarray | None]]:
    """Yields `(options, bytes of the file, pixels that it holds)`; None for pixels that may only be refused.

    Args:
      rgb: uint8 `[H, W, 3]`, the picture.
      stored: function `(picture, orientation)` that returns the pixels as they are stored.
    """
    if not CONVERT.exists():
        return
    # Of TIFFs alone: in other formats ImageMagick changes the orientation of an EXIF block, and makes none.
    jobs = [(f"-orient {name} -depth 8", "tif", rgb, number) for number, name in enumerate(_CORNERS, 1)]
    jobs += [("-depth 8", kind, rgb, 1) for kind in ("jpg", "webp")]
    variants = {"-depth 8": rgb, "-depth 16": rgb.astype(np.uint16) * 257, "-interlace Plane -depth 8": rgb}
    variants |= {f"-compress {compression} -depth 8": rgb for compression in ("LZW", "Zip", "RLE", "None")}
    jobs += [(words, kind, pixels, 1) for words, pixels in variants.items() for kind in ("png", "tif", "bmp")]
    jobs += [("-colorspace CMYK", kind, None, 1) for kind in ("tif", "jpg")]
    jobs += [("-depth 32 -define quantum:format=floating-point", "tif", None, 1), ("-depth 12", "tif", None, 1)]
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory) / "in.png"
        for words, kind, pixels, orientation in jobs:
            PIL.Image.fromarray(stored(rgb, orientation)).save(source)
            out = source.with_name(f"out.{kind}")
            command = [str(CONVERT), str(source), *words.split(), "-quality", "100", str(out)]
            done = subprocess.run(command, capture_output=True, check=False)
            if not done.returncode and out.exists():
                yield f"{kind} {words}", out.read_bytes(), pixels
                out.unlink()
