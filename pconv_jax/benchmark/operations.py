"""Counts the floating-point operations of a config's network from the shapes of its layers.

The count is that of the plain convolutions and is the same for every implementation: a multiplication and an addition
per weight and output position, in the decoder over the concatenation at full size. Mask sums, normalisation,
activations, Gram matrices and Adam are not counted. An implementation that needs fewer operations therefore shows more
GFLOP/s than the arithmetic units execute, and one that computes the mask sum as a convolution with ones shows fewer.
"""

import dataclasses

from pconv_jax.models import vgg


@dataclasses.dataclass(frozen=True)
class Layer:
    """The shape of a convolution of the U-Net.

    Attributes:
      name: name of its block, "enc1", "enc2", ... or "dec1", "dec2", ...
      kernel_size: height and width of the kernel.
      stride: stride in both directions.
      low: number of input channels; in the decoder, of those that are upsampled.
      skip: number of channels of the skip connection; 0 in the encoder.
      outputs: number of output channels.
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
        """Returns the operations per image, which each of the layer's two gradients needs as well."""
        return 2 * self.kernel_size**2 * (self.low + self.skip) * self.outputs * self.size**2


RANDOM_VGG16 = "random"  # Value of loss.vgg16_weights that stands for random weights, where others name a file.

# A 3x3 convolution with 256 channels comes close to a machine's peak rate; other rates are given as shares of its rate.
LARGE = Layer("large convolution", 3, 1, 256, 0, 256, 64)


def layers(model, size: int) -> list[Layer]:
    """Returns the convolutions of the U-Net in the order in which they are computed.

    Args:
      model: `config.model`, of a depth that fits the size and of a kind other than "gated".
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
    """Returns the operations per image of the U-Net's forward pass.

    Args:
      model: see `layers`.
      size: pixels per side of the image.
    """
    return sum(layer.forward for layer in layers(model, size))


def step(model, size: int, with_vgg: bool) -> int:
    """Returns the operations per image of a training step: forward pass, both gradients of each layer, and VGG16.

    The image needs no gradient, neither as input of the first layer nor as skip connection of the last. VGG16 runs on
    output, composite and target and is differentiated by the first two; its weights have no gradient.

    Args:
      model: see `layers`.
      size: pixels per side of the image.
      with_vgg: whether the loss has terms that use VGG16.
    """
    convolutions = layers(model, size)
    last = convolutions[-1]
    image_gradient = convolutions[0].forward + last.forward * last.skip // (last.low + last.skip)
    return 3 * forward(model, size) - image_gradient + (5 * vgg16(size) if with_vgg else 0)


def vgg16(size: int) -> int:
    """Returns the operations of VGG16 through its third pooling layer, for an image of `size` pixels per side."""
    total, inputs = 0, 3
    for layer in vgg.LAYERS:
        if layer is None:
            size //= 2
        else:
            total, inputs = total + 2 * 9 * inputs * layer[1] * size**2, layer[1]
    return total
