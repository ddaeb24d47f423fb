"""Saves and restores checkpoints by orbax, asynchronously and atomically; keeps the newest few and the best.

`checkpoints/<step>/` appears only when it is complete, so a run that is killed while it writes resumes from the
checkpoint before. The SHA-256 of the arrays is stored beside them. A damaged checkpoint is moved to `damaged/<step>`,
and the checkpoint before is used.
"""

import contextlib
import errno
import hashlib
import math
import os
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from pconv_jax import errors
from pconv_jax.training import parallel, rundir, tree_check

METRIC = "psnr"
_DIGEST = "sha256"
_UNFINISHED = ".orbax-checkpoint-tmp"  # A part of the names of directories that are being written.


class Damaged(errors.UserError):
    """A checkpoint cannot be read, or holds other arrays than were saved."""


@contextlib.contextmanager
def open_manager(workdir: str, max_to_keep: int = 1, clean: bool = False):
    """Opens the checkpoints of a run, as a context that ends when all saves are complete.

    Args:
      workdir: the run directory.
      max_to_keep: number of newest checkpoints to keep, beside the one with the best PSNR.
      clean: whether to remove the unfinished checkpoints of killed processes. Only for a process that holds the
        directory's lock.

    Raises:
      UserError: a file is in the place of the directory.
      OSError: a checkpoint could not be written. Those before it are unchanged.
    """
    path = os.path.join(os.path.abspath(workdir), "checkpoints")
    if os.path.exists(path) and not os.path.isdir(path):
        raise errors.UserError(f"{path} is a file; needs the directory of checkpoints: move it away")
    os.makedirs(path, exist_ok=True)
    if clean:
        _remove_unfinished(path)
    policy = checkpoint_managers.AnyPreservationPolicy(
        [
            checkpoint_managers.LatestN(n=max_to_keep),
            checkpoint_managers.BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_metric,
        best_mode="max",
        enable_async_checkpointing=True,
        create=False,
        multiprocessing_options=alone(),
    )
    manager = ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler(), options=options)
    try:
        yield manager
    finally:
        with _explain_failed_save(path):
            manager.close()


def save(manager: ocp.CheckpointManager, state, psnr: float = math.nan):
    """Saves a state under its step, in the background.

    Args:
      manager: the open checkpoints of the run.
      state: the state to save.
      psnr: the score by which the best checkpoint is chosen, larger for better ones; of grids it is minus the root
        mean squared error. NaN ranks below every number.

    Raises:
      OSError: the disk has no room, or the checkpoint before could not be written. Earlier checkpoints are unchanged.
    """
    with _explain_failed_save(manager.directory):
        manager.wait_until_finished()  # the space that the checkpoint before still needs is not free
    state = jax.device_get(state)  # on the host, because orbax would write device arrays from all hosts of a job
    size, free = sum(x.nbytes for x in jax.tree.leaves(state)), shutil.disk_usage(manager.directory).free
    if free < size:
        text = (
            f"no room for checkpoint {int(state.step)} ({size / 2**20:.0f} MiB, {free / 2**20:.0f} free): make room "
            f"and start again, which goes on from step {_newest(manager.directory)}"
        )
        raise rundir.NotWritten(errno.ENOSPC, text, str(manager.directory))
    arguments, metadata = ocp.args.StandardSave(state), {_DIGEST: digest(state)}
    with _explain_failed_save(manager.directory):
        manager.save(int(state.step), args=arguments, metrics={METRIC: psnr}, custom_metadata=metadata)


def restore(manager: ocp.CheckpointManager, abstract_state, step: int | None = None):
    """Returns the state of a checkpoint, on the host; None if there is no checkpoint.

    Args:
      manager: the open checkpoints of the run.
      abstract_state: shapes and dtypes of the state.
      step: the checkpoint; None for the newest.

    Raises:
      UserError: the checkpoint holds another tree than `abstract_state`; the differing paths are listed.
      Damaged: it cannot be read, or its arrays are not those that were saved.
    """
    step = manager.latest_step() if step is None else step
    if step is None:
        return None
    try:
        saved, metadata = manager.item_metadata(step), manager.metadata(step).custom_metadata
    except Exception as error:
        if is_unrelated_to_the_files(error):
            raise
        raise _damaged(step, error) from error
    if saved is None:
        raise _damaged(step, "no list of its arrays")
    tree_check.check(saved, abstract_state, step)
    # NumPy arrays, so that orbax restores to the host.
    arrays = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_state)
    try:
        state = manager.restore(step, args=ocp.args.StandardRestore(arrays))
    except Exception as error:
        if is_unrelated_to_the_files(error):
            raise
        raise _damaged(step, error) from error
    if (metadata or {}).get(_DIGEST) != digest(state):
        raise _damaged(step, "its arrays do not have the SHA-256 that they were saved with, or it has none")
    return state


