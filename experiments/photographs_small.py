"""Trains a small network that fills photographs, on a CPU: photographs.py at a size that two cores train in some hours.

    python -m pconv_jax.main --config=experiments/photographs_small.py --config.data.path=DIR

The network has a sixteenth of the parameters and is trained on crops of 64 pixels. Networks like it, trained by Adam or
by Muon for 4,700 to 10,500 steps, are some 0.6 dB below the weights in the package (docs/model_card.md, "What was
compared").
"""

from experiments import photographs


def get_config():
    """Returns photographs.py's config with a small network and small crops."""
    config = photographs.get_config()
    config.name = "photographs_small"
    config.data.size = 64
    config.data.crop_scale = (0.125, 0.8)  # from native resolution at 512 pixels to most of the photograph
    config.data.workers = 0
    config.model.depth = 3
    config.model.width = 32
    config.model.max_width = 128
    config.model.dtype = "float32"
    config.optim.cooldown_steps = 1700
    config.train.pyramid_levels = 3
    config.train.batch_size = 32
    config.train.steps = 4700
    config.train.log_every = 25
    config.train.checkpoint_every = 200
    config.eval.crop_scale = (0.125, 0.8)
    config.eval.batch_size = 16
    return config
