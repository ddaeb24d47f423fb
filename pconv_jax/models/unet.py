"""The U-Net of partial convolutions (Liu et al. 2018, section 3.2 and its table of layers).

Images `[N, H, W, C]` in [0, 1], masks `[N, H, W, 1]`, 1 = valid. The file defines a block, then the network.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pconv_jax import errors
from pconv_jax.models import layers, options
from pconv_jax.ops import compositing, half_padded


class Block(nn.Module):
    """A convolution, a normalisation and an activation.

    Attributes:
      conv: makes the convolution, `layers.Conv` with all arguments but the name.
      norm: makes the normalisation, `layers.Norm` with all arguments but the name.
      negative_slope: negative slope of the activation, 0 for ReLU; None: no activation.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    negative_slope: float | None

    @nn.compact
    def __call__(self, x, mask, skip, skip_mask, train):
        """Applies the block.

        Args:
          x: features `[N, H, W, C]`.
          mask: mask of `x`, as `layers.Conv` takes it.
          skip: features of the encoder that are concatenated, or None.
          skip_mask: mask of `skip`, or None.
          train: whether batch normalisation uses the statistics of the batch.

        Returns:
          `(x, mask)` as `layers.Conv`.
        """
        x, mask = self.conv(name="conv")(x, mask, skip, skip_mask)
        x = self.norm(name="norm")(x, mask, train=train)
        if self.negative_slope is not None:
            x = jax.nn.leaky_relu(x, self.negative_slope)
        return x, mask


