"""Tests of exported ONNX files, where the extra "onnx" is installed: in an environment of its own, without training."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from pconv_jax.inpainting import pyramid, weights_file
from pconv_jax.models import unet
from pconv_jax.tools import export, onnx_files

for library in onnx_files.LIBRARIES:
    pytest.importorskip(library, reason='needs the extra "onnx" (docs/export.md)')

ROOT = pathlib.Path(__file__).resolve().parents[1]
LEVELS, MULTIPLE = 2, 8


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns the paths of a small weights file and of the ONNX file that the command makes of it."""
    section = {"kind": "partial", "depth": 2, "width": 6, "max_width": 8, "kernels": [3], "norm": "none"}
    section |= {"center": True, "guess": True, "dtype": "float32"}
    image, mask = jnp.zeros((1, 4, 4, 3)), jnp.ones((1, 4, 4, 1))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32),
        jax.eval_shape(unet.from_section(section).init, jax.random.key(0), image, mask, image),
    )
    folder = tmp_path_factory.mktemp("exported")
    weights, out = str(folder / "small.safetensors"), folder / "photographs.onnx"
    weights_file.write(weights, weights_file.Weights(section, variables, pyramid.Settings(), {"name": "small"}))
    # In a process of its own, where the types of symbolic sizes are not checked.
    arguments = [f"--weights={weights}", "--format=onnx", f"--levels={LEVELS}", f"--out={out}"]
    command = [sys.executable, "-m", "pconv_jax.tools.export", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "onnxruntime differs from JAX by" in done.stdout, done.stderr[-3000:]
    return weights, out


def test_onnxruntime_computes_the_same(exported):
    """One file agrees with JAX at two sizes and batches, and does not read what lies in holes."""
    weights, out = exported
    fill = export.load(weights, LEVELS).fill
    rng = np.random.default_rng(1)
    for batch, height, width in ((1, 32, 40), (2, 16, 24)):
        image = rng.uniform(size=(batch, height, width, 3)).astype(np.float32)
        mask = np.ones((batch, height, width, 1), np.float32)
        mask[:, 3:9, 5:12], mask[:, -3:] = 0, -1
        expected = jax.jit(fill)(image, mask)
        np.testing.assert_allclose(onnx_files.run(out.read_bytes(), image, mask), expected, atol=export.TOLERANCE)
        image[np.broadcast_to(mask == 0, image.shape)] = np.nan
        np.testing.assert_allclose(onnx_files.run(out.read_bytes(), image, mask), expected, atol=export.TOLERANCE)


def test_the_example_fills_a_photograph(exported, tmp_path, monkeypatch):
    """The lines in docs/export.md fill a photograph of any size with onnxruntime, NumPy and Pillow alone."""
    docs = (ROOT / "docs" / "export.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", docs, re.DOTALL) if "onnxruntime" in code]
    assert set(re.findall(r"^import (\w+)", example, re.MULTILINE)) == {"numpy", "onnxruntime", "PIL"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs.onnx").write_bytes(exported[1].read_bytes())
    rng = np.random.default_rng(2)
    photo, hole = rng.integers(0, 256, (21, 30, 3), np.uint8), np.zeros((21, 30), np.uint8)
    hole[5:12, 8:19] = 255
    PIL.Image.fromarray(photo).save("photo.jpg")
    PIL.Image.fromarray(hole).save("mask.png")
    exec(example, {})
    filled, photo = (np.asarray(PIL.Image.open(name)) for name in ("filled.png", "photo.jpg"))
    np.testing.assert_array_equal(filled[hole == 0], photo[hole == 0])
    assert (filled[hole == 255] != photo[hole == 255]).any()


def test_each_constant_is_stored_once(exported):
    """The levels of the pyramid share the parameters of the network, so the file is hardly larger than they are."""
    import onnx

    tensors = list(onnx.load(exported[1]).graph.initializer)
    contents = {(tensor.data_type, tuple(tensor.dims), tensor.raw_data or str(tensor)) for tensor in tensors}
    assert len(contents) == len(tensors)