def restore_chosen(workdir: str, abstract_state, which: str):
    """Returns the state of the last or best checkpoint, on the host, even while training saves and removes others.

    Args:
      workdir: the run directory.
      abstract_state: shapes and dtypes of the state.
      which: "last" or "best".

    Raises:
      UserError: as `restore`; or there is no checkpoint.
    """
    with open_manager(workdir) as manager:
        while True:
            step = manager.best_step() if which == "best" else manager.latest_step()
            try:
                state = restore(manager, abstract_state, step)
            except Damaged:
                manager.reload()
                if step == (manager.best_step() if which == "best" else manager.latest_step()):
                    raise
                logging.info("training has removed checkpoint %d; the next one is used", step)
                continue
            if state is None:
                raise errors.UserError(f"{workdir} has no checkpoint yet: wait for the first one, or train again")
            return state


def resume(manager: ocp.CheckpointManager, abstract_state):
    """Returns the newest state that is not damaged, or None if there is no checkpoint.

    Damaged checkpoints that are newer are moved to `damaged/`.

    Args:
      manager: the open checkpoints of the run.
      abstract_state: shapes and dtypes of the state.

    Raises:
      UserError: as `restore`; or all checkpoints are damaged, which then are not moved.
    """
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state = restore(manager, abstract_state, step)
        except Damaged as error:
            logging.warning("%s", error)
            damaged.append(step)
            continue
        for number in damaged:
            _move_to_damaged(manager.directory, number)
        if damaged:
            manager.reload()
        return state
    if damaged:
        raise errors.UserError(
            f"all checkpoints in {manager.directory} are damaged ({', '.join(map(str, damaged))}): restore one "
            "from a copy, or choose another --workdir"
        )
    return None


def exists(workdir: str) -> bool:
    """Returns whether a run has a complete checkpoint to resume from."""
    folder = os.path.join(workdir, "checkpoints")
    return bool(_steps(folder))


def digest(tree) -> str:
    """Returns the SHA-256 of all arrays of a tree, to compare runs bit for bit."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _steps(folder):
    return [int(n) for n in _names(folder) if n.isdigit() and os.path.isdir(os.path.join(folder, n))]


def _newest(folder):
    return max(_steps(folder), default=0)


def _names(folder):
    """Returns the names in the directory of checkpoints; [] if there is no such directory."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _remove_unfinished(folder):
    """Removes the directories that a killed process was writing; each takes the space of a checkpoint."""
    left = [name for name in _names(folder) if _UNFINISHED in name]
    for name in left:
        shutil.rmtree(os.path.join(folder, name))
    if left:
        logging.info("removed %d unfinished checkpoint(s): %s", len(left), ", ".join(left))


@contextlib.contextmanager
def _explain_failed_save(folder):
    """Replaces orbax's error about a failed save, which is pages long, by one line, as a context."""
    try:
        yield
    except Exception as error:
        number = next((code for code in rundir.FULL if os.strerror(code) in str(error)), getattr(error, "errno", None))
        reason, remedy = first_line(error), "mend that"
        if number in rundir.FULL:
            free = shutil.disk_usage(folder).free / 2**20
            reason, remedy = f"{os.strerror(number)}; {free:.0f} MiB free", "make room"
        which = next((name.partition(_UNFINISHED)[0] for name in _names(folder) if _UNFINISHED in name), "after that")
        text = (
            f"checkpoint {which} could not be written ({reason}): those before it are whole; {remedy}, and the same "
            f"command goes on from step {_newest(folder)}"
        )
        raise rundir.NotWritten(number or errno.EIO, text, str(folder)) from error


def _metric(metrics):
    """Returns the score of a checkpoint; NaN ranks below every number."""
    return metrics[METRIC] if math.isfinite(metrics[METRIC]) else -math.inf


def alone():
    """Returns orbax's options for one host that reads and writes alone, without waiting for the others of its job."""
    host, _ = parallel.shard()
    return ocp.options.MultiprocessingOptions(
        primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"host_{host}"
    )


def is_unrelated_to_the_files(error):
    """Returns whether an error while reading has another cause than damaged files, e.g. no memory or no permission."""
    missing = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in missing)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's text, at most 300 characters; orbax's are pages long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _damaged(step, reason):
    return Damaged(f"checkpoint {step} is damaged ({first_line(reason)})")


def _move_to_damaged(directory, step):
    aside = os.path.join(os.path.dirname(directory), "damaged")
    os.makedirs(aside, exist_ok=True)
    target, copies = os.path.join(aside, str(step)), 0
    while os.path.exists(target):
        copies += 1
        target = os.path.join(aside, f"{step}.{copies}")
    os.rename(os.path.join(directory, str(step)), target)
    logging.warning("checkpoint %d was moved to %s; the one before is used", step, target)
