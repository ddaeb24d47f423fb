"""Tests that this project and PyTorch compute the same in float64 with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import networks
from pconv_jax.models import vgg
from pconv_jax.training import steps

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -r pconv_jax/benchmark/requirements.txt")
torch_reference = pytest.importorskip("pconv_jax.benchmark.torch_reference")

OPTIONS = {"depth": 3, "width": 6, "max_width": 16, "kernels": (7, 5, 3)}
WEIGHTS = {"valid": 1.0, "hole": 6.0, "tv": 0.1, "perceptual": 0.05, "style_out": 120.0, "style_comp": 120.0}


def example(batch=3, size=24):
    """Returns images and masks with 1, 4, 7, .. holes of all sizes, some at the border or wider than a kernel."""
    rng = np.random.default_rng(0)
    mask = np.ones((batch, size, size, 1))
    for index in range(batch):
        for _ in range(3 * index + 1):
            y, x, height, width = rng.integers(0, [size, size, size // 2, size // 2])
            mask[index, y : y + height + 1, x : x + width + 1] = 0
    mask[-1, :20, :20] = 0
    return rng.uniform(size=(batch, size, size, 3)), mask


def to_torch(x):
    """Converts `[N, H, W, C]` to PyTorch's `[N, C, H, W]`."""
    return torch.from_numpy(np.array(x, np.float64)).permute(0, 3, 1, 2)


def from_torch(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def reference(variables):
    """Returns the PyTorch network with our variables."""
    net = torch_reference.UNet(**OPTIONS).double()
    blocks = {f"enc{i + 1}": block for i, block in enumerate(net.encoder)}
    blocks |= {f"dec{len(net.decoder) - i}": block for i, block in enumerate(net.decoder)}
    with torch.no_grad():
        for name, ours in tensors(variables).items():
            theirs = dict(blocks[name].named_parameters()) | dict(blocks[name].named_buffers())
            for key, value in ours.items():
                theirs[key].copy_(torch.from_numpy(np.array(value)))
    return net, blocks


def tensors(variables):
    """Returns parameters or gradients, and statistics, by block under PyTorch's names and in its layout."""
    tensors = {}
    for name, block in variables["params"].items():
        tensors[name] = {"conv.weight": np.asarray(block["conv"]["kernel"]).transpose(3, 2, 0, 1)}
        if "bias" in block["conv"]:
            tensors[name]["conv.bias"] = np.asarray(block["conv"]["bias"])
        if "norm" in block:
            norm = block["norm"]["batch"]
            tensors[name] |= {"norm.weight": np.asarray(norm["scale"]), "norm.bias": np.asarray(norm["bias"])}
            if "batch_stats" in variables:
                stats = variables["batch_stats"][name]["norm"]["batch"]
                tensors[name] |= {
                    "norm.running_mean": np.asarray(stats["mean"]),
                    "norm.running_var": np.asarray(stats["var"]),
                }
    return tensors


def assert_close(ours, theirs, what):
    """Checks equality within 1e-9, relative to the largest."""
    scale = max(np.abs(theirs).max(), 1e-3)
    np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, rtol=0, atol=1e-9, err_msg=what)


@pytest.fixture(scope="module")
def both():
    """Returns a network with random variables in float64, ours and PyTorch's, and VGG16 with random weights in both."""
    with jax.enable_x64(True):
        model, variables = networks.random(**OPTIONS, norm="batch", center=False, dtype=jnp.float64)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        theirs = torch_reference.VGG16().double().eval()
        for name, value in zip(("mean", "std"), torch_reference.IMAGENET, strict=True):  # in float32 until here
            getattr(theirs, name).copy_(torch.tensor(value, dtype=torch.float64)[:, None, None])
        convs = [layer for stage in theirs.stages for layer in stage if isinstance(layer, torch.nn.Conv2d)]
        names = [layer[0] for layer in vgg.LAYERS if layer is not None]
        params = {
            name: {
                "kernel": jnp.asarray(conv.weight.permute(2, 3, 1, 0).numpy()),
                "bias": jnp.asarray(conv.bias.numpy()),
            }
            for name, conv in zip(names, convs, strict=True)
        }
        module = vgg.VGG16Features("RGB", 1.0, *torch_reference.IMAGENET, dtype=jnp.float64)
        return model, variables, lambda image: module.apply({"params": params}, image), theirs


@pytest.mark.parametrize(
    "mode", ["train", *(pytest.param(m, marks=pytest.mark.slow) for m in ("predict", "fine-tune"))]
)
def test_network_and_losses(both, mode):
    """Output, each loss term and the gradient of their weighted sum by every parameter and the image agree.

    Batch normalisation uses running statistics, those of the batch, or running ones in the encoder alone.
    """
    model, variables, features, torch_features = both
    image, mask = example()
    net, blocks = reference(variables)
    net.train(mode != "predict")
    if mode == "fine-tune":
        net.freeze_encoder()
    torch_image, torch_mask = to_torch(image).requires_grad_(), to_torch(mask).expand(-1, 3, -1, -1)
    output = net(torch_image, torch_mask)
    terms = torch_reference.loss_terms(output, to_torch(image), torch_mask, torch_features)
    sum(WEIGHTS[name] * term for name, term in terms.items()).backward()

    def objective(params, seen):
        with_params = {**variables, "params": params}
        result, _ = model.apply(
            with_params,
            seen,
            mask,
            train=mode != "predict",
            freeze_encoder=mode == "fine-tune",
            mutable=["batch_stats"],
        )
        ours_terms = steps.loss_terms(result[0], jnp.asarray(image), jnp.asarray(mask), features)
        return sum(WEIGHTS[name] * term for name, term in ours_terms.items()), (result[0], ours_terms)

    with jax.enable_x64(True):
        compiled = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
        (of_params, of_image), (ours, ours_terms) = compiled(variables["params"], jnp.asarray(image))
    assert ours.dtype == np.float64
    assert_close(ours, from_torch(output), "output")
    assert ours_terms.keys() == terms.keys()
    for name, term in terms.items():
        assert term.item() > 1e-4
        assert_close(ours_terms[name], term.item(), name)
    assert_close(of_image, from_torch(torch_image.grad), "gradient of the image")
    for name, block in tensors({"params": of_params}).items():
        gradients = {key: parameter.grad for key, parameter in blocks[name].named_parameters()}
        assert block.keys() == gradients.keys()
        for key, gradient in block.items():
            assert_close(gradient, gradients[key].numpy(), f"gradient of {name} {key}")


def test_running_statistics_follow(both):
    """Mean and variance agree after one batch; PyTorch's variance is that of a sample, larger by n / (n - 1)."""
    model, variables, *_ = both
    image, mask = example()
    net, blocks = reference(variables)
    net.train()(to_torch(image), to_torch(mask).expand(-1, 3, -1, -1))
    with jax.enable_x64(True):
        apply = jax.jit(lambda v: model.apply(v, image, mask, train=True, mutable=["batch_stats"])[1]["batch_stats"])
        after = apply(variables)
    assert len(after) == 4
    for name, stats in after.items():
        level, norm = int(name[3:]) - ("dec" in name), blocks[name].norm
        count = len(image) * (image.shape[1] >> level) ** 2
        before = np.asarray(variables["batch_stats"][name]["norm"]["batch"]["var"])
        assert_close(stats["norm"]["batch"]["mean"], norm.running_mean.numpy(), name)
        ours = before * 0.9 + (np.asarray(stats["norm"]["batch"]["var"]) - 0.9 * before) * count / (count - 1)
        assert_close(ours, norm.running_var.numpy(), name)
