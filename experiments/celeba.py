"""The paper's training on CelebA: 202,599 aligned photographs of faces, at 128 x 128.

    python -m pconv_jax.tools.prepare_tfds celeb_a    (once; lists the files to download by hand if it cannot)
    python -m pconv_jax.tools.prepare_vgg16 --out=vgg16.npz    (once)
    python -m pconv_jax.main --config=experiments/celeba.py

Hardware and time: it is meant for one GPU, where it has not been run. On two CPU cores a step takes 1.0 s (6 images/s,
3.5 GiB), so its 550,000 steps would take 6.4 days.

Scores: none measured yet. The paper trained on CelebA-HQ at 512 x 512, three days on one V100; its numbers and those of
peers at 256 are not comparable. On N GPUs give train.batch_size=6N and scale both learning rates by N.
"""

from experiments import default


def get_config():
    """Returns default.py with its recipe (both phases, batch of 6, masks, losses), for faces of 178 x 218 pixels."""
    config = default.get_config()
    config.name = "celeba"
    config.data.source = "tfds"
    config.data.name = "celeb_a"
    # The images are 178 pixels wide. At 256 every example would be enlarged, and the network would learn to paint blur.
    # 128 is the largest size with the paper's bottleneck of 2 x 2 that needs no enlargement: 0.72 x 178 is just above.
    config.data.size = 128
    config.data.crop_scale = (0.72, 1.0)
    config.model.depth = 6
    config.loss.vgg16_weights = "vgg16.npz"
    config.eval.examples = 600  # a hundred in each bucket of hole area
    return config
