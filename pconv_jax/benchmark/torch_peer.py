"""The worker process that computes the same with PyTorch, as published repositories do or with its fastest settings.

The network and the losses are those of `torch_reference`. Options: `channels_last`, `fused` (Adam's kernel) and
`autocast` (bfloat16) are all off in published repositories. `compile` is "no", or "try": then the step is also compiled
with `torch.compile`, and the faster variant is measured.
"""

import contextlib
import logging
from collections.abc import Callable

import numpy as np
import torch

from pconv_jax import errors
from pconv_jax.benchmark import serving, torch_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRIALS = 3  # Number of steps that decide whether the compiled variant is faster.


def make(task: str, config, batch: dict[str, np.ndarray], options: dict) -> serving.Work:
    """Prepares a task for `serving.serve`.

    Args:
      task: "train" or "forward".
      config: experiment config of the paper's network.
      batch: see `serving.serve`.
      options: see the module's docstring.

    Raises:
      UserError: the config's network is not the paper's.
    """
    make_step = {"train": training, "forward": prediction}[task]
    settings = ["channels_last"] if options["channels_last"] else ["as published"]
    if options["fused"] and task == "train":
        settings.append("fused Adam")
    settings.append("bfloat16 autocast" if options["autocast"] else "float32")
    step = make_step(config, batch, options, compiled=False)
    compilation_s = 0.0
    if options["compile"] == "try":
        try:
            fast = make_step(config, batch, options, compiled=True)
            (_, *plain), (first, *compiled) = (serving.timed(call, TRIALS + 1) for call in (step, fast))
            ratio = min(compiled) / min(plain)
            if ratio < 1:
                step, compilation_s = fast, first
            settings.append("compile" if ratio < 1 else f"no compile (it took {ratio:.2f} times as long)")
        except Exception as error:  # a compiler can raise anything
            logging.warning("torch.compile: %s", error)
            settings.append(f"compile failed ({type(error).__name__})")
    if task == "train" and config.loss.vgg16_weights:
        settings.append("random VGG16 weights")
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    return serving.Work(step, ", ".join(settings), device_peak_mib, DEVICE.type == "cpu", compilation_s, device)


def training(config, batch, options, compiled):
    """Returns a function that computes one training step of the first phase.

    Args:
      config: experiment config.
      batch: see `serving.serve`.
      options: see the module's docstring.
      compiled: whether network and features are compiled with `torch.compile`.
    """
    image, mask = arrays(batch, options)
    net, features = network(config, options).train(), None
    if config.loss.vgg16_weights:
        features = placed(torch_reference.VGG16().eval(), options)
    optim, weights = config.optim, config.loss.weights
    adam = torch.optim.Adam(
        net.parameters(), optim.lr, (optim.b1, optim.b2), optim.eps, fused=True if options["fused"] else None
    )
    if compiled:
        net, features = torch.compile(net), features and torch.compile(features)

    def step():
        adam.zero_grad(set_to_none=True)
        with precision(options):
            output = net(image, mask)
            terms = torch_reference.loss_terms(output, image, mask, features)
            loss = sum(weights[name] * term for name, term in terms.items())
        loss.backward()
        adam.step()
        synchronise()

    return step


def prediction(config, batch, options, compiled):
    """Returns a function that computes one forward pass and its composite.

    Args:
      config: experiment config.
      batch: see `serving.serve`.
      options: see the module's docstring.
      compiled: whether the network is compiled with `torch.compile`.
    """
    image, mask = arrays(batch, options)
    net = network(config, options).eval()
    if compiled:
        net = torch.compile(net)

    def step():
        with torch.inference_mode(), precision(options):
            output = net(image, mask)
            torch.where(mask != 0, image, output.clamp(0, 1))
        synchronise()

    return step


def network(config, options):
    """Returns the reference network of a config.

    Args:
      config: experiment config.
      options: see the module's docstring.

    Raises:
      UserError: the config's network is not the paper's.
    """
    model = config.model
    if model.kind != "partial" or model.norm != "batch" or model.center:
        raise errors.UserError(
            "--against=torch measures the paper's network: set model.kind=partial, model.norm=batch, model.center=False"
        )
    net = torch_reference.UNet(model.depth, model.width, model.max_width, model.kernels, model.channels)
    return placed(net, options)


def arrays(batch, options):
    """Returns a batch as tensors on the device.

    Args:
      batch: see `serving.serve`.
      options: see the module's docstring; `channels_last` decides the memory layout.

    Returns:
      The image in [0, 1] and the mask with as many channels, both float32 `[B, C, H, W]`.
    """
    image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous().float() / 255
    mask = torch.from_numpy(batch["mask"]).permute(0, 3, 1, 2).float().expand_as(image).contiguous()
    return placed(image, options), placed(mask, options)


def placed(value, options):
    """Moves a module or a tensor to the device, in the memory layout that the options name.

    Args:
      value: module or tensor.
      options: see the module's docstring.
    """
    layout = {"memory_format": torch.channels_last} if options["channels_last"] else {}
    return value.to(DEVICE, **layout)


def precision(options):
    """Returns the context manager that sets the precision of the computation."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if options["autocast"] else contextlib.nullcontext()


def synchronise():
    """Waits until a GPU has finished, because calls return before it has."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def convolution(dtype: str, batch: int, size: int, channels: int) -> Callable:
    """Returns a function that computes the large convolution once, for `serving.serve`.

    Args:
      dtype: "float32" or "bfloat16".
      batch: number of examples.
      size: pixels per side.
      channels: number of input and of output channels.
    """
    shapes, torch_dtype = ((batch, channels, size, size), (channels, channels, 3, 3)), getattr(torch, dtype)
    x, kernel = (placed(torch.ones(shape, dtype=torch_dtype), {"channels_last": True}) for shape in shapes)

    def step():
        with torch.inference_mode():
            torch.nn.functional.conv2d(x, kernel, padding=1)
        synchronise()

    return step


def device_peak_mib():
    """Returns the largest memory of the GPU so far in MiB; None without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None


if __name__ == "__main__":
    serving.serve(make, convolution)
