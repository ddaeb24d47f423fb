"""Datasets that TensorFlow Datasets (TFDS) has prepared, read without TensorFlow and without the network.

Records come as serialised examples from array_record files, and only the image's bytes are taken out of them: TFDS's
own reading, which parses and decodes every feature, is 2.6 times slower on CelebA. Nothing here prepares or downloads;
errors name the command that does. TFDS is imported inside functions: it takes 0.4 s, which no other source should pay.
"""

import collections.abc
import dataclasses
import difflib
import errno
import functools
import os
import re
import shlex

import numpy as np

from pconv_jax.data import encoded

FORMAT = "array_record"

_NAME = r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?"  # no namespace: those datasets are looked up in the network
# Errors of disks, networks and processes, which say nothing about a record; array_record gives the text alone.
_NOT_THE_RECORDS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_NOT_THE_RECORDS += (errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN)
_CATALOGUE = "https://www.tensorflow.org/datasets/catalog/overview"


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """The images of a split, in TFDS's order.

    Attributes:
      root: directory of the prepared dataset, e.g. `~/tensorflow_datasets/celeb_a/2.1.0`.
      split: "train", "train[:90%]", "train+validation" ..
      key: of the feature that holds the image.
    """

    root: str
    split: str
    key: str

    @functools.cached_property
    def _records(self):
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        builder = tfds.builder_from_directory(self.root)
        return builder.as_data_source(split=self.split, deserialize_method=raw, file_format=FORMAT)

    @property
    def names(self):
        """`split[index]`, made when asked for: TFDS keeps no file names."""
        return _Names(self.split, len(self))

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        from tensorflow_datasets.proto import tf_example_pb2

        index = range(len(self))[index]
        try:
            example = tf_example_pb2.Example.FromString(self._records[index])
            return example.features.feature[self.key].bytes_list.value[0]
        except (RuntimeError, IndexError) as error:  # a file that is damaged, cut off or gone; a record without image
            what = f"record {index} of {self.split} in {self.root}: {error}"
            if any(os.strerror(number) in str(error) for number in _NOT_THE_RECORDS):
                raise encoded.Unreachable(f"{what}: mend it, and the same command goes on") from error
            raise OSError(what) from error

    def fingerprint(self) -> str:
        """Of the prepared dataset, to notice that a run goes on with other data."""
        return f"{len(self)} records of {self.split}, {'/'.join(self.root.split(os.sep)[-2:])}, {self.key}"

    def __reduce__(self):  # the path goes to a worker process, the open files do not
        return type(self), (self.root, self.split, self.key)


@dataclasses.dataclass(frozen=True)
class _Names(collections.abc.Sequence):
    """A million names in no memory."""

    split: str
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return f"{self.split}[{range(self.count)[index]}]"


def train_and_evaluation(
    name: str, splits: tuple[str, str], key: str = "image", directory: str = ""
) -> tuple[TfdsSource, TfdsSource]:
    """Two splits of a prepared dataset, `(train, evaluation)`.

    Args:
      name: of the dataset, e.g. "celeb_a" or "imagenet_resized/64x64".
      splits: their names, in TFDS's split algebra.
      key: of the feature that holds the image.
      directory: where TFDS keeps datasets; empty: TFDS's default.

    Raises:
      ValueError: no such dataset, split or image feature; the dataset is not prepared, in another format, or
        incomplete; the splits share records.
    """
    builder = find(name, directory)
    prepared(builder, name, directory)
    _check_key(builder, name, key)
    files = [_files(builder, name, directory, split) for split in splits]
    shared = _shared(*files)
    if shared:
        raise ValueError(
            f"the splits {splits[0]} and {splits[1]} of {name} share {shared} records: set data.train_split and "
            "data.eval_split to splits that are apart"
        )
    return tuple(TfdsSource(str(builder.data_dir), split, key) for split in splits)


