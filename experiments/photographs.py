"""Trains the network that fills photographs from coarse to fine, for holes of any size, on a GPU.

    python -m pconv_jax.main --config=experiments/photographs.py --config.data.path=DIR

DIR is a folder of photographs, some hundred or more, with at least 400 pixels on the short side. The image pyramid and
not the network reaches across large holes: at each of five levels the network takes the enlarged result of the next
coarser level as a guess and predicts what to add to it. So it learns on the inputs that it gets when it fills
photographs, where the pyramid has as many levels as the image asks for. The loss is PSNR over the hole.

The weights in the package were trained by this config in seven minutes on one H100 (docs/model_card.md has the command,
time and scores). Two CPU cores would need days or weeks, so use photographs_small.py there. Each worker process keeps
all decoded photographs in memory, 1 GB per 1,000 of 512 pixels on the short side: for larger or more photographs, set
`--config.data.cache=False` or fewer `--config.data.workers`.
"""

from experiments import default


def get_config():
    """Returns default.py's config, changed to a network with a guess, trained in an image pyramid."""
    config = default.get_config()
    config.name = "photographs"
    config.data.source = "folder"
    config.data.eval_fraction = 0.03
    config.data.size = 256
    config.data.crop_scale = (0.5, 1.0)  # from native resolution at 512 pixels to the whole short side
    config.data.rotate = True
    config.data.cache = True
    config.data.workers = 8  # processes that feed the GPU; the run on an H100 had 14
    config.masks.kind = "mixed"
    config.model.depth = 4
    config.model.width = 64
    config.model.max_width = 512
    config.model.kernels = (5, 3)
    config.model.norm = "none"
    config.model.center = True
    config.model.guess = True
    config.model.dtype = "bfloat16"
    config.loss.weights.valid = 0.0
    config.loss.weights.hole = 0.0
    config.loss.weights.tv = 0.0
    config.loss.weights.log_mse = 1.0
    config.optim.name = "muon"
    config.optim.lr = 4e-3
    config.optim.schedule = "trapezoid"
    config.optim.warmup_steps = 100
    config.optim.cooldown_steps = 6000
    config.optim.clip_norm = 1.0
    config.optim.ema = 0.999
    config.train.pyramid_levels = 5
    config.train.batch_size = 64
    config.train.steps = 10_529
    config.train.log_every = 50
    config.train.checkpoint_every = 1500
    config.train.sample_every = 1500
    config.finetune.steps = 0
    config.eval.examples = 96
    config.eval.crop_scale = (0.5, 1.0)
    config.eval.batch_size = 32
    config.eval.masks.kind = "mixed"
    return config
