"""The paper's training on CelebA: 202,599 aligned photographs of faces, at 128 x 128.

    python -m pconv_jax.tools.prepare_tfds celeb_a    (once; says which files to download by hand if it cannot)
    python -m pconv_jax.main --config=experiments/celeba.py

Meant for one GPU: the network has 6 + 6 layers. Neither the time that it takes nor its scores have been measured yet.
(The paper trained on CelebA-HQ at 512 x 512, three days on one V100; its numbers are not comparable.) Without
loss.vgg16_weights the perceptual and style terms are off, and the log says so. On several GPUs give
train.batch_size a multiple of their number and scale optim.lr with it.
"""

from experiments import default


def get_config():
    """default.py with its recipe (learning rate, batch of 6, masks, losses), for faces of 178 x 218 pixels."""
    config = default.get_config()
    config.name = "celeba"
    config.data.source = "tfds"
    config.data.name = "celeb_a"
    # The images are 178 pixels wide: at 256 every example would be blown up, and the network would learn to paint the
    # blur of it. 128 is the largest size with the paper's bottleneck of 2 x 2 at which that need not be; 0.72 x 178 is
    # just above 128, so that no crop is blown up either.
    config.data.size = 128
    config.data.crop_scale = (0.72, 1.0)
    config.model.depth = 6
    config.eval.examples = 600  # a hundred in each bucket of hole area
    return config