def find(name: str, directory: str = ""):
    """TFDS's builder of a dataset, prepared or not.

    Raises:
      ValueError: TFDS has no such dataset, configuration or version.
    """
    import tensorflow_datasets as tfds

    if not re.fullmatch(_NAME, name):
        raise ValueError(f'"{name}" is no name of a TFDS dataset; needs e.g. celeb_a or imagenet_resized/64x64')
    base = re.split("[/:]", name)[0]
    try:
        return tfds.builder(name, data_dir=_absolute(directory))
    except tfds.core.DatasetNotFoundError:
        close = difflib.get_close_matches(base, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {close[0]}?" if close else f"all names: {_CATALOGUE}"
        raise ValueError(f"TFDS has no dataset {name}: {hint}") from None
    except (ValueError, AssertionError) as error:  # configuration or version
        reason = str(error).splitlines()[0].rpartition('}": ')[2].partition(". ")[0]
        known = ", ".join(tfds.builder_cls(base).builder_configs) or "none"
        raise ValueError(f"TFDS cannot open {name}: {reason}; configurations of {base}: {known}") from error


def prepared(builder, name: str, directory: str = ""):
    """Checks that a dataset lies ready for reading.

    Raises:
      ValueError: it does not, or in a format without random access; says which command prepares it.
    """
    if not is_prepared(builder):
        raise ValueError(f"{name} is not prepared in {builder.data_dir}: run\n  {command(builder, name, directory)}")
    formats = {str(found.value) for found in builder.info.available_file_formats()}
    if FORMAT not in formats:
        other = os.path.join(str(builder.data_dir_root), FORMAT)
        raise ValueError(
            f"{name} is prepared as {', '.join(sorted(formats))} in {builder.data_dir}; needs {FORMAT}: prepare it in "
            f"another directory and set --config.data.dir={shlex.quote(other)}: run\n  {command(builder, name, other)}"
        )


def is_prepared(builder) -> bool:
    """True if both files that TFDS writes last are there."""
    return all(os.path.isfile(os.path.join(builder.data_dir, file)) for file in ("dataset_info.json", "features.json"))


def command(builder, name: str, directory: str = "", manual: str = "") -> str:
    """The command that prepares a dataset."""
    words = [name, f"--manual_dir={manual or manual_directory(builder)}"]
    words += [f"--data_dir={_absolute(directory)}"] if directory else []
    return f"python -m pconv_jax.tools.prepare_tfds {shlex.join(words)}"


def manual_directory(builder) -> str:
    """Where TFDS looks for files that a person has downloaded, unless told otherwise."""
    return os.path.join(str(builder.data_dir_root), "downloads", "manual")


def _absolute(directory):
    return os.path.abspath(os.path.expanduser(directory)) if directory else None


def _check_key(builder, name, key):
    """Refuses a feature that is absent or no picture of 8 or 16 bits (TFDS hides float32 in the bytes of a PNG)."""
    import tensorflow_datasets as tfds

    images = [
        feature
        for feature, kind in builder.info.features.items()
        if isinstance(kind, tfds.features.Image) and np.dtype(kind.np_dtype).kind == "u"
    ]
    if key not in images:
        found = ", ".join(sorted(images)) or "none"
        raise ValueError(f'{name} has no image "{key}": set data.key to one of its images ({found})')


def _files(builder, name, directory, split):
    """Files of a split with the records to take from each."""
    known = ", ".join(f"{s} ({info.num_examples})" for s, info in builder.info.splits.items())
    try:
        files = builder.info.splits[split].file_instructions
    except (ValueError, KeyError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'{name} has no split "{split}" ({reason}): set it to one of {known}, or a part') from error
    if not files:
        raise ValueError(f'the split "{split}" of {name} is empty: set it to one of {known}, or a larger part')
    missing = [file.filename for file in files if not os.path.isfile(file.filename)]
    if missing:
        raise ValueError(
            f"{name} is incomplete, {len(missing)} files are missing, e.g. {missing[0]}: copy them there, or remove "
            f"{builder.data_dir} and run\n  {command(builder, name, directory)}"
        )
    return files


def _shared(one, other):
    """Number of records that two splits have in common."""
    return sum(
        max(0, min(a.skip + a.take, b.skip + b.take) - max(a.skip, b.skip))
        for a in one
        for b in other
        if a.filename == b.filename
    )
