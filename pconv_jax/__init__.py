"""Image inpainting for irregular holes with partial convolutions, in JAX.

- `partial_conv`, `propagate_mask`: the operator, as pure functions of arrays.
- `PartialConv`: the operator as a Flax layer.
- `Inpainter`: fills photographs with a trained network.

Each is imported when it is first used (PEP 562): the operator needs JAX alone, `PartialConv` Flax as well, and
`Inpainter` also OpenCV.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pconv_jax.inpainting.inpainter import Inpainter
    from pconv_jax.models.layers import PartialConv
    from pconv_jax.ops.partial_conv import partial_conv, propagate_mask

__version__ = "0.1.0"
__all__ = ["Inpainter", "PartialConv", "__version__", "partial_conv", "propagate_mask"]

_MODULES = {
    "Inpainter": "pconv_jax.inpainting.inpainter",
    "PartialConv": "pconv_jax.models.layers",
    "partial_conv": "pconv_jax.ops.partial_conv",
    "propagate_mask": "pconv_jax.ops.partial_conv",
}


def __getattr__(name: str):
    """Imports one of the public names on its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    """Lists the public names, imported or not."""
    return sorted({*globals(), *__all__})
