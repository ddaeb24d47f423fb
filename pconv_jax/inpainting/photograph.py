"""Photographs of people: files <-> arrays, without losing what an editor would keep.

Pixels are uint8 or uint16 `[H, W, C]`, C = 1 grey or 3 RGB, alpha `[H, W, 1]` apart from them. Upright: the EXIF
orientation is applied to the pixels, and the file that is written has none. Read are PNG, JPEG, WebP, TIFF and BMP of 8
or 16 bits per channel; palettes become RGB, one bit becomes 8. What cannot be kept (CMYK, LAB, 32 bits, animations) is
an error.
"""

import dataclasses
import io
import warnings
from typing import Any

import cv2
import numpy as np
import PIL.Image

from pconv_jax import errors

READ = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LOSSLESS = (".png", ".webp", ".tif", ".tiff")
WRITTEN = (*LOSSLESS, ".jpg", ".jpeg")

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "I;16", "I;16B", "I;16L")
_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x112, 0x8769, 0x8825
# Description, maker, model, software, date, artist, copyright: what is said of the photograph and not of its file.
_ABOUT = (0x10E, 0x10F, 0x110, 0x131, 0x132, 0x13B, 0x8298)
# A maker's note may hold a preview of what is being removed; width and height may be those before turning; the
# interoperability block speaks of the file.
_NOT_KEPT = (0x927C, 0xA002, 0xA003, 0xA005)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph in memory.

    Attributes:
      pixels: uint8 or uint16 `[H, W, C]`, grey or RGB, upright.
      alpha: as `pixels`, `[H, W, 1]`, or None.
      icc: ICC profile, or None.
      exif: EXIF block with description, camera, settings, date, place; without orientation, thumbnail and maker's
        note. Empty if there is nothing to tell.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes = b""

    @property
    def size(self) -> str:
        """ "451x300", width and height as people say it."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"

    @property
    def white(self) -> int:
        """The largest value of a pixel: 255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)


def read(path: str, max_pixels: int) -> Photograph:
    """Reads a file.

    Args:
      path: of the file.
      max_pixels: a limit to what is decoded: small files can claim to be huge.

    Raises:
      OSError: it is not there or cannot be opened.
      UserError: it is not an image, damaged, too large, or of a kind that cannot be kept.
    """
    with open(path, "rb") as file:
        encoded = file.read()
    PIL.Image.init()  # knows TIFF and WebP only then
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of oddities in metadata and of sizes that max_pixels allows
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            with PIL.Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
                _check(path, image, max_pixels)
                return _decode(image, encoded)
        except _Unfit:
            raise
        except Exception as error:  # decoders of damaged files raise whatever they stumble over
            known = not isinstance(error, PIL.UnidentifiedImageError)  # which names an object in memory
            raise errors.UserError(
                f"{path} is not an image, or is damaged ({error if known else 'no known format'})"
            ) from error
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def check_written(photo: Photograph, extension: str):
    """Raises UserError unless a format can hold the photograph."""
    if photo.white > 255 and extension != ".png":
        raise errors.UserError(f"has 16 bits per channel, which {extension} is not written with: use .png")
    if photo.alpha is not None and extension in (".jpg", ".jpeg") and photo.alpha.min() < photo.white:
        raise errors.UserError(f"has transparent pixels, which {extension} does not hold: use {', '.join(LOSSLESS)}")
    longest = {".webp": 16383, ".jpg": 65535, ".jpeg": 65535}.get(extension)
    if longest and max(photo.pixels.shape) > longest:
        raise errors.UserError(f"is {photo.size}; {extension} has at most {longest} pixels per side: use .png or .tif")


