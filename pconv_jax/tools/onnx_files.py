"""Converts the function that fills photographs to ONNX, and runs it. Needs the extra "onnx", in an own environment."""

from typing import Any

import jax
import numpy as np

from pconv_jax.inpainting import fill_function

LIBRARIES = ("jax2onnx", "onnx", "onnxruntime")


def convert(fill: fill_function.Fill, channels: int, multiple: int, metadata: dict[str, str]) -> bytes:
    """Returns an ONNX file with inputs `image` and `mask` and the output `filled`, for any batch and size.

    Args:
      fill: the function to convert.
      channels: number of channels of an image.
      multiple: height and width are multiples of it.
      metadata: texts by name, which become the metadata of the file.
    """
    import jax2onnx
    from jax import export

    # jax2onnx knows sizes of inputs that are one symbol each, and no multiples. So an axis of the image becomes two.
    def blocks_fill(image, mask):
        batch, rows, _, columns, _, _ = image.shape
        size = (batch, rows * multiple, columns * multiple)
        return fill(image.reshape(*size, channels), mask.reshape(*size, 1))

    batch, rows, columns = export.symbolic_shape("batch, rows, columns")
    image, mask = (
        jax.ShapeDtypeStruct((batch, rows, multiple, columns, multiple, count), np.float32) for count in (channels, 1)
    )
    names = {"input_names": ["image_blocks", "mask_blocks"], "output_names": ["filled"]}
    model = jax2onnx.to_onnx(blocks_fill, [image, mask], model_name="pconv_jax", **names)
    _divide_inputs(model, multiple)
    _share_constants(model.graph)
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    return model.SerializeToString()


def run(content: bytes, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills images by onnxruntime.

    Args:
      content: the ONNX file.
      image: float32 `[N, H, W, C]`.
      mask: float32 `[N, H, W, 1]`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["filled"], {"image": image, "mask": mask})[0]


def _divide_inputs(model: Any, multiple: int):
    """Gives a model inputs `[N, H, W, C]` in place of those whose height and width are divided into blocks."""
    from onnx import TensorProto, helper

    nodes, inputs = [_constant("block_side", [multiple])], []
    image_channels = model.graph.input[0].type.tensor_type.shape.dim[5].dim_value
    for old in model.graph.input:
        name = old.name.removesuffix("_blocks")
        channels = old.type.tensor_type.shape.dim[5].dim_value
        shape = ["batch", "height", "width", channels]
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        nodes.append(_constant(f"{name}_channels", [channels]))
        for axis, part in enumerate(("batch", "height", "width")):
            nodes.append(helper.make_node("Shape", [name], [f"{name}_{part}"], start=axis, end=axis + 1))
        parts = [f"{name}_batch"]
        for part in ("height", "width"):
            nodes.append(helper.make_node("Div", [f"{name}_{part}", "block_side"], [f"{name}_{part}_blocks"]))
            parts += [f"{name}_{part}_blocks", "block_side"]
        nodes.append(helper.make_node("Concat", [*parts, f"{name}_channels"], [f"{name}_divided"], axis=0))
        nodes.append(helper.make_node("Reshape", [name, f"{name}_divided"], [old.name]))
    output = helper.make_tensor_value_info("filled", TensorProto.FLOAT, ["batch", "height", "width", image_channels])
    rest = list(model.graph.node)
    del model.graph.input[:], model.graph.output[:], model.graph.node[:]
    model.graph.input.extend(inputs)
    model.graph.output.append(output)
    model.graph.node.extend([*nodes, *rest])


def _share_constants(graph: Any):
    """Keeps one of equal constants, because each level of the pyramid has its own copy of the network's parameters."""
    kept, names = {}, {}
    for tensor in graph.initializer:
        name = tensor.name
        tensor.name = ""
        content = tensor.SerializeToString()
        tensor.name = name
        names[name] = kept.setdefault(content, name)
    unique = [tensor for tensor in graph.initializer if names[tensor.name] == tensor.name]
    del graph.initializer[:]
    graph.initializer.extend(unique)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _constant(name, values):
    """Returns a node whose output `name` holds integers."""
    from onnx import TensorProto, helper

    tensor = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
    return helper.make_node("Constant", [], [name], value=tensor)
