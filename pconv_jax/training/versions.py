"""Records what a run is computed with: the versions of the libraries, and the implementation of the convolutions."""

import importlib.metadata

import cv2

IMPLEMENTATION = "convolutions"  # The key of `build.implementation` in versions.json.


def libraries() -> dict[str, str]:
    """Returns the versions of the libraries on which results depend."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "grain", "numpy")} | {
        "opencv": cv2.__version__
    }


def changes(before: dict[str, str], current: dict[str, str]) -> list[str]:
    """Returns a text for each entry that differs, e.g. "jax 0.1 -> 0.2".

    Args:
      before: the record of a run; the implementation is not compared if an older version wrote it without one.
      current: the record that this process would write.
    """
    if IMPLEMENTATION not in before:
        current = {name: value for name, value in current.items() if name != IMPLEMENTATION}
    return [f"{name} {before.get(name)} -> {new}" for name, new in current.items() if before.get(name) != new]
