"""Compares the arrays of a checkpoint with those that a state needs."""

import jax

from pconv_jax import errors


def check(metadata, abstract_state, step: int):
    """Checks that a checkpoint's arrays have the paths and shapes of a state.

    Args:
      metadata: the tree of the checkpoint's arrays.
      abstract_state: shapes and dtypes of the state.
      step: the checkpoint, for the message.

    Raises:
      UserError: some differ; they are listed.
    """
    saved, wanted = _shapes(metadata), _shapes(abstract_state)
    problems = []
    for path in sorted(wanted.keys() | saved.keys(), key=lambda path: (not path.startswith("params/"), path)):
        if path not in saved:
            problems.append(f"missing {path}")
        elif path not in wanted:
            problems.append(f"surplus {path}")
        elif saved[path] != wanted[path]:
            problems.append(f"{path} is {saved[path]}, needs {wanted[path]}")
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise errors.UserError(f"checkpoint {step} does not fit this model: {'; '.join(problems[:10])}{more}")


def _shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(_name(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _name(key):
    """Returns the name of one level of a path. Orbax stores attributes, keys and indices alike as keys."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