def encode(photo: Photograph, extension: str) -> bytes:
    """The bytes of a file: lossless for `LOSSLESS`, else JPEG of quality 95 without chroma subsampling.

    16-bit grey with alpha is stored as RGB with alpha, and WebP stores grey as RGB: the values are the same.

    Raises:
      UserError: the format cannot hold the photograph (`check_written`).
    """
    check_written(photo, extension)
    planes = [photo.pixels] if photo.alpha is None or extension in (".jpg", ".jpeg") else [photo.pixels, photo.alpha]
    if photo.white > 255:
        return _encode_16_bit(photo, planes)
    formats: dict[str, dict[str, Any]] = {
        ".png": {"format": "PNG"},
        ".webp": {"format": "WEBP", "lossless": True, "exact": True},  # exact: colours under transparency too
        ".tif": {"format": "TIFF"},  # uncompressed: the compressing writer cannot write EXIF
        ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    }
    options = formats[{".jpeg": ".jpg", ".tiff": ".tif"}.get(extension, extension)]
    array = np.concatenate(planes, axis=-1)
    file = io.BytesIO()
    image = PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    if photo.exif:
        options["exif"] = photo.exif
    image.save(file, icc_profile=photo.icc, **options)
    return file.getvalue()


class _Unfit(errors.UserError):
    """A file that was understood and is refused."""


def _check(path, image, max_pixels):
    width, height = image.size
    if width * height > max_pixels:
        raise _Unfit(f"{path} is {width}x{height}, more than {max_pixels} pixels: raise the limit if it is meant to be")
    if image.mode not in _MODES:
        raise _Unfit(f"{path} is {image.mode}; needs grey or RGB with 8 or 16 bits per channel: convert it first")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a telephone's JPEG with a gain map behind it
        raise _Unfit(f"{path} has {image.n_frames} frames; needs one: save the wanted one by itself")


def _decode(image, encoded):
    """Pillow reads 16-bit colour as 8 bits; OpenCV has all 16."""
    deep = image.format in ("PNG", "TIFF") and ";16" in str(image.tile)
    grey = image.mode in ("1", "L", "LA", "I;16", "I;16B", "I;16L") or "'LA;16" in str(image.tile)
    icc, exif = image.info.get("icc_profile"), image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    if deep and (image.mode[0] != "I" or image.has_transparency_data):
        array = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.dtype != np.uint16 or array.ndim != 3:
            raise errors.UserError("OpenCV does not read its 16 bits")
        array = array[..., [2, 1, 0, 3][: array.shape[-1]]]
        array = array[..., [0, 3]] if grey else array
    elif deep:
        array = np.asarray(image).astype(np.uint16)[..., None]
    else:
        alpha = "A" if image.has_transparency_data else ""
        array = np.asarray(image.convert(("L" if grey else "RGB") + alpha))
        array = array if array.ndim == 3 else array[..., None]
    array = np.ascontiguousarray(_upright(array, orientation))
    colours = 3 if array.shape[-1] > 2 else 1
    alpha = array[..., colours:] if array.shape[-1] > colours else None
    return Photograph(array[..., :colours], alpha, icc, _kept(exif))


def _upright(array, orientation):
    """`[H, W, C]` as a person sees it, by EXIF's orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _kept(exif):
    """The EXIF block to write."""
    kept = PIL.Image.Exif()
    for tag in _ABOUT:
        if tag in exif:
            kept[tag] = exif[tag]
    for ifd in (_EXIF_IFD, _GPS_IFD):
        values = {tag: value for tag, value in exif.get_ifd(ifd).items() if tag not in _NOT_KEPT}
        if values:
            kept[ifd] = values
    return kept.tobytes() if len(kept) else b""


def _encode_16_bit(photo, planes):
    """PNG by OpenCV: Pillow does not write 16-bit colour."""
    if photo.pixels.shape[-1] == 3 or len(planes) == 2:
        planes = [np.broadcast_to(photo.pixels, (*photo.pixels.shape[:2], 3))[..., ::-1], *planes[1:]]
    kinds, blocks = [], []
    if photo.icc:
        kinds.append(cv2.IMAGE_METADATA_ICCP)
        blocks.append(np.frombuffer(photo.icc, np.uint8))
    if photo.exif:
        kinds.append(cv2.IMAGE_METADATA_EXIF)
        blocks.append(np.frombuffer(photo.exif.removeprefix(b"Exif\0\0"), np.uint8))
    array = np.ascontiguousarray(np.concatenate(planes, axis=-1))
    return cv2.imencodeWithMetadata(".png", array, kinds, blocks)[1].tobytes()
