"""The paper's training on Places2, in the version of TFDS: 1.8 million scenes of 256 x 256 pixels (places365_small).

    python -m pconv_jax.tools.prepare_tfds places365_small    (once)
    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz    (once)
    python -m pconv_jax.main --config=experiments/places2.py

With the paper's own masks: --config.masks.kind=folder --config.masks.path=DIR, and for its training masks, whose holes
are black, --config.masks.polarity=black_hole.

Hardware and time: it is meant for one GPU, where it has not been run. On two CPU cores a step takes 4.7 s
(1.3 images/s, 6.5 GiB), so its 550,000 steps would take a month.

Scores: none measured yet. The paper's PSNR on Places2 at 512 x 512 is 28.32, 25.25 and 22.89 dB for holes of 10-20,
20-30 and 30-40 % that do not touch the border (eval.masks.border=0.04). On N GPUs give train.batch_size=6N and scale
both learning rates by N.
"""

from experiments import default


def get_config():
    """Returns default.py with its recipe (both phases, batch of 6, masks, losses), at the size of the images."""
    config = default.get_config()
    config.name = "places2"
    config.data.source = "tfds"
    config.data.name = "places365_small"
    config.data.size = 256
    config.data.crop_scale = (1.0, 1.0)  # the images are as large as the examples, so a smaller crop would be enlarged
    config.model.depth = 7  # bottleneck of 2 x 2
    config.loss.vgg16_weights = "vgg16.npz"
    config.eval.examples = 600  # a hundred in each bucket of hole area
    config.eval.crop_scale = (1.0, 1.0)
    return config
