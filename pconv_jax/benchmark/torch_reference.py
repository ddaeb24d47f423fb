"""The same network and losses in PyTorch, in the form that published implementations share, as a reference for ours.

Written from the paper (Liu et al. 2018, equations 1 and 2, sections 3.2 and 3.3). The mask has as many channels as the
features, the mask sum is a convolution with ones from all inputs to all outputs, and the decoder upsamples,
concatenates and convolves. Layout `[N, C, H, W]`, mask 1 = valid. Needs PyTorch (`requirements.txt`).
"""

import torch
from torch import nn
from torch.nn import functional as F

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256))  # Output channels; a pooling layer ends each stage.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PartialConv(nn.Module):
    """Computes equations 1 and 2: `W (X * M) * sum(1) / sum(M) + b` and a mask of 1 where `sum(M) > 0`, else 0.

    Args:
      inputs: number of input channels.
      outputs: number of output channels.
      kernel_size: height and width of the kernel; the padding is half of it, rounded down.
      stride: stride in both directions.
      bias: whether the layer has a bias.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel_size, kernel_size))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("ones", torch.ones_like(self.weight.detach()), persistent=False)
        self.geometry = {"stride": stride, "padding": kernel_size // 2}
        self.kernel_sum = float(inputs * kernel_size**2)

    def forward(self, x, mask):
        """Applies the partial convolution.

        Args:
          x: features `[N, C, H, W]`.
          mask: a mask of every feature, `[N, C, H, W]`, 1 = valid.
        """
        with torch.no_grad():
            mask_sum = F.conv2d(mask, self.ones, **self.geometry)
            hole = mask_sum == 0
            ratio = self.kernel_sum / mask_sum.masked_fill(hole, 1.0)
            new_mask = (~hole).to(x.dtype)
        y = F.conv2d(x * mask, self.weight, **self.geometry) * ratio
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return y.masked_fill(hole, 0.0), new_mask


class Block(nn.Module):
    """Applies partial convolution, batch normalisation and activation.

    Args:
      inputs: number of input channels.
      outputs: number of output channels.
      kernel_size: height and width of the kernel.
      stride: stride in both directions.
      norm: whether batch normalisation follows the convolution, which then has no bias.
      slope: negative slope of the leaky ReLU; 0 is ReLU, None is no activation.
    """

    def __init__(self, inputs, outputs, kernel_size, stride, norm, slope):
        super().__init__()
        self.conv = PartialConv(inputs, outputs, kernel_size, stride, bias=not norm)
        self.norm = nn.BatchNorm2d(outputs) if norm else None
        self.slope = slope

    def forward(self, x, mask):
        """Applies the block.

        Args:
          x: features `[N, C, H, W]`.
          mask: a mask of every feature, `[N, C, H, W]`, 1 = valid.
        """
        x, mask = self.conv(x, mask)
        if self.norm is not None:
            x = self.norm(x)
        if self.slope is not None:
            x = F.leaky_relu(x, self.slope) if self.slope else F.relu(x)
        return x, mask


class UNet(nn.Module):
    """The network of section 3.2, whose last layer has neither normalisation nor activation.

    Args:
      depth: number of downsampling stages.
      width: output channels of the first stage; each further one has twice as many, up to `max_width`.
      max_width: largest number of channels.
      kernels: kernel sizes of the encoder; the last one repeats.
      channels: number of channels of the image.
    """

    def __init__(self, depth: int, width: int, max_width: int, kernels, channels: int = 3):
        super().__init__()
        sizes = [*kernels, *[kernels[-1]] * depth][:depth]
        widths = [channels] + [min(width * 2**level, max_width) for level in range(depth)]
        self.encoder = nn.ModuleList(
            Block(widths[i], widths[i + 1], sizes[i], 2, norm=i > 0, slope=0.0) for i in range(depth)
        )
        self.decoder = nn.ModuleList(
            Block(widths[i + 1] + widths[i], widths[i], 3, 1, norm=i > 0, slope=0.2 if i else None)
            for i in reversed(range(depth))
        )

    def forward(self, image, mask):
        """Returns the raw output `[N, C, H, W]`.

        Args:
          image: `[N, C, H, W]` in [0, 1].
          mask: `[N, C, H, W]`, 1 = valid.
        """
        x, skips = image, []
        for block in self.encoder:
            skips.append((x, mask))
            x, mask = block(x, mask)
        for block, (skip, skip_mask) in zip(self.decoder, reversed(skips), strict=True):
            x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1)
            mask = torch.cat([F.interpolate(mask, scale_factor=2, mode="nearest"), skip_mask], dim=1)
            x, mask = block(x, mask)
        return x

    def freeze_encoder(self):
        """Freezes the running statistics of the encoder's batch normalisation, as in the second phase (section 4.2)."""
        for block in self.encoder:
            if block.norm is not None:
                block.norm.eval()
        return self


class VGG16(nn.Module):
    """Computes the features after the first three pooling layers, of images in [0, 1] normalised as in torchvision."""

    def __init__(self):
        super().__init__()
        self.stages, inputs = nn.ModuleList(), 3
        for widths in VGG16_STAGES:
            layers = []
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, 2)))
        for name, value in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(value)[:, None, None])
        self.requires_grad_(False)

    def forward(self, image):
        x, features = (image - self.mean) / self.std, []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def loss_terms(output, target, mask, features=None) -> dict:
    """Computes the loss terms of section 3.3, unweighted.

    Args:
      output: raw output of the network, `[N, C, H, W]`.
      target: image in [0, 1], `[N, C, H, W]`.
      mask: `[N, C, H, W]`, 1 = valid.
      features: `VGG16`, or None for the terms that need no features.

    Returns:
      By name: valid, hole, tv, and with features also perceptual, style_out and style_comp.
    """
    hole = 1 - mask
    composite = mask * target + hole * output
    terms = {
        "valid": F.l1_loss(mask * output, mask * target),
        "hole": F.l1_loss(hole * output, hole * target),
        "tv": total_variation(composite, hole),
    }
    if features is not None:
        predicted = {"style_out": features(output), "style_comp": features(composite)}
        wanted = features(target)
        terms["perceptual"] = sum(
            F.l1_loss(a, b) for maps in predicted.values() for a, b in zip(maps, wanted, strict=True)
        )
        for name, maps in predicted.items():
            terms[name] = sum(F.l1_loss(gram(a), gram(b)) for a, b in zip(maps, wanted, strict=True))
    return terms


def gram(features):
    """Returns the Gram matrices `[N, C, C]` of features `[N, C, H, W]`, divided by `C * H * W`."""
    n, c, h, w = features.shape
    flat = features.reshape(n, c, h * w)
    return torch.bmm(flat, flat.transpose(1, 2)) / (c * h * w)


def total_variation(composite, hole):
    """Returns the total variation over pairs of neighbours inside the hole dilated by one pixel, per element.

    Args:
      composite: `[N, C, H, W]`.
      hole: `[N, C, H, W]`, 1 = hole.
    """
    region = (F.max_pool2d(hole[:, :1], 3, stride=1, padding=1) > 0).to(composite.dtype)
    down = (composite[:, :, 1:] - composite[:, :, :-1]).abs() * region[:, :, 1:] * region[:, :, :-1]
    right = (composite[:, :, :, 1:] - composite[:, :, :, :-1]).abs() * region[:, :, :, 1:] * region[:, :, :, :-1]
    return (down.sum() + right.sum()) / composite.numel()
