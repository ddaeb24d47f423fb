"""Datasets that TensorFlow Datasets (TFDS) has prepared, read without TensorFlow and without the network.

Records are serialised examples in array_record files, and only the image's bytes are taken out of them: TFDS's own
reader parses and decodes every feature and is 2.6 times slower on CelebA. Nothing here prepares or downloads a dataset;
errors name the command that does. TFDS is imported inside functions, because importing it takes 0.4 s.
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

from pconv_jax import errors
from pconv_jax.reading import files

FORMAT = "array_record"

_NAME = r"\w+(/[\w.+-]+)?(:\d+\.\d+\.\d+)?"  # Without a namespace: TFDS looks those datasets up in the network.
# Errors of disks, networks and processes, not of a record. array_record passes on only their text.
_NOT_THE_RECORDS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_NOT_THE_RECORDS += (errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN)
_CATALOGUE = "https://www.tensorflow.org/datasets/catalog/overview"


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """Source of the encoded images of a split, in TFDS's order.

    Attributes:
      root: directory of the prepared dataset, e.g. `~/tensorflow_datasets/celeb_a/2.1.0`.
      split: a split in TFDS's syntax: "train", "train[:90%]", "train+validation".
      key: name of the feature that holds the image.
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
        """Returns the sequence of the names `split[index]`, because TFDS keeps no file names."""
        return _Names(self.split, len(self))

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        from tensorflow_datasets.proto import tf_example_pb2

        index = range(len(self))[index]
        try:
            example = tf_example_pb2.Example.FromString(self._records[index])
            return example.features.feature[self.key].bytes_list.value[0]
        except (RuntimeError, IndexError) as error:  # A damaged or missing file; a record without image.
            what = f"record {index} of {self.split} in {self.root}: {error}"
            number = next((code for code in _NOT_THE_RECORDS if os.strerror(code) in str(error)), None)
            if number is not None:
                raise files.Unreachable(number, f"{what}: mend it, and the same command goes on") from error
            raise errors.UserError(what) from error

    def fingerprint(self) -> str:
        """Returns a text that identifies the dataset, so that a run notices that it resumes with other data."""
        return f"{len(self)} records of {self.split}, {'/'.join(self.root.split(os.sep)[-2:])}, {self.key}"

    def __reduce__(self):  # A worker process receives the path, not the open files.
        return type(self), (self.root, self.split, self.key)


@dataclasses.dataclass(frozen=True)
class _Names(collections.abc.Sequence):
    """The names `split[0]`, `split[1]` and so on, made when they are read: a list of a million would cost memory."""

    split: str
    count: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return f"{self.split}[{range(self.count)[index]}]"


def train_and_evaluation(
    name: str, splits: tuple[str, str], key: str = "image", directory: str = ""
) -> tuple[TfdsSource, TfdsSource]:
    """Opens two splits of a prepared dataset.

    Args:
      name: name of the dataset, e.g. "celeb_a" or "imagenet_resized/64x64".
      splits: the training and the evaluation split, in TFDS's syntax.
      key: name of the feature that holds the image.
      directory: where TFDS keeps datasets; TFDS's default if empty.

    Returns:
      `(train, evaluation)`.

    Raises:
      UserError: there is no such dataset, split or image feature; the dataset is not prepared, in another format, or
        incomplete; the splits share records.
    """
    builder = find(name, directory)
    prepared(builder, name, directory)
    _check_key(builder, name, key)
    shared = _shared(*(_files(builder, name, directory, split) for split in splits))
    if shared:
        raise errors.UserError(
            f"the splits {splits[0]} and {splits[1]} of {name} share {shared} records: set data.train_split and "
            "data.eval_split to splits that are apart"
        )
    return tuple(TfdsSource(str(builder.data_dir), split, key) for split in splits)


def find(name: str, directory: str = ""):
    """Returns TFDS's builder of a dataset, whether the dataset is prepared or not.

    Args:
      name: name of the dataset, with configuration and version where there are several.
      directory: where TFDS keeps datasets; TFDS's default if empty.

    Raises:
      UserError: TFDS has no such dataset, configuration or version.
    """
    import tensorflow_datasets as tfds

    if not re.fullmatch(_NAME, name):
        raise errors.UserError(
            f'"{name}" is not the name of a TFDS dataset; needs e.g. celeb_a or imagenet_resized/64x64'
        )
    base = re.split("[/:]", name)[0]
    # For a dataset that is not prepared, TFDS would make a temporary directory for metadata from a bucket that it no
    # longer asks, and leave the empty directory behind.
    tfds.core.DatasetInfo.initialize_from_bucket = lambda info: None
    try:
        return tfds.builder(name, data_dir=_absolute(directory))
    except tfds.core.DatasetNotFoundError:
        close = difflib.get_close_matches(base, tfds.list_builders(with_community_datasets=False), n=1)
        hint = f"did you mean {close[0]}?" if close else f"all names: {_CATALOGUE}"
        raise errors.UserError(f"TFDS has no dataset {name}: {hint}") from None
    except (ValueError, AssertionError) as error:  # TFDS raises these for a wrong configuration or version.
        reason = str(error).splitlines()[0].rpartition('}": ')[2].partition(". ")[0]
        known = ", ".join(tfds.builder_cls(base).builder_configs) or "none"
        raise errors.UserError(f"TFDS cannot open {name}: {reason}; configurations of {base}: {known}") from error


