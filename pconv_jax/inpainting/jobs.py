"""Matches photographs, masks and results by their paths, before anything is read or written."""

import dataclasses
import os
import re
import unicodedata

from absl import logging

from pconv_jax import errors
from pconv_jax.inpainting import photograph_files
from pconv_jax.reading import files, folders


@dataclasses.dataclass(frozen=True)
class Job:
    """The paths of one photograph to fill.

    Attributes:
      image: the photograph.
      mask: the mask image; None if the alpha channel of the photograph is the mask.
      out: the result.
      problem: why the photograph cannot be filled, or empty.
    """

    image: str
    mask: str | None
    out: str
    problem: str = ""


def match(image: str, mask: str | None, out: str, overwrite: bool, resume: bool = False) -> list[Job]:
    """Matches photographs, masks and results.

    In folders, masks match by name without the extension. If no name is equal, letter case and an ending of the mask's
    name such as `_mask` or `_mask001` are ignored. Results are PNG.

    Args:
      image: a file or a folder; `~` is the home directory, here and below.
      mask: a file (for all photographs), a folder, or None for alpha channels.
      out: the file or folder to write. If it lies inside the folder of photographs, it is not searched.
      overwrite: whether results may replace files. Photographs and masks are never replaced.
      resume: whether photographs whose result exists are left out.

    Returns:
      One job per photograph; those without a mask have a `problem`.

    Raises:
      UserError: a file is missing or would be replaced, or no photograph has a mask.
    """
    image, out = files.expand(image), files.expand(out)
    mask = None if mask is None else files.expand(mask)
    for flag, path in (("image", image), ("mask", mask)):
        if path is not None and not os.path.exists(path):
            raise errors.UserError(
                f"{files.printable(path)} does not exist: give --{flag} a file or a folder{folders.relative_hint(path)}"
            )
    if os.path.isdir(image):
        if os.path.exists(out) and not os.path.isdir(out):
            raise errors.UserError(
                f"{files.printable(out)} is a file and {files.printable(image)} a folder: give --out a folder"
            )
        if os.path.realpath(out) == os.path.realpath(image):
            raise errors.UserError(
                f"{files.printable(out)} is the folder of the photographs: give --out another folder"
            )
        matched = _match_folder(image, mask, out)
    else:
        if mask is not None and os.path.isdir(mask):
            raise errors.UserError(
                f"{files.printable(mask)} is a folder and {files.printable(image)} a file: give --mask a file"
            )
        if os.path.isdir(out) or os.path.splitext(out)[1].lower() not in photograph_files.WRITTEN:
            raise errors.UserError(
                f"{files.printable(out)} is not a file to write: give --out a name in "
                f"{', '.join(photograph_files.WRITTEN)}"
            )
        matched = [Job(image, mask, out)]
    _refuse_to_replace_inputs(matched)
    present = [job for job in matched if os.path.exists(job.out)]
    if resume:
        if present:
            logging.info("%d of %d results are there and are kept", len(present), len(matched))
        return [job for job in matched if job not in present]
    if present and not overwrite:
        more = f" and {len(present) - 1} more are" if len(present) > 1 else " is"
        raise errors.UserError(
            f"{files.printable(present[0].out)}{more} already there: give --overwrite to replace, --resume to keep "
            "them and do the rest, or another --out"
            if os.path.isdir(image)
            else f"{files.printable(present[0].out)} is already there: give --overwrite to replace, or another --out"
        )
    return matched


def listing(path: str, but_not: tuple[str, ...] = ()) -> dict[str, str]:
    """Lists the images under a directory (`folders.images_below`).

    Args:
      path: the directory.
      but_not: directories and files that are left out.

    Returns:
      `{relative path without extension, in Unicode's composed form: path}`.

    Raises:
      UserError: there is no image, or two names differ only in their extension.
    """
    left_out = {os.path.realpath(other) for other in but_not}
    paths: dict[str, str] = {}
    for name in folders.images_below(path, but_not, needs="give a folder of images, or a file"):
        file = os.path.join(path, name)
        if os.path.realpath(file) in left_out:
            continue
        key = unicodedata.normalize("NFC", os.path.splitext(name)[0])
        if key in paths:
            raise errors.UserError(
                f"{files.printable(paths[key])} and {files.printable(file)} have one name, and would have one result: "
                "rename one"
            )
        paths[key] = file
    return paths


def _match_folder(image, mask, out):
    """Returns the jobs of a folder of photographs."""
    inner = tuple(path for path in (mask, out) if path is not None and _lies_in(path, image))
    if mask is None or not os.path.isdir(mask):
        photographs = listing(image, inner)
        return [Job(path, mask, os.path.join(out, f"{name}.png")) for name, path in photographs.items()]
    if os.path.realpath(mask) == os.path.realpath(image):
        together = listing(image, inner)
        drawn = {name: path for name, path in together.items() if _loose(name) != name.casefold()}
        photographs = {name: path for name, path in together.items() if name not in drawn}
    else:
        photographs = listing(image, inner)
        drawn = listing(mask, tuple(path for path in (image, out) if _lies_in(path, mask)))
    pairs = {name: drawn.pop(name) for name in photographs if name in drawn}
    loose = {}
    for name, path in drawn.items():
        loose.setdefault(_loose(name), []).append(path)
    for name in photographs:
        candidates = loose.get(name.casefold(), [])
        if name not in pairs and len(candidates) == 1:
            pairs[name] = candidates[0]
            del loose[name.casefold()]
    unused = [path for paths in loose.values() for path in paths]
    if not pairs:
        lonely = [*photographs.values(), *unused]
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise errors.UserError(
            f"no match for {', '.join(map(files.printable, lonely[:5]))}{more}: photographs and masks need the same "
            "names, whatever their extension; or give --mask one file for all"
        )
    if unused:
        logging.warning("%d masks have no photograph, e.g. %s", len(unused), files.printable(unused[0]))
    return [
        Job(
            path,
            pairs.get(name),
            os.path.join(out, f"{name}.png"),
            ""
            if name in pairs
            else f"{files.printable(path)} has no mask under {files.printable(mask)}: draw one by the same name",
        )
        for name, path in photographs.items()
    ]


def _loose(name):
    """Returns the name of a mask without letter case and without an ending such as `_mask` or `-mask001`."""
    return re.sub(r"[ _.-]?mask[ _.-]?\d*$", "", name.casefold()) or name.casefold()


def _lies_in(path, folder):
    """Returns whether a path lies inside a folder, links resolved, and is not the folder itself."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path != folder and os.path.commonpath([path, folder]) == folder


def _refuse_to_replace_inputs(matched):
    inputs = {os.path.realpath(path) for job in matched for path in (job.image, job.mask) if path is not None}
    for job in matched:
        if os.path.realpath(job.out) in inputs:
            raise errors.UserError(
                f"{files.printable(job.out)} is an input, which is never replaced: give --out another name or folder"
            )
