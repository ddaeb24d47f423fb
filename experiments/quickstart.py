"""A small U-Net of partial convolutions on the photographs in scikit-image's wheel: minutes on two CPU cores.

./launch.sh quickstart        or        python -m pconv_jax.main --config=experiments/quickstart.py
"""

from experiments import default


def get_config():
    """default.py, small enough for a CPU."""
    config = default.get_config()
    config.name = "quickstart"
    config.data.size = 64
    config.data.crop_scale = (0.25, 1.0)
    config.data.cache = True
    config.model.depth = 4
    config.model.width = 32
    config.model.max_width = 128
    config.model.kernels = (5, 3)
    config.model.center = True
    config.optim.lr = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 50
    config.train.batch_size = 16
    config.train.steps = 1500
    config.train.log_every = 50
    config.train.checkpoint_every = 250
    config.train.sample_every = 250
    config.eval.examples = 96
    config.eval.batch_size = 16
    return config
