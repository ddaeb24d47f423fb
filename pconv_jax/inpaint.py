"""Fills the holes of photographs with a trained network.

    python -m pconv_jax.inpaint photo.jpg mask.png filled.png     # white in the mask is the hole
    python -m pconv_jax.inpaint cutout.png filled.png             # no mask: transparent pixels are the hole

Folders work as well: masks match by name, or one mask file serves all. The weights that the package contains are used,
or those of `--weights=FILE` or of a run of your own, `--run=DIR`. In Python: `pconv_jax.Inpainter.pretrained()(image,
mask)`.
"""

import functools
import os
import sys
import time

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.data import masks
from pconv_jax.inpainting import drawn_masks, filling, inpainter, jobs, photograph, photograph_files
from pconv_jax.reading import files
from pconv_jax.training import compilation_cache, reporting, rundir

Inpainter = inpainter.Inpainter  # For code that uses `inpaint.Inpainter`.
Options = filling.Options


def fill_file(
    network: Inpainter, job: jobs.Job, options: Options, read_mask=photograph.read
) -> tuple[str, list[str], int]:
    """Reads, fills and writes one photograph. If anything fails, no file is written.

    Args:
      network: fills the hole.
      job: the paths of the files.
      options: options for reading and growing the hole.
      read_mask: reads the mask file, as `photograph.read` does.

    Returns:
      `(size and hole area as text, warnings, number of pixels)`.

    Raises:
      UserError, OSError: a file cannot be read, filled or written; nothing was written.
    """
    if job.problem:
        raise errors.UserError(job.problem)
    extension = os.path.splitext(job.out)[1].lower()
    photo = photograph.read(job.image, options.max_pixels)
    drawn = photo if job.mask is None else read_mask(job.mask, options.max_pixels)
    if drawn.size != photo.size:
        raise errors.UserError(
            f"{files.printable(job.image)} is {photo.size} and {files.printable(job.mask or '')} {drawn.size} (width x "
            "height, upright); masks are not resized: export one of the photograph's size"
        )
    with errors.prefixed(f"{files.printable(job.mask or job.image)}: "):
        hole = filling.hole(photo, drawn_masks.from_image(drawn, options.polarity), options.dilate)
    warnings = [
        *photo.warnings,
        *filling.area_warnings(hole.grown),
        *([] if job.mask is None else filling.grey_warnings(drawn, files.printable(job.mask))),
        *photograph_files.lossy(extension),
        *photograph_files.losses(photo, extension),
    ]
    with errors.prefixed(f"{files.printable(job.image)}: "):
        if job.mask is None:
            photo = filling.opaque(photo, hole.grown)
        photograph_files.check(photo, extension)
        photo, more = filling.fill(network, photo, hole, options.feather)
    warnings += more
    encoded = photograph_files.encode(photo, extension)
    os.makedirs(os.path.dirname(os.path.abspath(job.out)), exist_ok=True)
    rundir.write_atomically(job.out, encoded)
    turned = ", turned as its EXIF says" if photo.turned else ""
    return f"{photo.size}, hole {masks.hole_area(hole.grown):.2%}{turned}", warnings, hole.grown.size


