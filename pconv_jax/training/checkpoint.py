"""Checkpoints: orbax, asynchronous and atomic, keeping the last few and the best.

`checkpoints/<step>/` appears when it is complete and not before, so a run that is killed while it writes resumes from
the checkpoint before.
"""

import hashlib
import math
import os

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

METRIC = "psnr"


def manager(workdir: str, keep: int = 1) -> ocp.CheckpointManager:
    """Opens the checkpoints of a run, to be closed by the caller (a context manager).

    Args:
      workdir: the run directory.
      keep: newest checkpoints to keep, beside the one with the best PSNR.
    """
    policy = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(n=keep),
            checkpoint_managers.BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy, best_fn=_metric, best_mode="max", enable_async_checkpointing=True
    )
    path = os.path.join(os.path.abspath(workdir), "checkpoints")
    return ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler(), options=options)


def save(checkpoints: ocp.CheckpointManager, state, metrics: dict[str, float]):
    """Saves under `state.step`, in the background; `metrics` decide what is best."""
    checkpoints.save(int(state.step), args=ocp.args.StandardSave(state), metrics=metrics)


def restore(checkpoints: ocp.CheckpointManager, abstract_state, step: int | None = None):
    """The state at `step`, or the newest; None if there is no checkpoint.

    Raises:
      ValueError: the checkpoint holds another tree than `abstract_state`; the differing paths are listed.
    """
    step = checkpoints.latest_step() if step is None else step
    if step is None:
        return None
    _check_tree(checkpoints.item_metadata(step), abstract_state, step)
    return checkpoints.restore(step, args=ocp.args.StandardRestore(abstract_state))


def parameters(path: str, abstract_state) -> tuple:
    """`(params, batch_stats)` of another run, on the host: averaged parameters where it has them, as evaluation does.

    Args:
      path: a run directory (its newest checkpoint is taken), or one of its `checkpoints/<step>`.
      abstract_state: what the arrays must fit; its optimiser and step do not matter.

    Raises:
      ValueError: there is no checkpoint, or it holds other parameters; missing, surplus and differing ones are listed.
    """
    folder, step = os.path.abspath(path), None
    if os.path.basename(folder).isdigit():
        folder, step = os.path.dirname(folder), int(os.path.basename(folder))
    else:
        folder = os.path.join(folder, "checkpoints")
    if not os.path.isdir(folder):
        raise ValueError(f"{path} holds no checkpoint: give a run directory, or one of its checkpoints/<step>")
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(folder, item_handlers=ocp.PyTreeCheckpointHandler(), options=options) as checkpoints:
        steps = checkpoints.all_steps()
        step = max(steps, default=None) if step is None else step
        if step not in steps:
            found = ", ".join(map(str, sorted(steps))) or "none"
            raise ValueError(f"{path} is no complete checkpoint: those of {folder} are {found}")
        saved = checkpoints.item_metadata(step).tree
        name = "ema" if saved.get("ema") else "params"
        taken = {name: saved.get(name), "batch_stats": saved.get("batch_stats")}
        taken = {name: tree for name, tree in taken.items() if tree}
        wanted = {"params": abstract_state.params, "batch_stats": abstract_state.batch_stats}
        _check_tree({"params": saved.get(name), "batch_stats": saved.get("batch_stats") or {}}, wanted, step)
        to_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), taken)
        arguments = ocp.args.PyTreeRestore(item=taken, restore_args=to_host, partial_restore=True)
        restored = checkpoints.restore(step, args=arguments)
    return restored[name], restored.get("batch_stats", {})


def exists(workdir: str) -> bool:
    """Whether a run has a complete checkpoint to go on from."""
    folder = os.path.join(workdir, "checkpoints")
    return os.path.isdir(folder) and any(name.isdigit() for name in os.listdir(folder))


def digest(tree) -> str:
    """SHA-256 of all arrays of a tree, to compare runs bit for bit."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _metric(metrics):
    """A value that is no number is the worst."""
    return metrics[METRIC] if math.isfinite(metrics[METRIC]) else -math.inf


def _check_tree(metadata, abstract_state, step):
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
        raise ValueError(f"checkpoint {step} does not fit this model: {'; '.join(problems[:10])}{more}")


def _shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(_name(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _name(key):
    """The same name for an attribute of the state, a key of a dict, and an index: orbax stores all as keys."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
