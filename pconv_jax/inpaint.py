"""Fills the holes of photographs with a trained network.

    python -m pconv_jax.inpaint --run=runs/quickstart --image=photo.jpg --mask=mask.png --polarity=white_hole \\
        --out=filled.png

Or folders: `--image=photos --mask=masks --out=filled`, masks matched by name, or one mask file for all. In Python:
`inpaint.Inpainter.from_run("runs/quickstart")(image, mask)`.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import time

import jax
import numpy as np
from absl import flags

from pconv_jax import command_line
from pconv_jax.data import masks
from pconv_jax.inpainting import drawn_masks, inpainter, jobs, photograph
from pconv_jax.training import compilation_cache, reporting, rundir

MAX_PIXELS = 200_000_000
SMALL, LARGE = 0.01, 0.6  # hole areas beyond which the polarity is doubtful, and which training saw nothing of
GREY = 0.1  # share of grey pixels beyond which a mask may be none

Inpainter = inpainter.Inpainter  # for `from pconv_jax import inpaint`


@dataclasses.dataclass(frozen=True)
class Options:
    """How holes are read and grown.

    Attributes:
      polarity: one of `drawn_masks.POLARITIES`.
      dilate: pixels by which the hole grows before it is filled: editors leave halos along its rim.
      feather: pixels, of those it grew by, over which the filling sets in.
      max_pixels: of a file.
    """

    polarity: str
    dilate: int = 0
    feather: int = 0
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        if self.polarity not in drawn_masks.POLARITIES:
            raise ValueError(f"polarity is {self.polarity}; needs one of {', '.join(drawn_masks.POLARITIES)}")
        if not 0 <= self.feather <= self.dilate:
            raise ValueError(
                f"feather is {self.feather} and dilate {self.dilate}; feathering blends within the pixels by which the "
                f"hole grows, so that nothing of what is removed shines through: set dilate to {self.feather} or more"
            )


def fill_file(
    network: Inpainter, job: jobs.Job, options: Options, read_mask=photograph.read
) -> tuple[str, list[str], int]:
    """Reads, fills and writes one photograph, whole or not at all.

    Args:
      network: that fills.
      job: the files.
      options: how.
      read_mask: as `photograph.read`.

    Returns:
      `(size and hole area in words, warnings, number of pixels)`.

    Raises:
      ValueError, OSError: with what is wrong with the files; nothing was written.
    """
    extension = os.path.splitext(job.out)[1].lower()
    photo = photograph.read(job.image, options.max_pixels)
    drawn = photo if job.mask is None else read_mask(job.mask, options.max_pixels)
    if drawn.size != photo.size:
        raise ValueError(
            f"{job.image} is {photo.size} and {job.mask} {drawn.size} (width x height, upright); masks are not "
            "resized: export one of the photograph's size"
        )
    with _named(job.mask or job.image):
        mask = drawn_masks.from_image(drawn, options.polarity)
        grown = drawn_masks.grow(mask, options.dilate)
        if not grown.any():
            raise ValueError("is all hole: nothing is left to fill it from; check --polarity")
    warnings = _doubts(drawn, job, grown, extension)
    with _named(job.image):
        if job.mask is None:
            photo = dataclasses.replace(
                photo, alpha=np.where(grown[..., None], photo.alpha, photo.white).astype(photo.alpha.dtype)
            )
        photograph.check_written(photo, extension)
        try:
            filled, unseen = network.fill(photo.pixels, grown)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"is {photo.size}, too large for this machine: lower --tile ({reason})") from error
    if unseen:
        warnings.append(network.explain(unseen))
    filled = drawn_masks.feather(photo.pixels, filled, mask, grown, options.feather)
    encoded = photograph.encode(dataclasses.replace(photo, pixels=filled), extension)
    os.makedirs(os.path.dirname(os.path.abspath(job.out)), exist_ok=True)
    rundir.write_atomically(job.out, encoded)
    return f"{photo.size}, hole {masks.hole_area(grown):.2%}", warnings, grown.size


@contextlib.contextmanager
def _named(path):
    """Puts the name of the file before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _doubts(drawn, job, mask, extension):
    """What a person may not have meant."""
    area, found = masks.hole_area(mask), []
    if not area:
        found.append("there is no hole: the photograph is written as it is; check --polarity")
    elif not SMALL <= area <= LARGE:
        found.append(f"{area:.2%} of the photograph is hole (usual are {SMALL:.0%} to {LARGE:.0%}): check --polarity")
    if job.mask is not None and drawn_masks.grey_share(drawn) > GREY:
        found.append(
            f"{drawn_masks.grey_share(drawn):.0%} of {job.mask} is neither black nor white, and was thresholded "
            "at half: is it a mask? (--dilate covers soft edges)"
        )
    if extension not in photograph.LOSSLESS:
        found.append(f"{extension} is lossy, valid pixels change slightly: {', '.join(photograph.LOSSLESS)} keep them")
    return found