def fill_all(network: Inpainter, matched: list[jobs.Job], options: Options) -> dict[str, str]:
    """Fills one photograph after another and prints progress; photographs that fail are reported and skipped.

    Args:
      network: fills the holes.
      matched: the paths of each photograph, its mask and its result.
      options: options for reading and growing holes.

    Returns:
      The errors, by path of the photograph.
    """
    read_mask = functools.lru_cache(maxsize=1)(photograph.read)  # A mask that serves all photographs is read once.
    started, done, total_pixels, failed = time.perf_counter(), 0, 0, {}
    for number, job in enumerate(matched, 1):
        try:
            about, warnings, pixels = fill_file(network, job, options, read_mask)
        except (errors.UserError, OSError) as error:
            failed[job.image] = str(error)
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        done, total_pixels = done + 1, total_pixels + pixels
        for warning in warnings:
            print(f"warning: {files.printable(job.image)}: {warning}", file=sys.stderr)
        seconds = time.perf_counter() - started
        left = reporting.duration(seconds / number * (len(matched) - number))
        progress = (
            f"  ({number}/{len(matched)}, {done / seconds:.2f} images/s, {left} left)" if len(matched) > 1 else ""
        )
        print(f"{files.printable(job.out)}: {about}{progress}", flush=True)
    seconds = time.perf_counter() - started
    if done:
        rate = f"{done / seconds:.2f} images/s, {total_pixels / seconds / 1e6:.2f} megapixels/s"
        print(f"{done} of {len(matched)} filled in {seconds:.1f} s, compilation included: {rate}")
    return failed


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.inpaint`."""
    flags.DEFINE_string("image", None, "Photograph, or folder of photographs; also the first argument.", flag_values)
    flags.DEFINE_string(
        "mask", None, "Mask of the photograph's size, or folder of masks by the same names; none: alpha.", flag_values
    )
    flags.DEFINE_string(
        "out", None, "File to write (.png keeps all), or folder for PNGs; also the last argument.", flag_values
    )
    flags.DEFINE_enum(
        "polarity",
        None,
        drawn_masks.POLARITIES,
        "What the hole is: white or black in the mask, or transparent in the photograph (alpha). Default: white_hole, "
        "and alpha without a mask.",
        flag_values,
    )
    flags.DEFINE_string("weights", None, "Weights file; default: those that the package contains.", flag_values)
    flags.DEFINE_bool("soft_mask", False, "Soft rims of holes, for --weights trained with them.", flag_values)
    flags.DEFINE_string("run", None, "Run directory of your own training, in place of weights.", flag_values)
    flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of --run.", flag_values)
    flags.DEFINE_integer(
        "ensemble", 1, "Flips and turns to average over: 8 is slightly better and 8 times slower.", 1, 8, flag_values
    )
    flags.DEFINE_integer("dilate", 0, "Pixels by which the hole grows first.", 0, flag_values=flag_values)
    flags.DEFINE_integer(
        "feather", 0, "Pixels, of those, over which the image blends into the filling.", 0, flag_values=flag_values
    )
    flags.DEFINE_integer(
        "tile",
        inpainter.TILE,
        "Largest side in pixels that is computed at once; less needs less memory.",
        1,
        flag_values=flag_values,
    )
    flags.DEFINE_integer("max_pixels", filling.MAX_PIXELS, "Larger files are refused.", 1, flag_values=flag_values)
    flags.DEFINE_bool("overwrite", False, "Replace existing results.", flag_values)
    flags.DEFINE_bool("resume", False, "Keep existing results, and fill the rest of the folder.", flag_values)
    flags.DEFINE_bool("compilation_cache", True, "Keep compiled programs in the user's cache directory.", flag_values)


def main(flag_values: flags.FlagValues, *arguments: str):
    """Checks flags and paths, loads the network, and fills the photographs.

    Args:
      flag_values: parsed flags of `define_flags`.
      *arguments: photograph, mask and result, or photograph and result; each may be a flag instead.

    Raises:
      UserError, OSError: a flag or a path does not fit, or the network cannot be loaded. Nothing has been written.
      SystemExit: some photographs could not be filled; all others were.
    """
    image, mask, out = _paths(flag_values, arguments)
    polarity = flag_values.polarity or (drawn_masks.ALPHA if mask is None else "white_hole")
    if (mask is None) != (polarity == drawn_masks.ALPHA):
        raise errors.UserError(
            f"--polarity is {polarity} and the mask {mask}; a mask is white_hole or black_hole, and alpha is the "
            "photograph's own"
        )
    if flag_values.run and flag_values.weights:
        raise errors.UserError("--run and --weights are both given; both name a network: give one of them")
    options = Options(polarity, flag_values.dilate, flag_values.feather, flag_values.max_pixels)
    matched = jobs.match(image, mask, out, flag_values.overwrite, flag_values.resume)
    compilation_cache.enable(flag_values.compilation_cache)
    settings = {"tile": flag_values.tile, "ensemble": flag_values.ensemble}
    if flag_values.soft_mask and not flag_values.weights:
        raise errors.UserError(
            "--soft_mask needs --weights of a network that was trained with soft masks: leave it out"
        )
    if flag_values.run:
        network = Inpainter.from_run(flag_values.run, flag_values.checkpoint, **settings)
    elif flag_values.weights:
        network = Inpainter.from_weights(flag_values.weights, soft_mask=flag_values.soft_mask, **settings)
    else:
        network = Inpainter.pretrained(**settings)
    failed = fill_all(network, matched, options)
    if failed:
        sys.exit(
            f"error: {len(failed)} of {len(matched)} not filled: {', '.join(map(files.printable, failed))}"
            if len(matched) > 1
            else 1
        )


def _paths(flag_values, arguments):
    """Returns the paths `(image, mask or None, out)` from the flags and, in this order, the positional arguments."""
    paths = {name: flag_values[name].value for name in ("image", "mask", "out")}
    missing = [name for name, path in paths.items() if path is None]
    if len(arguments) == len(missing) - 1 and "mask" in missing:
        missing.remove("mask")
    if len(arguments) > len(missing):
        raise errors.UserError(
            f"{', '.join(arguments)} is more than what the flags leave out: give photograph, mask and result once each"
        )
    paths.update(zip(missing, arguments, strict=False))
    for name, what in (("image", "photograph"), ("out", "file to write")):
        if paths[name] is None:
            raise errors.UserError(f"the {what} is missing: python -m pconv_jax.inpaint photo.jpg mask.png filled.png")
    return paths["image"], paths["mask"], paths["out"]


if __name__ == "__main__":
    command_line.run(main, define_flags, optional=3, interrupted="interrupted: every file that was written is whole")
