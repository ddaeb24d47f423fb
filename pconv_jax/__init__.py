"""Image inpainting for irregular holes with partial convolutions, in JAX.

The operator is imported with the package. `Inpainter`, which needs Flax and OpenCV, is imported when it is first used.
"""

from pconv_jax.ops.partial_conv import partial_conv, propagate_mask

__version__ = "0.1.0"
__all__ = ["Inpainter", "__version__", "partial_conv", "propagate_mask"]


def __getattr__(name: str):
    """Imports `Inpainter` on first use (PEP 562)."""
    if name == "Inpainter":
        from pconv_jax.inpainting.inpainter import Inpainter

        return Inpainter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