def fill_all(network: Inpainter, found: list[jobs.Job], options: Options) -> dict[str, str]:
    """Fills one photograph after another, says so, and goes on after those that fail.

    Returns:
      What was wrong, by photograph.
    """
    read_mask = functools.lru_cache(maxsize=1)(photograph.read)  # one mask for all is read once
    started, done, total_pixels, failed = time.perf_counter(), 0, 0, {}
    for number, job in enumerate(found, 1):
        try:
            about, warnings, pixels = fill_file(network, job, options, read_mask)
        except (ValueError, OSError) as error:
            failed[job.image] = str(error)
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        done, total_pixels = done + 1, total_pixels + pixels
        for warning in warnings:
            print(f"warning: {job.image}: {warning}", file=sys.stderr)
        seconds = time.perf_counter() - started
        left = reporting.duration(seconds / number * (len(found) - number))
        progress = f"  ({number}/{len(found)}, {done / seconds:.2f} images/s, {left} left)" if len(found) > 1 else ""
        print(f"{job.out}: {about}{progress}", flush=True)
    seconds = time.perf_counter() - started
    if done:
        rate = f"{done / seconds:.2f} images/s, {total_pixels / seconds / 1e6:.2f} megapixels/s"
        print(f"{done} of {len(found)} filled in {seconds:.1f} s, compilation included: {rate}")
    return failed


def define_flags(flag_values: flags.FlagValues):
    """Adds this program's flags. Not when the module is imported: other verbs have flags of the same names."""
    flags.DEFINE_string("run", None, "Run directory that training wrote.", flag_values, required=True)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint to use.", flag_values)
    flags.DEFINE_string("image", None, "Photograph, or folder of photographs.", flag_values, required=True)
    flags.DEFINE_string(
        "mask", None, "Mask of the photograph's size; or a folder of masks by the same names.", flag_values
    )
    flags.DEFINE_enum(
        "polarity", None, drawn_masks.POLARITIES, "The hole: white or black of the mask; alpha.", flag_values
    )
    flags.DEFINE_string("out", None, "File to write (.png keeps all), or folder for PNGs.", flag_values, required=True)
    flags.DEFINE_integer("dilate", 0, "Pixels by which the hole grows first.", 0, flag_values=flag_values)
    flags.DEFINE_integer("feather", 0, "Pixels, of those, over which the filling sets in.", 0, flag_values=flag_values)
    flags.DEFINE_integer("tile", inpainter.TILE, "Larger photographs are filled in tiles.", 1, flag_values=flag_values)
    flags.DEFINE_integer("max_pixels", MAX_PIXELS, "Larger files are refused.", 1, flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace results that are there.", flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues):
    """Checks everything that can be checked, restores the network, fills.

    Raises:
      ValueError, OSError: before anything is written.
      SystemExit: some photographs were not filled; the others were.
    """
    if flag_values.polarity is None:
        raise ValueError("--polarity is missing: white_hole or black_hole with a --mask, or alpha without")
    if (flag_values.mask is None) != (flag_values.polarity == drawn_masks.ALPHA):
        raise ValueError(
            f"--polarity is {flag_values.polarity} and --mask {flag_values.mask}; a mask is white_hole or black_hole, "
            "and alpha is the photograph's own"
        )
    options = Options(flag_values.polarity, flag_values.dilate, flag_values.feather, flag_values.max_pixels)
    found = jobs.match(flag_values.image, flag_values.mask, flag_values.out, flag_values.overwrite)
    compilation_cache.enable(flag_values.compilation_cache)
    network = Inpainter.from_run(flag_values.run, flag_values.checkpoint, flag_values.tile)
    failed = fill_all(network, found, options)
    if failed:
        sys.exit(f"error: {len(failed)} of {len(found)} not filled: {', '.join(failed)}" if len(found) > 1 else 1)


if __name__ == "__main__":
    command_line.run(main, define_flags, interrupted="interrupted: every file that was written is whole")
