"""Tests of what a GPU is asked to compute, by lowering for one, which any machine can do, and of its precision."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

import layer_cases
import networks
import pconv_jax
import runs
from pconv_jax.benchmark import ours
from pconv_jax.training import build

CONVOLUTION = re.compile(r"stablehlo\.convolution.* : \((.*)\) -> (\S*)")
LAYERS = 4  # of the tiny network, encoder and decoder
VGG_LAYERS = 7


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory):
    """Returns the path of random weights of VGG16."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.npz"
    np.savez(path, **ours.random_vgg16())
    return str(path)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Lets the CPU compute what other devices compute: `platform_dependent` takes the default."""
    monkeypatch.setattr(lax, "platform_dependent", lambda *arrays, default, **_: default(*arrays))


def lowered_step(platform, **changes):
    """Returns the text of the training step of a tiny config, lowered for a platform."""
    config = runs.tiny(**changes)
    experiment = build.experiment(config)
    step, everywhere = experiment.make_step(experiment.phases[0]), PartitionSpec()
    mapped = jax.shard_map(
        step,
        mesh=Mesh(jax.devices()[:1], ("batch",)),
        in_specs=(everywhere, PartitionSpec("batch"), everywhere),
        out_specs=everywhere,
        check_vma=False,
    )
    state, vgg16 = jax.eval_shape(experiment.create_state), jax.tree.map(jnp.asarray, experiment.vgg16_params)
    return jax.jit(mapped).trace(state, runs.batch(config), vgg16).lower(lowering_platforms=(platform,)).as_text()


def convolutions(text):
    """Returns the number of convolutions of a lowered program by the dtypes of operands and result."""
    counts = collections.Counter()
    for operands, result in CONVOLUTION.findall(text):
        types = [re.search(r"x([a-z]\w*)>", one)[1] for one in (*operands.split(", "), result)]
        counts[tuple(types)] += 1
    return counts


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("impl", ["auto", "xla"])
@pytest.mark.parametrize("full", [False, True], ids=["L1", "six terms"])
def test_convolutions_have_the_configured_type(dtype, impl, full, vgg_weights):
    """On a GPU, operands and results of all convolutions have the type of the features, those of gradients too.

    Each layer has three, but the image needs no gradient. VGG16 runs on the target and on output and composite
    together, and has one gradient, that of the latter.
    """
    changes = {"model.dtype": dtype, "model.conv_impl": impl, "loss.vgg16_weights": vgg_weights if full else ""}
    name = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    text = lowered_step("cuda", **changes)
    assert convolutions(text) == {(name,) * 3: 3 * LAYERS - 1 + 3 * VGG_LAYERS * full}
    sums = re.findall(r'"stablehlo\.reduce_window".*?\) -> tensor<[\dx]*x([a-z]\w*)>', text, re.DOTALL)
    assert len(sums) > LAYERS and set(sums) == {"f32"}  # Mask sums of all layers, and that of the TV term.


@pytest.mark.parametrize(("value", "written"), [("tensorfloat32", "HIGH"), ("float32", "HIGHEST"), ("default", None)])
def test_the_config_sets_the_precision(value, written, vgg_weights):
    """`train.matmul_precision` is that of every convolution of the step, forward and backward."""
    text = lowered_step("cuda", **{"train.matmul_precision": value, "loss.vgg16_weights": vgg_weights})
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) == 3 * LAYERS - 1 + 3 * VGG_LAYERS
    precisions = {tuple(re.findall(r"#stablehlo<precision (\w+)>", line)) for line in lines}
    assert precisions == {(written, written)} if written else precisions <= {(), ("DEFAULT", "DEFAULT")}


def test_default_precision_follows_jax():
    """With "default", an option that JAX has for the whole process holds."""
    with jax.default_matmul_precision("float32"):
        text = lowered_step("cuda")
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert lines and all(line.count("precision HIGHEST") == 2 for line in lines)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_rounded_twice(dtype, as_on_a_gpu):
    """On a GPU the operator rounds the convolution and the result: within a unit in the last place of float32."""
    x, mask, kernel, bias = layer_cases.encoder_layer(2, 9, 8, 512, 4, 3, dtype=np.float32)
    x, kernel, bias = (a.astype(dtype) for a in (x, kernel / 64, bias * 0))
    y, m = pconv_jax.partial_conv(x, mask, kernel, bias)
    expected, expected_mask = pconv_jax.partial_conv(*(a.astype(jnp.float32) for a in (x, mask, kernel, bias)))
    assert y.dtype == dtype and m.dtype == jnp.float32
    np.testing.assert_array_equal(m, expected_mask)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=1.01 * float(jnp.finfo(dtype).eps), atol=1e-6)


def test_bfloat16_follows_float32(as_on_a_gpu):
    """Output and gradients of the network in bfloat16, as a GPU rounds it, are close to those in float32."""
    (half, variables), (model, _) = networks.random(dtype=jnp.bfloat16), networks.random()
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    mask = (rng.uniform(size=(2, 16, 16, 1)) < 0.5).astype(np.float32)

    def value(model, params):
        output, _ = model.apply({"params": params}, image, mask)
        return jnp.mean(jnp.abs(output - image)), output

    def gradients(model):
        return jax.jit(jax.grad(lambda params: value(model, params), has_aux=True))(variables["params"])

    (result, output), (expected, expected_output) = gradients(half), gradients(model)
    assert output.dtype == jnp.float32
    assert np.abs(output - expected_output).mean() < 0.03 * np.abs(expected_output).mean()
    one, other = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (result, expected))
    assert one.dtype == np.float32
    assert np.dot(one, other) > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)


def test_a_cpu_computes_as_before():
    """On a CPU, the sums of bfloat16 products stay float32 and are rounded once."""
    types = convolutions(lowered_step("cpu", **{"model.dtype": "bfloat16"}))
    assert types == {("bf16", "bf16", "f32"): LAYERS, ("f32", "f32", "f32"): 2 * LAYERS - 1}
