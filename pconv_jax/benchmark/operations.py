"""The layers of a config's network, and how many floating-point operations they need, counted from their shapes.

Counted is the plain formulation, whoever computes it and however: a multiplication and an addition per weight and
output position of every convolution, over the concatenation at full size in the decoder. Coverage, normalisation,
activations, Gram matrices and Adam are not counted. So a faster formulation reaches more GFLOP/s than the arithmetic
units do, and a ones-convolution for the coverage counts as waste.
"""

import dataclasses

from pconv_jax.models import vgg


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of the U-Net.

    Attributes:
      name: of its block, "enc1" .. or "dec1" ..
      kernel_size, stride: of the window.
      low: input channels; in the decoder those of the map that is upsampled.
      skip: channels concatenated in the decoder; 0 in the encoder.
      outputs: output channels.
      size: pixels per side of the output.
    """

    name: str
    kernel_size: int
    stride: int
    low: int
    skip: int
    outputs: int
    size: int

    @property
    def forward(self) -> int:
        """Operations per image. Each of the two gradients of the layer has as many."""
        return 2 * self.kernel_size**2 * (self.low + self.skip) * self.outputs * self.size**2


RANDOM_VGG16 = "random"  # in place of a file, as loss.vgg16_weights

# Reaches what a machine can: 3 x 3, 256 channels. Its rate is the peak that others are a share of.
LARGE = Layer("large convolution", 3, 1, 256, 0, 256, 64)


def layers(model, size: int) -> list[Layer]:
    """The convolutions in the order in which they are computed.

    Args:
      model: `config.model`, of a depth that fits the size, not gated.
      size: pixels per side of the image.
    """
    kernels = (*model.kernels, *model.kernels[-1:] * model.depth)
    widths = [model.channels, *(min(model.width * 2**level, model.max_width) for level in range(model.depth))]
    if model.kind == "mask_channel":
        widths[0] += 1
    encoder = [
        Layer(f"enc{level + 1}", kernels[level], 2, widths[level], 0, widths[level + 1], size >> (level + 1))
        for level in range(model.depth)
    ]
    decoder = [
        Layer(
            f"dec{level + 1}",
            3,
            1,
            widths[level + 1],
            widths[level],
            widths[level] if level else model.channels,
            size >> level,
        )
        for level in reversed(range(model.depth))
    ]
    return encoder + decoder


def forward(model, size: int) -> int:
    """Operations per image of the U-Net's forward pass."""
    return sum(layer.forward for layer in layers(model, size))


def step(model, size: int, with_vgg: bool) -> int:
    """Operations per image of a training step: the U-Net forward, both gradients of each layer, and VGG16.

    The image itself needs no gradient, neither as input of the first layer nor as skip of the last. VGG16 is applied to
    output, composite and target; it has a gradient with respect to the first two, and none of its weights.
    """
    chain = layers(model, size)
    last = chain[-1]
    of_image = chain[0].forward + last.forward * last.skip // (last.low + last.skip)
    return 3 * forward(model, size) - of_image + (5 * vgg16(size) if with_vgg else 0)


def vgg16(size: int) -> int:
    """Operations per image of VGG16 through its third pooling layer."""
    total, inputs = 0, 3
    for layer in vgg.LAYERS:
        if layer is None:
            size //= 2
        else:
            total, inputs = total + 2 * 9 * inputs * layer[1] * size**2, layer[1]
    return total
