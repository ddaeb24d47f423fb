"""Tests of exported ONNX files, where the extra "onnx" is installed: in an environment of its own, without training."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from pconv_jax.inpainting import fill_function
from pconv_jax.models import unet
from pconv_jax.tools import export, onnx_files

for library in onnx_files.LIBRARIES:
    pytest.importorskip(library, reason='needs the extra "onnx" (docs/export.md)')

# The converter is not ours: it asks JAX for dtypes that are off, and ONNX's writer misses the types of some values.
pytestmark = pytest.mark.filterwarnings("ignore")

DOCS = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text()
LEVELS, MULTIPLE = 2, 8


@pytest.fixture(scope="module")
def network():
    """Returns a small network with a guess and random parameters, ready to be exported."""
    model = unet.UNet(2, 6, 8, (3,), norm="none", center=True, guess=True, conv_impl="xla")
    image, mask = jnp.zeros((1, 4, 4, 3)), jnp.ones((1, 4, 4, 1))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), image, mask, image),
    )
    metadata = {"name": "small", "multiple": str(MULTIPLE)}
    return export.Network(fill_function.make(model, variables, LEVELS), 3, MULTIPLE, metadata)


def test_onnxruntime_computes_the_same_and_the_example_fills_a_photograph(network, tmp_path, monkeypatch):
    """One conversion: onnxruntime agrees with JAX at two sizes and batches, and docs/export.md's example runs."""
    content, text = export.checked_onnx(network)
    assert "onnxruntime differs from JAX by" in text
    rng = np.random.default_rng(1)
    for batch, height, width in ((1, 32, 40), (2, 16, 24)):
        image = rng.uniform(size=(batch, height, width, 3)).astype(np.float32)
        mask = np.ones((batch, height, width, 1), np.float32)
        mask[:, 3:9, 5:12], mask[:, -3:] = 0, -1
        expected = network.fill(image, mask)
        np.testing.assert_allclose(onnx_files.run(content, image, mask), expected, atol=export.TOLERANCE)
        image[np.broadcast_to(mask == 0, image.shape)] = np.nan
        np.testing.assert_allclose(onnx_files.run(content, image, mask), expected, atol=export.TOLERANCE)
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "onnxruntime" in code]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs.onnx").write_bytes(content)
    photo, hole = rng.integers(0, 256, (21, 30, 3), np.uint8), np.zeros((21, 30), np.uint8)
    hole[5:12, 8:19] = 255
    PIL.Image.fromarray(photo).save("photo.jpg")
    PIL.Image.fromarray(hole).save("mask.png")
    exec(example, {})
    filled, photo = (np.asarray(PIL.Image.open(name)) for name in ("filled.png", "photo.jpg"))
    np.testing.assert_array_equal(filled[hole == 0], photo[hole == 0])
    assert (filled[hole == 255] != photo[hole == 255]).any()
