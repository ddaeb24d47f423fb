"""The paper's training on ImageNet: 1.28 million photographs, at 512 x 512.

    python -m pconv_jax.tools.prepare_tfds imagenet2012 --manual_dir=DIR    (once; lists the files to put there)
    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz    (once)
    python -m pconv_jax.main --config=experiments/imagenet.py

Most of the photographs are smaller than 512 pixels and are enlarged, as in the paper. For a quarter of the work, at
their own size: --config.data.size=256 --config.model.depth=7 --config.name=imagenet256.

Hardware and time: it is meant for one GPU, where it has not been run; the paper took about ten days on a V100. On two
CPU cores a step takes 38 s (0.16 images/s, 15 GiB), so its 550,000 steps would take eight months.

Scores: none measured yet, and the paper has no table of PSNR for ImageNet that we could confirm. On N GPUs give
train.batch_size=6N and scale both learning rates by N.
"""

from experiments import default


def get_config():
    """Returns default.py with its recipe (512 x 512, both phases, batch of 6, masks, losses), on ImageNet."""
    config = default.get_config()
    config.name = "imagenet"
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.crop_scale = (0.8, 1.0)  # fraction of the shorter side, which is 375 pixels in most images
    config.loss.vgg16_weights = "vgg16.npz"
    config.eval.examples = 600  # a hundred in each bucket of hole area
    config.eval.crop_scale = (1.0, 1.0)
    return config
