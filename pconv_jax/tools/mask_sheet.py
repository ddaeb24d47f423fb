"""A contact sheet of masks, to look at before training on them. White is hole.

python -m pconv_jax.tools.mask_sheet --out=masks.png --kind=shapes --area=0.1,0.3
"""

from absl import app, flags

from pconv_jax.data import masks
from pconv_jax.evaluation import image_grids

_OUT = flags.DEFINE_string("out", None, "PNG to write.", required=True)
_KIND = flags.DEFINE_enum("kind", "strokes", list(masks.FAMILIES), "Family of masks.")
_AREA = flags.DEFINE_list("area", ["0.01", "0.6"], "Range of the hole area, as fractions.")
_BORDER = flags.DEFINE_float("border", 0.0, "Frame without holes, as a fraction of the side.")
_FOLDER = flags.DEFINE_string("path", "", "Directory of mask images, for --kind=folder.")
_POLARITY = flags.DEFINE_enum("polarity", "white_hole", masks.POLARITIES, "Of the mask images.")
_AUGMENT = flags.DEFINE_bool("augment", True, "Augment the mask images.")
_SIZE = flags.DEFINE_integer("size", 256, "Pixels per side of a mask.", lower_bound=16)
_SEED = flags.DEFINE_integer("seed", 0, "Of the masks.", lower_bound=0)
_ROWS = flags.DEFINE_integer("rows", 4, "Rows of the sheet.", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 6, "Columns of the sheet.", lower_bound=1)


def main(argv):
    """Draws, writes, and says what was drawn."""
    del argv
    try:
        area = tuple(map(float, _AREA.value))
        if len(area) != 2:
            raise ValueError(f"--area is {','.join(_AREA.value)}; needs two fractions, e.g. 0.1,0.3")
        family = masks.Family(_KIND.value, area, _BORDER.value, _FOLDER.value, _POLARITY.value, _AUGMENT.value)
        indices = range(_ROWS.value * _COLUMNS.value)
        drawn = [masks.draw(family, _SEED.value, 0, index, (_SIZE.value, _SIZE.value)) for index in indices]
        images = [(1 - mask) * 255 for mask in drawn]
        rows = [images[r : r + _COLUMNS.value] for r in indices[:: _COLUMNS.value]]
        image_grids.save(_OUT.value, image_grids.grid(rows))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    areas = [masks.hole_area(mask) for mask in drawn]
    touching = sum(map(masks.touches_border, drawn))
    share = f"hole area {min(areas):.1%} to {max(areas):.1%}"
    print(f"{_OUT.value}: {len(drawn)} masks, {share}, {touching} touch the border")


if __name__ == "__main__":
    app.run(main)
