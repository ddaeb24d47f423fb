"""Imports a network of partial convolutions that another project has trained, as a weights file of this project.

    python -m pconv_jax.tools.import_weights 1000000.pth --out=naoto.safetensors
    python -m pconv_jax.tools.import_weights 20crtasgn72.pth --grid=72x72 --out=crai.safetensors
    python -m pconv_jax.tools.import_weights --download=mmagic-places --out=places.safetensors

`python -m pconv_jax.inpaint --weights=FILE` and `evaluate --weights=FILE` use the weights file, and
`python -m pconv_jax.infill` uses it for climate networks. The layout is recognised by the names of the tensors. Every
tensor is used, or listed with the reason why it is not needed; anything else is an error, and nothing is written. No
code in the file is run.
"""

import hashlib
import os
import re
import tempfile

import flax.traverse_util
import numpy as np
from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.inpainting import weights_file
from pconv_jax.models import options
from pconv_jax.tools import download, layouts, torch_checkpoint, weight_files

_TOOL = "python -m pconv_jax.tools.import_weights"
_MMAGIC = "https://download.openmmlab.com/mmediting/inpainting/pconv/"
_NAOTO = "https://github.com/naoto0804/pytorch-inpainting-with-partial-conv/releases/download/v0.0.0/"
PUBLISHED = {
    "mmagic-places": download.Published(
        _MMAGIC + "pconv_256x256_stage2_4x2_places_20200619-1ffed0e8.pth", None, "sha256:1ffed0e8"
    ),
    "mmagic-celeba": download.Published(
        _MMAGIC + "pconv_256x256_stage2_4x2_celeba_20200619-860f8b95.pth", None, "sha256:860f8b95"
    ),
    # Its authors publish no checksum; the weights file records the SHA-256 of what was imported.
    "naoto0804": download.Published(_NAOTO + "1000000.pth", 412, "sha256:"),
}
_KERAS = (
    "is an HDF5 file, as of PConv-Keras, whose network cannot be imported faithfully: it adds biases in holes, "
    "normalises by the statistics of the single image in inference, counts one channel in sum(1), and puts the skip "
    "before the upsampled features. Train it again here, e.g. with experiments/celeba.py"
)


def import_file(
    path: str,
    out: str,
    *,
    layout: str | None = None,
    padding: str | None = None,
    grid: str | None = None,
    north_first: bool = False,
    overwrite: bool = False,
) -> str:
    """Converts a checkpoint to a weights file, completely or not at all.

    Args:
      path: the checkpoint.
      out: weights file to write.
      layout: a name of `layouts.LAYOUTS`; None recognises it.
      padding: "hole" or "circular"; None for the layout's.
      grid: height and width in cells that a network for grids was trained on, e.g. "72x72"; None: not known.
      north_first: whether the first row of that grid was the northernmost.
      overwrite: whether an existing `out` is replaced.

    Returns:
      A report on how each tensor was used.

    Raises:
      UserError: the file is damaged, of another layout, or lacks tensors; or `out` exists. Nothing is written.
      OSError: a file cannot be read or written.
    """
    weight_files.check_absent(out, overwrite=overwrite)
    size = _size(grid)
    tensors, step, digest = _read(path)
    with errors.prefixed(f"{path}: "):
        recognised = layouts.recognise(tensors)
        if layout not in (None, recognised):
            raise errors.UserError(f"its tensors have the names of {recognised}, and --layout={layout}: leave it out")
        chosen = layouts.LAYOUTS[recognised]
        if chosen.check:
            chosen.check(tensors)
        section = layouts.section(chosen, tensors, padding)
        about = _about(recognised, path, step, digest) | ({"grid": size} if size else {})
        about |= {"north_first": True} if north_first else {}
        weights = weights_file.Weights(section, None, None, about)
        converted = layouts.convert(chosen, tensors, weights.model())
    variables = flax.traverse_util.unflatten_dict(converted.variables, sep="/")
    written = weights_file.Weights(section, variables, None, weights.about)
    with tempfile.TemporaryDirectory(prefix=".weights_", dir=os.path.dirname(os.path.abspath(out))) as folder:
        temporary = os.path.join(folder, "weights.safetensors")
        weights_file.write(temporary, written, kernel_dtype=np.float32)
        weights_file.read(temporary)
        os.replace(temporary, out)
    return _report(out, recognised, chosen, section, converted, len(tensors), digest, bool(size))


def _about(name, path, step, digest):
    """Returns what the weights file records about its source."""
    layout = layouts.LAYOUTS[name]
    return {
        "name": name,
        "step": step,
        "licence": layout.licence,
        "credits": layout.origin,
        "layout": name,
        "origin": layout.origin,
        "source": os.path.basename(path),
        "source_sha256": digest,
    }


def _size(grid):
    """Returns the height and width of "72x72" as a list."""
    if grid is None:
        return None
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
        raise errors.UserError(f"--grid is {grid}; needs HEIGHTxWIDTH in cells, e.g. 72x72")
    return [int(extent) for extent in grid.split("x")]


