"""Checkpoints: orbax, asynchronous and atomic, keeping the last few and the best.

`checkpoints/<step>/` appears when it is complete and not before, so a run that is killed while it writes resumes from
the checkpoint before. The SHA-256 of its arrays is stored beside them: what a disk has damaged is noticed and put aside
as `damaged/<step>`, and the checkpoint before is used.
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
from pconv_jax.training import parallel, rundir

METRIC = "psnr"
_DIGEST = "sha256"
_UNFINISHED = ".orbax-checkpoint-tmp"  # ends, or is in, the names of directories that are being written


class Damaged(errors.UserError):
    """A checkpoint that cannot be read, or holds other arrays than were saved."""


@contextlib.contextmanager
def open_manager(workdir: str, max_to_keep: int = 1, clean: bool = False):
    """Opens the checkpoints of a run, as a context that ends when what is being saved is there.

    Args:
      workdir: the run directory.
      max_to_keep: number of newest checkpoints to keep, beside the one with the best PSNR.
      clean: remove what killed processes left of checkpoints. Only for who holds the directory's lock.

    Raises:
      UserError: a file lies where its directory belongs.
      OSError: a checkpoint could not be written. Those before it stay as they are.
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
        with _told(path):
            manager.close()


def save(manager: ocp.CheckpointManager, state, psnr: float = math.nan):
    """Saves under `state.step`, in the background. The PSNR decides which is best; no number is worse than any.

    Raises:
      OSError: the disk has no room for it, or the checkpoint before could not be written. What is there stays as it is.
    """
    with _told(manager.directory):
        manager.wait_until_finished()  # of the one before: what it still writes is not free
    state = jax.device_get(state)  # arrays of the host: orbax would write those of devices from all hosts of a job
    size, free = sum(x.nbytes for x in jax.tree.leaves(state)), shutil.disk_usage(manager.directory).free
    if free < size:
        text = (
            f"no room for checkpoint {int(state.step)} ({size / 2**20:.0f} MiB, {free / 2**20:.0f} free): make room "
            f"and start again, which goes on from step {_newest(manager.directory)}"
        )
        raise rundir.NotWritten(errno.ENOSPC, text, str(manager.directory))
    arguments, metadata = ocp.args.StandardSave(state), {_DIGEST: digest(state)}
    with _told(manager.directory):
        manager.save(int(state.step), args=arguments, metrics={METRIC: psnr}, custom_metadata=metadata)


def restore(manager: ocp.CheckpointManager, abstract_state, step: int | None = None):
    """The state at `step`, or the newest, on the host; None if there is no checkpoint.

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
        if _says_nothing_about_the_files(error):
            raise
        raise _damaged(step, error) from error
    if saved is None:
        raise _damaged(step, "no list of its arrays")
    check_tree(saved, abstract_state, step)
    arrays = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_state)  # restored as they are: on the host
    try:
        state = manager.restore(step, args=ocp.args.StandardRestore(arrays))
    except Exception as error:
        if _says_nothing_about_the_files(error):
            raise
        raise _damaged(step, error) from error
    if (metadata or {}).get(_DIGEST) != digest(state):
        raise _damaged(step, "its arrays do not have the SHA-256 that they were saved with, or it has none")
    return state


def restore_chosen(workdir: str, abstract_state, which: str):
    """The state of the "last" or the "best" checkpoint on the host, while training may save and remove others.

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
                logging.info("training has removed checkpoint %d meanwhile: taking the next", step)
                continue
            if state is None:
                raise errors.UserError(f"{workdir} has no checkpoint yet: wait for the first one, or train again")
            return state


def resume(manager: ocp.CheckpointManager, abstract_state):
    """The newest state that is not damaged, or None if there is no checkpoint. Damaged ones are put aside.

    Raises:
      UserError: as `restore`; or all are damaged, which then stay where they are.
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
            _put_aside(manager.directory, number)
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
    """Whether a run has a complete checkpoint to go on from."""
    folder = os.path.join(workdir, "checkpoints")
    return bool(_steps(folder))


def digest(tree) -> str:
    """SHA-256 of all arrays of a tree, to compare runs bit for bit."""
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
    """What lies in the directory of checkpoints; nothing where somebody has removed it."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _remove_unfinished(folder):
    """Directories that a process was writing when it was killed: nobody reads them, and each is a checkpoint large."""
    left = [name for name in _names(folder) if _UNFINISHED in name]
    for name in left:
        shutil.rmtree(os.path.join(folder, name))
    if left:
        logging.info("removed what was left of %d unfinished checkpoint(s): %s", len(left), ", ".join(left))


@contextlib.contextmanager
def _told(folder):
    """Says in a line of ours what orbax says in pages about a checkpoint that could not be written."""
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
    """A value that is no number is the worst."""
    return metrics[METRIC] if math.isfinite(metrics[METRIC]) else -math.inf


def alone():
    """One host of a job reads and writes; the others do not take part, and orbax does not wait for them."""
    host, _ = parallel.shard()
    return ocp.options.MultiprocessingOptions(
        primary_host=host, active_processes={host}, barrier_sync_key_prefix=f"host_{host}"
    )


def _says_nothing_about_the_files(error):
    """Of an error while reading: out of memory or of file handles, no permission, a network that is away."""
    missing = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in missing)


def first_line(error: Exception) -> str:
    """Of an error's text, shortened: orbax's go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _damaged(step, reason):
    return Damaged(f"checkpoint {step} is damaged ({first_line(reason)})")


def _put_aside(directory, step):
    aside = os.path.join(os.path.dirname(directory), "damaged")
    os.makedirs(aside, exist_ok=True)
    target, copies = os.path.join(aside, str(step)), 0
    while os.path.exists(target):
        copies += 1
        target = os.path.join(aside, f"{step}.{copies}")
    os.rename(os.path.join(directory, str(step)), target)
    logging.warning("checkpoint %d is now %s; the one before is used", step, target)


def check_tree(metadata, abstract_state, step: int):
    """Raises UserError unless a checkpoint's arrays have the paths and shapes of a state; lists those that differ."""
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
    """The same name for an attribute of the state, a key of a dict, and an index: orbax stores all as keys."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