def prepared(builder, name: str, directory: str = ""):
    """Checks that a dataset is prepared in a format with random access.

    Args:
      builder: the dataset's builder (`find`).
      name: name of the dataset, for the message.
      directory: where TFDS keeps datasets, for the message.

    Raises:
      UserError: the dataset is not prepared, or in another format. The message has the command that prepares it.
    """
    if not is_prepared(builder):
        raise errors.UserError(
            f"{name} is not prepared in {builder.data_dir}: run\n  {command(builder, name, directory)}"
        )
    formats = {str(file_format.value) for file_format in builder.info.available_file_formats()}
    if FORMAT not in formats:
        other = os.path.join(str(builder.data_dir_root), FORMAT)
        raise errors.UserError(
            f"{name} is prepared as {', '.join(sorted(formats))} in {builder.data_dir}; needs {FORMAT}: prepare it in "
            f"another directory and set --config.data.dir={shlex.quote(other)}: run\n  {command(builder, name, other)}"
        )


def is_prepared(builder) -> bool:
    """Returns whether the dataset is prepared: whether both files that TFDS writes last exist."""
    return all(os.path.isfile(os.path.join(builder.data_dir, file)) for file in ("dataset_info.json", "features.json"))


def command(builder, name: str, directory: str = "", manual: str = "") -> str:
    """Returns the shell command that prepares a dataset.

    Args:
      builder: the dataset's builder (`find`).
      name: name of the dataset.
      directory: where TFDS keeps datasets; TFDS's default if empty.
      manual: folder of the files that the user has downloaded; TFDS's default if empty.
    """
    arguments = [name, f"--manual_dir={manual or manual_directory(builder)}"]
    arguments += [f"--data_dir={_absolute(directory)}"] if directory else []
    return f"python -m pconv_jax.tools.prepare_tfds {shlex.join(arguments)}"


def manual_directory(builder) -> str:
    """Returns TFDS's default folder for files that the user has downloaded."""
    return os.path.join(str(builder.data_dir_root), "downloads", "manual")


def _absolute(directory):
    return os.path.abspath(os.path.expanduser(directory)) if directory else None


def _check_key(builder, name, key):
    """Refuses a missing feature and one that is not an image of 8 or 16 bits.

    TFDS stores float32 images as the bytes of a PNG, which would decode to meaningless pixels.
    """
    import tensorflow_datasets as tfds

    images = [
        feature
        for feature, kind in builder.info.features.items()
        if isinstance(kind, tfds.features.Image) and np.dtype(kind.np_dtype).kind == "u"
    ]
    if key not in images:
        names = ", ".join(sorted(images)) or "none"
        raise errors.UserError(f'{name} has no image "{key}": set data.image_feature to one of its images ({names})')


def _files(builder, name, directory, split):
    """Returns the files of a split, each with the records to take from it."""
    known = ", ".join(f"{s} ({info.num_examples})" for s, info in builder.info.splits.items())
    try:
        files = builder.info.splits[split].file_instructions
    except (ValueError, KeyError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise errors.UserError(
            f'{name} has no split "{split}" ({reason}): set it to one of {known}, or a part'
        ) from error
    if not files:
        raise errors.UserError(f'the split "{split}" of {name} is empty: set it to one of {known}, or a larger part')
    missing = [file.filename for file in files if not os.path.isfile(file.filename)]
    if missing:
        raise errors.UserError(
            f"{name} is incomplete, {len(missing)} files are missing, e.g. {missing[0]}: copy them there, or remove "
            f"{builder.data_dir} and run\n  {command(builder, name, directory)}"
        )
    return files


def _shared(one, other):
    """Returns the number of records that two splits have in common."""
    return sum(
        max(0, min(a.skip + a.take, b.skip + b.take) - max(a.skip, b.skip))
        for a in one
        for b in other
        if a.filename == b.filename
    )
