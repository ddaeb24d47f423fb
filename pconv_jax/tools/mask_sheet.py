"""Draws a grid of masks, to look at before training on them. White is hole.

python -m pconv_jax.tools.mask_sheet --out=masks.png --kind=shapes --area=0.1,0.3
"""

from absl import flags

from pconv_jax import command_line, errors
from pconv_jax.data import masks
from pconv_jax.evaluation import image_grids


def define_flags(flag_values: flags.FlagValues):
    """Adds the flags of `python -m pconv_jax.tools.mask_sheet`."""
    flags.DEFINE_string("out", None, "PNG to write.", flag_values, required=True)
    flags.DEFINE_enum("kind", "strokes", list(masks.FAMILIES), "Family of masks.", flag_values)
    flags.DEFINE_list("area", ["0.01", "0.6"], "Range of the hole area, as fractions.", flag_values)
    flags.DEFINE_float("border", 0.0, "Frame without holes, as a fraction of the side.", flag_values=flag_values)
    flags.DEFINE_string("path", "", "Directory of mask images, for --kind=folder.", flag_values)
    flags.DEFINE_enum("polarity", "white_hole", masks.POLARITIES, "Colour of holes in the mask images.", flag_values)
    flags.DEFINE_bool("augment", True, "Augment the mask images.", flag_values)
    flags.DEFINE_integer("size", 256, "Pixels per side of a mask.", 16, flag_values=flag_values)
    flags.DEFINE_integer("seed", 0, "Seed of the masks.", 0, flag_values=flag_values)
    flags.DEFINE_integer("rows", 4, "Rows of the image grid.", 1, flag_values=flag_values)
    flags.DEFINE_integer("columns", 6, "Columns of the image grid.", 1, flag_values=flag_values)


def main(flag_values: flags.FlagValues):
    """Draws masks, writes them as an image grid, and prints their hole areas.

    Raises:
      UserError: --area is no pair of fractions, or no mask fits the flags.
    """
    family = masks.Family(
        flag_values.kind,
        _pair(flag_values.area),
        flag_values.border,
        flag_values.path,
        flag_values.polarity,
        flag_values.augment,
    )
    indices, columns = range(flag_values.rows * flag_values.columns), flag_values.columns
    size = (flag_values.size, flag_values.size)
    drawn = [masks.draw(family, flag_values.seed, 0, index, size) for index in indices]
    images = [(1 - mask) * 255 for mask in drawn]
    image_grids.save(
        flag_values.out, image_grids.grid([images[start : start + columns] for start in indices[::columns]])
    )
    areas = [masks.hole_area(mask) for mask in drawn]
    touching = sum(map(masks.touches_border, drawn))
    print(
        f"{flag_values.out}: {len(drawn)} masks, hole area {min(areas):.1%} to {max(areas):.1%}, "
        f"{touching} touch the border"
    )


def _pair(texts):
    """Returns two numbers from the texts of --area."""
    try:
        low, high = map(float, texts)
    except ValueError:
        raise errors.UserError(f"--area is {','.join(texts)}; needs two fractions, e.g. 0.1,0.3") from None
    return low, high


if __name__ == "__main__":
    command_line.run(main, define_flags)
