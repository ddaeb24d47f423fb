"""Names and encodes results: in the format of the original or another one, never under the name of the original."""

import os
from typing import Any

from pconv_jax import errors
from pconv_jax.inpainting import photograph, photograph_files

FORMATS = {"png": ".png", "webp": ".webp", "tiff": ".tif", "jpeg": ".jpg"}  # The extension of each.
ORIGINAL = "original"
_LONGEST = 120  # Characters of a name: file systems allow 255 bytes.


def safe_name(name: str) -> str:
    """Returns the last part of a path that a browser sent, printable and not too long; "photograph" if none is left."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable()).strip(" .")
    stem, extension = os.path.splitext(name)
    return (stem[:_LONGEST] + extension[:10]) or "photograph"


def about(photo: photograph.Photograph, name: str, kind: str) -> dict[str, Any]:
    """Returns what each format would lose.

    Args:
      photo: the original.
      name: its name.
      kind: its format, as `kinds.recognise` names it.

    Returns:
      `formats`, one entry per format, and `default_format`: the original's if it is lossless, else PNG.
    """
    listed = []
    for format, extension in FORMATS.items():
        problem = None
        try:
            photograph_files.check(photo, extension)
        except errors.UserError as error:
            problem = str(error)
        listed.append(
            {
                "format": format,
                "extension": extension,
                "lossless": extension in photograph_files.LOSSLESS,
                "problem": problem,
                "warnings": [*photograph_files.lossy(extension), *photograph_files.losses(photo, extension)],
                "filename": file_name(name, format),
            }
        )
    possible = {entry["format"] for entry in listed if entry["lossless"] and not entry["problem"]}
    return {"formats": listed, "default_format": kind if kind in possible else "png"}


def extension_of(format: str, kind: str) -> str:
    """Returns the extension of a format.

    Args:
      format: one of `FORMATS`, or `ORIGINAL`: that of the original, and PNG where that is not written.
      kind: the format of the original.

    Raises:
      UserError: there is no such format.
    """
    if format == ORIGINAL:
        return FORMATS.get(kind, ".png")
    if format not in FORMATS:
        raise errors.UserError(f"format is {format[:40]!r}; needs one of {', '.join((ORIGINAL, *FORMATS))}")
    return FORMATS[format]


def file_name(name: str, format: str, kind: str = "") -> str:
    """Returns the name of a result, which differs from that of the original.

    Args:
      name: name of the original.
      format: as for `extension_of`.
      kind: the format of the original.

    Raises:
      UserError: there is no such format.
    """
    stem = os.path.splitext(os.path.basename(name))[0]
    return f"{stem}_filled{extension_of(format, kind)}"
