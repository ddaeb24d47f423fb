"""Reads the parameters of another run from one of its checkpoints, for the config key `init_from`."""

import os

import jax
import numpy as np
import orbax.checkpoint as ocp

from pconv_jax import errors
from pconv_jax.training import checkpoints, tree_check


def parameters(path: str, abstract_state) -> tuple:
    """Returns `(params, batch_stats)` of another run, on the host, with averaged parameters if it has them.

    Args:
      path: a run directory (its newest checkpoint is taken), or one of its `checkpoints/<step>`.
      abstract_state: shapes and dtypes that the arrays must have; its optimizer state and step are not compared.

    Raises:
      UserError: there is no checkpoint, or it holds other parameters; missing, surplus and differing ones are listed.
    """
    folder, step = os.path.abspath(path), None
    if os.path.basename(folder).isdigit():
        folder, step = os.path.dirname(folder), int(os.path.basename(folder))
    else:
        folder = os.path.join(folder, "checkpoints")
    if not os.path.isdir(folder):
        raise errors.UserError(f"{path} holds no checkpoint: give a run directory, or one of its checkpoints/<step>")
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=checkpoints.alone())
    with ocp.CheckpointManager(folder, item_handlers=ocp.PyTreeCheckpointHandler(), options=options) as manager:
        steps = manager.all_steps()
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            available = ", ".join(map(str, sorted(steps))) or "none"
            raise errors.UserError(f"{path} is no complete checkpoint: those of {folder} are {available}")
        try:
            saved = manager.item_metadata(step).tree
        except Exception as error:
            if checkpoints.is_unrelated_to_the_files(error):
                raise
            raise errors.UserError(_unreadable(path, error)) from error
        name = "ema" if saved.get("ema") else "params"
        taken = {name: saved.get(name), "batch_stats": saved.get("batch_stats")}
        taken = {name: tree for name, tree in taken.items() if tree}
        wanted = {"params": abstract_state.params, "batch_stats": abstract_state.batch_stats}
        tree_check.check({"params": saved.get(name), "batch_stats": saved.get("batch_stats") or {}}, wanted, step)
        to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), taken)
        arguments = ocp.args.PyTreeRestore(item=taken, restore_args=to_host, partial_restore=True)
        try:
            restored = manager.restore(step, args=arguments)
        except Exception as error:
            if checkpoints.is_unrelated_to_the_files(error):
                raise
            raise errors.UserError(_unreadable(path, error)) from error
    return restored[name], restored.get("batch_stats", {})


def _unreadable(path, error):
    return f"init_from, {path}, cannot be read ({checkpoints.first_line(error)}): give another checkpoint"
