"""Which photograph, which mask, which result: files, matched before anything is read or written."""

import dataclasses
import os

from pconv_jax import errors
from pconv_jax.inpainting import photograph


@dataclasses.dataclass(frozen=True)
class Job:
    """The files of a photograph to fill. No mask: the hole is what its alpha channel shows."""

    image: str
    mask: str | None
    out: str


def match(image: str, mask: str | None, out: str, overwrite: bool) -> list[Job]:
    """Matches photographs, masks and results.

    Args:
      image: a file, or a folder: then masks match by name, whatever their extension, and results are PNG.
      mask: a file (for all), a folder, or None for alpha channels.
      out: the file to write, or the folder.
      overwrite: whether results may replace files. Photographs and masks are never replaced.

    Raises:
      UserError: something is missing, without a match, or in the way.
    """
    for flag, path in (("image", image), ("mask", mask)):
        if path is not None and not os.path.exists(path):
            raise errors.UserError(f"{path} does not exist: give --{flag} a file or a folder")
    if os.path.isdir(image):
        if os.path.exists(out) and not os.path.isdir(out):
            raise errors.UserError(f"{out} is a file and {image} a folder: give --out a folder")
        found = _folder(image, mask, out)
    else:
        if mask is not None and os.path.isdir(mask):
            raise errors.UserError(f"{mask} is a folder and {image} a file: give --mask a file")
        if os.path.isdir(out) or os.path.splitext(out)[1].lower() not in photograph.WRITTEN:
            raise errors.UserError(
                f"{out} is not a file to write: give --out a name in {', '.join(photograph.WRITTEN)}"
            )
        found = [Job(image, mask, out)]
    _refuse_to_replace(found, overwrite)
    return found


def listing(path: str) -> dict[str, str]:
    """The images under a directory, at any depth, hidden ones left out: `{relative path without extension: path}`.

    Raises:
      UserError: there is none, or two differ in their extension alone.
    """
    found: dict[str, str] = {}
    for directory, subdirectories, files in os.walk(path):
        subdirectories[:] = sorted(name for name in subdirectories if name[0] != ".")
        for name in sorted(files):
            stem, extension = os.path.splitext(name)
            if name[0] == "." or extension.lower() not in photograph.READ:
                continue
            key, file = os.path.relpath(os.path.join(directory, stem), path), os.path.join(directory, name)
            if key in found:
                raise errors.UserError(f"{found[key]} and {file} have one name, and would have one result: rename one")
            found[key] = file
    if not found:
        raise errors.UserError(
            f"no images ({', '.join(photograph.READ)}) under {path}: give a folder of images, or a file"
        )
    return found


def _folder(image, mask, out):
    photographs = listing(image)
    by_name = mask is not None and os.path.isdir(mask)
    drawn = listing(mask) if by_name else dict.fromkeys(photographs, mask)
    lonely = [path for name, path in photographs.items() if name not in drawn]
    lonely += [path for name, path in drawn.items() if name not in photographs]
    if lonely:
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise errors.UserError(
            f"no match for {', '.join(lonely[:5])}{more}: photographs and masks need the same names, whatever their "
            "extension; or give --mask one file for all"
        )
    return [Job(path, drawn[name], os.path.join(out, f"{name}.png")) for name, path in photographs.items()]


def _refuse_to_replace(found, overwrite):
    inputs = {os.path.realpath(path) for job in found for path in (job.image, job.mask) if path is not None}
    for job in found:
        if os.path.realpath(job.out) in inputs:
            raise errors.UserError(f"{job.out} is an input, which is never replaced: give --out another name or folder")
    present = [job.out for job in found if os.path.exists(job.out)]
    if present and not overwrite:
        more = f" and {len(present) - 1} more are" if len(present) > 1 else " is"
        raise errors.UserError(f"{present[0]}{more} already there: give --overwrite to replace, or another --out")
