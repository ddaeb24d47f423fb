"""Evaluates weights for photographs: 256-pixel crops at native resolution, masks of a folder as they are.

    ./launch.sh evaluate --config=experiments/evaluate_photographs.py --config.data.path=A --config.eval.masks.path=B \\
        --out=scores --baselines="mean fill,Telea,Navier-Stokes,biharmonic,FSR,GMIC"

A is a folder of photographs, each of which counts, and B one of masks (NVIDIA's test set, white = hole), which are
resized by nearest neighbour. Without `--weights=FILE` it scores the weights that the package contains. Photographs are
never resized. The six buckets of hole area have 40 examples each. `--config.data.size=512` takes larger crops, of
photographs that have the pixels.
"""

from experiments import default


def get_config():
    """Returns default.py's config with the evaluation that the README's results come from."""
    config = default.get_config()
    config.name = "evaluate_photographs"
    config.data.source = "folder"
    config.data.size = 256
    config.model.depth = 7
    config.eval.examples = 240
    config.eval.native = True
    config.eval.masks.kind = "folder"
    return config