def _read(path):
    """Returns the tensors of a checkpoint by name, its training step or 0, and its SHA-256."""
    if not os.path.isfile(path):
        raise errors.UserError(f"no file {path}: give a checkpoint, or --download={'|'.join(PUBLISHED)}")
    with open(path, "rb") as file:
        start = file.read(8)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if start == b"\x89HDF\r\n\x1a\n":
        raise errors.UserError(f"{path} {_KERAS}")
    weight_files.check_name(path, _MMAGIC.rstrip("/"))
    steps = [0]

    def choose(content):
        with errors.prefixed(f"{path}: "):
            chosen = _state_dict(content)
        steps.append(_step(content))
        return chosen

    return torch_checkpoint.select(path, choose), steps[-1], digest


def _state_dict(content):
    """Returns the tensors of the network in a checkpoint's nested content, by name without `module.`.

    Raises:
      UserError: the content holds no state dict.
    """
    if isinstance(content, dict) and isinstance(content.get("labels"), list) and content["labels"]:
        if content.get("stat_target") is not None:
            raise errors.UserError(
                "it was trained on data that were normalised by statistics in the file (stat_target), which is not "
                "imported"
            )
        content = content.get(content["labels"][-1])
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = content if isinstance(content, dict) else {}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, torch_checkpoint.Tensor)}
    if not tensors:
        raise errors.UserError("it holds no state dict of a network: give the file as its authors published it")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def _step(content):
    """Returns the training step that a checkpoint records, or 0."""
    if isinstance(content.get("labels"), list):
        content = content[content["labels"][-1]]
    step = content.get("n_iter", 0)
    return step if isinstance(step, int) else 0


def _report(out, name, layout, section, converted, count, digest, has_grid):
    """Returns the report on how each tensor was used."""
    lines = [
        f"{out}: {name} ({layout.origin}, licence {layout.licence}), {section['depth']} downsampling stages, "
        f"{section['channels']} channels, source SHA-256 {digest}",
        f"{converted.used} of {count} tensors used",
    ]
    lines += [f"{len(names)} not needed ({names[0]} ..): {reason}" for reason, names in converted.ignored.items()]
    if converted.zero:
        lines.append(f"0 because the network has none: {', '.join(converted.zero)}")
    if name == "crai" and section["channels"] > 1:
        lines.append(
            "It sums the mask of each channel; here a cell is measured where all channels are. Exact for equal masks."
        )
    if name == "crai" and not has_grid:
        lines.append(
            "The file does not record the grid, so infill will take grids of any size: --grid=HEIGHTxWIDTH records it."
        )
    return "\n".join([*lines, *([layout.about] if layout.about else [])])


def fetch(name: str, out: str, published=PUBLISHED, **options) -> str:
    """Downloads a published checkpoint and imports it; the download is removed afterwards.

    Args:
      name: a key of `published`.
      out: weights file to write.
      published: the files.
      **options: as for `import_file`.

    Returns:
      The report of `import_file`.

    Raises:
      UserError: the download failed (the message explains how to do it by hand), or `import_file` raised it.
    """
    weight_files.check_absent(out, overwrite=options.get("overwrite", False))
    folder, file = os.path.dirname(os.path.abspath(out)), published[name]
    with tempfile.TemporaryDirectory(prefix=".download_", dir=folder) as temporary:
        try:
            path = download.get(file, temporary)
        except download.Unreachable as error:
            raise errors.UserError(
                f"cannot download {file.name} ({error}). By hand: on a machine with a network, download\n  {file.url}\n"
                f"put it at\n  {os.path.join(folder, file.name)}\nand run\n"
                f"  {_TOOL} {os.path.join(folder, file.name)} --out={out}"
            ) from error
        return import_file(path, out, **options)


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.import_weights`."""
    flags.DEFINE_string("out", None, "Weights file to write, e.g. places.safetensors.", flag_values, required=True)
    flags.DEFINE_enum(
        "layout", None, list(layouts.LAYOUTS), "Whose network; recognised by the names of its tensors.", flag_values
    )
    flags.DEFINE_enum("download", None, list(PUBLISHED), "Download a published network and import it.", flag_values)
    flags.DEFINE_enum(
        "padding", None, options.PADDINGS, "What is beyond the border; default: the layout's.", flag_values
    )
    flags.DEFINE_string(
        "grid", None, "HEIGHTxWIDTH of the grid that a climate network was trained on, e.g. 72x72.", flag_values
    )
    flags.DEFINE_bool(
        "north_first", False, "That grid had the northernmost row first; default: the southernmost.", flag_values
    )
    flags.DEFINE_bool("overwrite", False, "Replace --out if it exists.", flag_values)


def main(flag_values: flags.FlagValues, *files: str):
    """Imports the file, or downloads one and imports it.

    Args:
      flag_values: parsed flags of `define_flags`.
      *files: the checkpoint; none with --download.

    Raises:
      UserError, OSError: the network cannot be imported. Nothing is written then.
    """
    if bool(files) == bool(flag_values.download):
        raise errors.UserError(f"give one checkpoint, or --download={'|'.join(PUBLISHED)}: {_TOOL} FILE --out=FILE")
    chosen = {name: flag_values[name].value for name in ("layout", "padding", "grid", "north_first", "overwrite")}
    if files:
        print(import_file(files[0], flag_values.out, **chosen))
    else:
        print(fetch(flag_values.download, flag_values.out, **chosen))


if __name__ == "__main__":
    command_line.run(main, define_flags, optional=1)