class UNet(nn.Module):
    """The inpainting network; its defaults are the paper's 16 layers for 512x512 pixels.

    The encoder `enc1 .. encD` has stride 2. Each layer of the decoder `decD .. dec1` upsamples by two (nearest
    neighbour), concatenates the skip and convolves with stride 1. The skip of `dec1` is the masked input itself; it has
    no normalisation and no activation, so the output is not confined to [0, 1].

    Attributes:
      depth: downsampling stages; height and width of an image are multiples of `2 ** depth`.
      width: channels of `enc1`, doubled per level.
      max_width: largest number of channels.
      kernels: odd kernel sizes of `enc1, enc2, ..`. The last value serves the remaining levels, and values for levels
        beyond `depth` are not used, so that `depth` can be changed alone.
      channels: number of channels of the image.
      norm: "batch", "masked_batch", "group" or "none" (`layers.Norm`), on all layers but `enc1` and `dec1`.
      center: subtract the mean of each image's valid pixels from the input and add it to the output, which the paper
        does not. Without it, the output of windows with few valid pixels depends on the brightness of the image,
        amplified by the ratio, and the first steps of training are spent on reducing that.
      conv_type: the type of convolution under study (`layers.Conv`); everything else stays the same.
      momentum: momentum of batch normalisation's running statistics.
      axis_name: mapped axis over which batch normalisation is synchronised in training.
      dtype: dtype of the features; parameters and masks stay float32.
      remat: recompute the features inside a block in the backward pass instead of storing them.
      conv_impl: implementation of the convolutions, one of `dispatch.IMPLS`; all are equal up to rounding.
      mask_update: "shrink" (the paper's), "keep" or "vanish" (`ops.mask_update`), of all layers but `dec1`, whose mask
        no layer receives.
      guess: take a value for every pixel of the hole as a further argument, and predict what to add to it. The input
        of the first layer is the image with the guess in its hole, and the mask as a channel.
      negative_slope: of the decoder's leaky ReLU. This and the following are for weights that others have trained.
      first_norm: normalise in `enc1`, too.
      norm_bias: a bias also in layers with a normalisation, before it.
      padding: "hole", or "circular": the width wraps around, as longitude does, and the height ends in holes.
      any_size: accept sizes that are not multiples of `2 ** depth`; features are upsampled to the size of the skip.
      input_mean: per channel, subtracted from the image; () for none.
      input_std: per channel, by which the image is then divided; the output is scaled back; () for none.
      soft_mask: masks may hold values between 0 and 1, by which `enc1` and `dec1` weight the image's pixels.
      renormalise_twice: `half_padded.Variant.twice` of `dec1`.
    """

    depth: int = 8
    width: int = 64
    max_width: int = 512
    kernels: tuple[int, ...] = (7, 5, 5, 3)
    channels: int = 3
    norm: str = "batch"
    center: bool = False
    conv_type: str = "partial"
    momentum: float = 0.9
    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    conv_impl: str = "auto"
    mask_update: str = "shrink"
    guess: bool = False
    negative_slope: float = 0.2
    first_norm: bool = False
    norm_bias: bool = False
    padding: str = "hole"
    any_size: bool = False
    input_mean: tuple[float, ...] = ()
    input_std: tuple[float, ...] = ()
    renormalise_twice: bool = False
    soft_mask: bool = False

    @nn.compact
    def __call__(self, image, mask, guess=None, *, inside=None, train=False, freeze_encoder=False):
        """Predicts the whole image. Values in holes are never read.

        Args:
          image: `[N, H, W, C]` in [0, 1].
          mask: `[N, H, W, 1]`, 1 valid, 0 hole.
          guess: `[N, H, W, C]` for networks with the attribute `guess`, else None; only its pixels in the hole are
            read. The output is the guess plus what the last layer predicts, and the final mask is 1 everywhere.
          inside: `[N, H, W, 1]`, 1 in a rectangle that starts in the upper left corner and 0 beyond it; None: 1
            everywhere. Every layer treats positions beyond the rectangle as outside the image, so that an image can be
            padded to a size for which the network is compiled already. Group normalisation is the exception: its
            statistics include the padding.
          train: batch normalisation uses the statistics of the batch and updates the running ones.
          freeze_encoder: the encoder uses its running statistics also in training and does not update them, since
            holes distort the statistics of the batch (paper, section 4.2).

        Returns:
          `(output, final_mask)`: the raw prediction `[N, H, W, C]` in float32, not confined to [0, 1], and the mask
          `[N, H, W, 1]` of the pixels that depend on a valid pixel; None for types other than "partial".

        Raises:
          UserError: the size is not a multiple of `2 ** depth`, or options of the network exclude each other.
          ValueError: the image has another number of channels, or a guess is missing or surplus.
        """
        self._check(image, mask, guess)
        kernels = self.kernels + self.kernels[-1:] * (self.depth - len(self.kernels))
        widths = [min(self.width * 2**level, self.max_width) for level in range(self.depth)]
        offset = compositing.valid_mean(image, mask) if self.center else 0.0
        if self.guess:
            image = compositing.composite(image, guess, mask)
            x, mask = self._guess_input(image - offset, mask)
            offset = image
        else:
            x, mask = self._input(compositing.standardise(image - offset, self.input_mean, self.input_std), mask)
        x, mask = _cut(x, mask, inside, 0)
        skips = []
        for level in range(self.depth):
            skips.append((x, mask))
            norm = "none" if level == 0 and not self.first_norm else self.norm
            layer = self._block(f"enc{level + 1}", widths[level], kernels[level], 2, norm, 0.0)
            x, mask = layer(x, mask, None, None, train and not freeze_encoder)
            x, mask = _cut(x, mask, inside, level + 1)
        for level in reversed(range(1, self.depth)):
            layer = self._block(f"dec{level + 1}", widths[level - 1], 3, 1, self.norm, self.negative_slope)
            x, mask = _cut(*layer(x, mask, *skips[level], train), inside, level)
        layer = self._block("dec1", self.channels, 3, 1, "none", None)
        x, mask = layer(x, mask, *skips[0], train)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return compositing.scale_back(x, self.input_mean, self.input_std) + offset, mask

    def _check(self, image, mask, guess):
        """Checks the options of the network and the arguments of a call."""
        if self.norm == "masked_batch" and self.conv_type != "partial":
            raise errors.UserError(
                f'norm "masked_batch" with kind "{self.conv_type}"; only "partial" has a mask: use norm "batch"'
            )
        options.check(self, self.conv_type)
        if not self.any_size:
            check_size(image.shape[1:3], self.depth)
        if image.shape[-1] != self.channels or mask.shape != (*image.shape[:-1], 1):
            raise ValueError(
                f"image is {image.shape} and mask {mask.shape}; needs [N, H, W, {self.channels}] and [N, H, W, 1]"
            )
        if (guess is not None) != self.guess:
            raise ValueError(
                f"a guess is {'missing' if self.guess else 'given'} and the network was built with guess={self.guess}: "
                "pass a guess to networks with model.guess, and to no others"
            )

    def _block(self, name, features, kernel_size, stride, norm, negative_slope):
        """Returns a block of the network; `dec1` is the last one."""
        last = name == "dec1"
        conv = functools.partial(
            layers.Conv,
            features,
            kernel_size,
            stride,
            use_bias=norm == "none" or self.norm_bias,
            # A gate is an activation, and the last layer has none.
            conv_type="zero" if last and self.conv_type == "gated" else self.conv_type,
            dtype=self.dtype,
            impl=self.conv_impl,
            mask_update="shrink" if last else self.mask_update,
            zero=self.guess and last,  # so that training starts at the guess
            variant=half_padded.Variant(
                circular=self.padding == "circular",
                crop=self.any_size,
                twice=last and self.renormalise_twice,
                soft=self.soft_mask and name in ("enc1", "dec1"),
            ),
        )
        norm = functools.partial(layers.Norm, norm, self.momentum, self.axis_name, self.dtype)
        block_type = nn.remat(Block, static_argnums=5) if self.remat else Block  # 5: train
        return block_type(conv, norm, negative_slope, name=name)

    def _input(self, image, mask):
        """Returns the input of the first layer, 0 in holes whatever the image holds there, and its mask."""
        image = jnp.where(mask != 0, image * mask if self.soft_mask else image, 0).astype(self.dtype)
        if self.conv_type == "partial":
            return image, mask
        if self.conv_type == "zero":
            return image, None
        return jnp.concatenate([image, (mask != 0).astype(self.dtype)], axis=-1), None

    def _guess_input(self, image, mask):
        """Returns the first layer's input of a network with a guess: no pixel is missing, the mask is a channel."""
        x = jnp.concatenate([image.astype(self.dtype), (mask != 0).astype(self.dtype)], axis=-1)
        return x, jnp.ones(mask.shape, jnp.float32) if self.conv_type == "partial" else None


