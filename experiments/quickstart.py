"""Trains a small U-Net of partial convolutions on the photographs in scikit-image's wheel, in minutes on two CPU cores.

    ./launch.sh quickstart        or        python -m pconv_jax.main --config=experiments/quickstart.py

It trains on twelve photographs and is evaluated on four others: about 6 minutes on two free cores, 31.9 dB (README,
Results). Like photographs.py, it fills an image pyramid from coarse to fine: the network fills the image at half the
size first, and then predicts what to add to the enlarged result. The paper's network fills the image at once. What else
differs from the paper, and why:

- The loss is PSNR over the hole (`log_mse`), because that is the score of the table.
- There is no normalisation, because batch statistics are noisy for thin holes, and the input is centred.
- Three downsampling stages and small kernels suffice for 64 pixels; the paper's eight and its 7x7 are for 512.
- The optimizer is Muon in place of Adam, because only few steps fit into some minutes.
- Rotations and colour permutations are added, because there are few photographs.

Learning rate, batch size, depth and number of levels were chosen by the PSNR on other crops and masks of the four,
after short trainings of about the same processor time.
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
    config.model.depth = 3
    config.model.width = 32
    config.model.max_width = 128
    config.model.kernels = (5, 3)
    config.model.norm = "none"
    config.model.center = True
    config.model.guess = True
    config.loss.weights.valid = 0.0
    config.loss.weights.hole = 0.0
    config.loss.weights.tv = 0.0
    config.loss.weights.log_mse = 1.0
    config.optim.name = "muon"
    config.optim.lr = 3e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 1.0
    config.train.batch_size = 16
    config.train.pyramid_levels = 2
    config.train.steps = 2200
    config.finetune.steps = 0
    config.train.log_every = 50
    config.train.checkpoint_every = 500
    config.train.sample_every = 500
    config.eval.examples = 96
    config.eval.crop_scale = (0.25, 1.0)
    config.eval.batch_size = 16
    return config
