"""Settings of training and evaluation examples: their size, how they are cut from photographs, and their masks."""

from pconv_jax.data import masks, pipeline


def size(config) -> tuple[int, int]:
    """Returns the height and width of an example."""
    return tuple(config.data.grid) or (config.data.size, config.data.size)


def train_masks(config) -> masks.Family:
    """Returns the family of the training masks."""
    return masks.Family(**{**config.masks, "area": tuple(config.masks.area)})


def evaluation_masks(config) -> masks.Family:
    """Returns the family of the evaluation masks. Its area is the last bucket's, the hardest to fit beside a border."""
    return masks.Family(**config.eval.masks, area=pipeline.BUCKETS[-1])


def train_view(config) -> pipeline.View | None:
    """Returns the settings by which training examples are cut from photographs; None for grids, used as they are."""
    data = config.data
    if data.grid:
        return None
    return pipeline.View(data.size, tuple(data.crop_scale), data.flip, data.rotate, data.permute_channels)


def evaluation_view(config) -> pipeline.View | None:
    """Returns the settings by which evaluation examples are cut from photographs; None for grids."""
    if config.data.grid:
        return None
    return pipeline.View(config.data.size, tuple(config.eval.crop_scale), native=config.eval.native)


def evaluation_areas(config) -> tuple[tuple[float, float], ...]:
    """Returns the ranges of hole area that a run is scored on, in turn: the buckets, or one range of all areas."""
    return pipeline.BUCKETS if config.eval.buckets else ((0.0, 1.0),)