def _cut(x, mask, inside, level):
    """Clears features and mask beyond `inside`, which has the resolution of the image; `x` is at `level`."""
    if inside is None:
        return x, mask
    kept = inside[:, :: 2**level, :: 2**level] != 0
    # Typed zeros, because jax2onnx turns the result with a Python number into float64.
    x, mask = (None if a is None else jnp.where(kept, a, jnp.zeros((), a.dtype)) for a in (x, mask))
    return x, mask


def from_section(section, axis_name: str | None = None) -> UNet:
    """Returns the network that the section `model` of a config describes.

    Args:
      section: the section, or its values as a dict.
      axis_name: pmap axis over which batch normalisation is synchronised when training.

    Raises:
      TypeError, KeyError: the section has a key that is no option of the network, or lacks one.
    """
    values = {**section, "dtype": jnp.dtype(section["dtype"])}
    values |= {key: tuple(section[key]) for key in ("kernels", "input_mean", "input_std") if key in section}
    values["conv_type"] = values.pop("kind")
    return UNet(**values, axis_name=axis_name)


def prepared(variables, dtype):
    """Moves the variables to the device and casts kernels to the compute dtype once, instead of at every call.

    Args:
      variables: variables of a network, as arrays of the host or the device.
      dtype: dtype of the network's computation.

    Returns:
      The variables, with which the network's output is the same bit for bit.
    """
    return jax.tree.map(lambda value: jnp.asarray(value, dtype if value.ndim == 4 else None), variables)


def check_size(size, depth):
    """Checks that height and width can be downsampled `depth` times.

    Args:
      size: height and width.
      depth: downsampling stages.

    Raises:
      UserError: height or width is not a positive multiple of `2 ** depth`.
    """
    multiple = 2**depth
    height, width = size
    if height % multiple or width % multiple or not height or not width:
        raise errors.UserError(
            f"image is {height}x{width}; needs multiples of {multiple} ({depth} downsampling stages): "
            "pad it with holes (mask 0), or lower model.depth"
        )


def receptive_field_radius(depth: int, kernels: tuple[int, ...]) -> int:
    """Returns the radius of the receptive field in pixels.

    No output depends on a pixel whose row or column is farther away. This holds for the convolutions; `center` and
    group normalisation read the whole image.

    Args:
      depth: downsampling stages.
      kernels: kernel sizes of `enc1, enc2, ..`; the last value serves the remaining levels.
    """
    kernels = (*kernels, *kernels[-1:] * depth)
    convolutions = sum(
        (kernels[level] // 2 + 1) * 2**level for level in range(depth)
    )  # One term each for the encoder and the decoder.
    return convolutions + 2**depth - 1  # nearest upsampling shifts a feature by up to half a step per level
