"""Trains the network that fills photographs from coarse to fine, for holes of any size.

    python -m pconv_jax.main --config=experiments/photographs.py --config.data.path=DIR

DIR is a folder of photographs, some hundred or more, with at least 400 pixels on the short side. The network is small,
because the image pyramid and not the network reaches across large holes: at each of three levels it takes the enlarged
result of the next coarser level as a guess and predicts what to add to it. So it learns on the inputs that it gets
when it fills photographs, where the pyramid has as many levels as the image asks for. The loss is PSNR over the hole.

The weights in the package were trained by this config on a CPU (docs/model_card.md has the command, time and scores).
On a GPU, larger crops and a wider network are affordable:
`--config.data.size=256 --config.train.pyramid_levels=5 --config.model.width=64 --config.model.max_width=256
--config.model.dtype=bfloat16` (not tried).
"""

from experiments import default


def get_config():
    """Returns default.py's config, changed to a small network with a guess, trained in an image pyramid."""
    config = default.get_config()
    config.name = "photographs"
    config.data.source = "folder"
    config.data.eval_fraction = 0.03
    config.data.size = 64
    config.data.crop_scale = (0.125, 0.8)  # from native resolution at 512 pixels to most of the photograph
    config.data.rotate = True
    config.data.cache = True
    config.masks.kind = "mixed"
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
    config.optim.lr = 1.5e-3
    config.optim.schedule = "trapezoid"
    config.optim.warmup_steps = 100
    config.optim.cooldown_steps = 1700
    config.optim.clip_norm = 1.0
    config.optim.ema = 0.999
    config.train.pyramid_levels = 3
    config.train.batch_size = 32
    config.train.steps = 4700
    config.train.log_every = 25
    config.train.checkpoint_every = 200
    config.train.sample_every = 1000
    config.finetune.steps = 0
    config.eval.examples = 96
    config.eval.crop_scale = (0.125, 0.8)
    config.eval.batch_size = 16
    config.eval.masks.kind = "mixed"
    return config
