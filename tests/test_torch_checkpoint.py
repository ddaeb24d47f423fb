"""Tests of reading torch checkpoints without torch: the arrays are right, and no code in the file is run."""

import os
import pickle

import numpy as np
import pytest

import vgg_files
from pconv_jax.tools import torch_checkpoint


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("style", ["v2", "parameter", "oldest"])
def test_arrays(tmp_path, legacy, style):
    """The named arrays are read in every format, old and new, and a name that the file lacks is left out."""
    vgg_files.write_torch(tmp_path / "x.pth", legacy=legacy, style=style)
    wanted = vgg_files.torchvision()
    arrays = torch_checkpoint.read(str(tmp_path / "x.pth"), ["features.14.bias", "features.2.weight", "none"])
    assert set(arrays) == {"features.14.bias", "features.2.weight"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name])


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_not_run(tmp_path, legacy):
    trap, file = tmp_path / "trap", tmp_path / "evil.pth"
    pickle.loads(pickle.dumps(Trap(trap)))
    trap.rmdir()  # so it works
    vgg_files.write_torch(file, legacy=legacy, surplus={"x": Trap(trap)})
    with pytest.raises(
        ValueError, match=r"evil.pth is no torch state dict .*names (posix|nt).mkdir, .*nothing was run"
    ):
        torch_checkpoint.read(str(file), ["x"])
    assert not trap.exists()


@pytest.mark.parametrize("place", [(0, (2,), (4,)), (-1, (1,), (1,)), (0, (9,), (0,)), (3, (2,), (1,))])
def test_a_tensor_stays_in_its_storage(place):
    """Strides that lead beyond the storage are refused, because they would read other memory of this process."""
    storage = torch_checkpoint._Storage("<f4", "0", 4)
    raw = np.arange(4, dtype="<f4").tobytes()
    with pytest.raises(ValueError, match="does not fit its 4 of 4 elements"):
        torch_checkpoint._array(storage, *place, lambda _: raw)
    np.testing.assert_array_equal(torch_checkpoint._array(storage, 1, (2,), (2,), lambda _: raw), [1, 3])
