"""Trains on a folder of your own photographs, at 256 x 256.

    python -m pconv_jax.main --config=experiments/folder.py --config.data.path=/path/to/photos

Photographs in sub-folders are included, and a tenth is held out for evaluation. The network is the paper's for
256 x 256 (7 + 7 layers, 25.8 million parameters) and is meant for a GPU; time and scores have not been measured.
Without VGG16 weights the perceptual and style terms are off, and the log reports it.
"""

from experiments import default


def get_config():
    """Returns default.py, changed for photographs of your own."""
    config = default.get_config()
    config.name = "folder"
    config.data.source = "folder"
    config.data.size = 256
    config.model.depth = 7
    config.train.batch_size = 8
    config.train.steps = 100_000
    config.finetune.steps = 20_000
    config.train.checkpoint_every = 2_000
    config.eval.examples = 120
    return config
