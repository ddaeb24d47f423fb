"""The worker that computes the same with PyTorch (`torch_reference`), as the peers run it and at its strongest.

Options: `channels_last`, `fused` (Adam's kernel), `autocast` (bfloat16), all off in what the peers ship; and `compile`:
"no", or "try": `torch.compile` too, where it works, and the faster of the two is measured.
"""

import contextlib
import logging

import torch

from pconv_jax.benchmark import serving, torch_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TRIALS = 3  # steps that decide between compiled and not


def make(subject, config, batch, options) -> serving.Work:
    """`serving.serve` calls this."""
    make_step = {"train": training, "forward": prediction}[subject]
    settings = ["channels_last"] if options["channels_last"] else ["as the peers ship it"]
    if options["fused"] and subject == "train":
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
        except Exception as error:  # whatever a compiler raises
            logging.warning("torch.compile: %s", error)
            settings.append(f"compile failed ({type(error).__name__})")
    if subject == "train" and config.loss.vgg16_weights:
        settings.append("random VGG16 weights")
    return serving.Work(step, ", ".join(settings), device_peak_mib, DEVICE.type == "cpu", compilation_s)


def training(config, batch, options, compiled):
    """One training step of the first phase per call."""
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
    """One forward pass and its composite per call."""
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
    """The reference network of a config."""
    model = config.model
    if model.kind != "partial" or model.norm != "batch" or model.center:
        raise ValueError(
            "--against=torch is the paper's network: model.kind=partial, model.norm=batch, model.center=False"
        )
    net = torch_reference.UNet(model.depth, model.width, model.max_width, model.kernels, model.channels)
    return placed(net, options)


def arrays(batch, options):
    """Image in [0, 1] and a mask of as many channels, float32, in the layout that is measured."""
    image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous().float() / 255
    mask = torch.from_numpy(batch["mask"]).permute(0, 3, 1, 2).float().expand_as(image).contiguous()
    return placed(image, options), placed(mask, options)


def placed(what, options):
    """A module or an array on the device, in the memory layout of the options."""
    layout = {"memory_format": torch.channels_last} if options["channels_last"] else {}
    return what.to(DEVICE, **layout)


def precision(options):
    """The context of the computation."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if options["autocast"] else contextlib.nullcontext()


def synchronise():
    """A GPU works on after a call has returned."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def convolution(dtype, batch, size, channels):
    """`serving.serve` calls this."""
    shapes, kind = ((batch, channels, size, size), (channels, channels, 3, 3)), getattr(torch, dtype)
    x, kernel = (placed(torch.ones(shape, dtype=kind), {"channels_last": True}) for shape in shapes)

    def step():
        with torch.inference_mode():
            torch.nn.functional.conv2d(x, kernel, padding=1)
        synchronise()

    return step


def device_peak_mib():
    """Of the GPU; None without."""
    return torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None


if __name__ == "__main__":
    serving.serve(make, convolution)
