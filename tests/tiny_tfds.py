"""Writes the original files of TFDS datasets with a few small images, and prepares the datasets from them."""

import contextlib
import importlib
import io
import os
import tarfile
import zipfile
from unittest import mock

import pictures
from pconv_jax.tools import prepare_tfds

CELEBA = {"train": 10, "validation": 4, "test": 2}


def celeba(raw) -> dict[str, list[bytes]]:
    """Writes the zip and the four lists of CelebA as they are published, and returns each split's sorted images."""
    listed = importlib.import_module("tensorflow_datasets.datasets.celeb_a.celeb_a_dataset_builder")
    names, parts, images = [], [], {split: [] for split in CELEBA}
    raw.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(raw / "img_align_celeba.zip", "w") as archive:
        for part, (split, count) in enumerate(CELEBA.items()):
            for _ in range(count):
                names.append(f"{len(names) + 1:06d}.jpg")
                parts.append(part)
                images[split].append(pictures.encode(pictures.noise(len(names), 218, 178), ".jpg"))
                archive.writestr(f"img_align_celeba/{names[-1]}", images[split][-1])
    write_list(raw / "list_eval_partition.txt", [], zip(names, parts, strict=True))
    write_list(raw / "identity_CelebA.txt", [], ((name, 7) for name in names))
    for file, headings in (
        ("list_attr_celeba.txt", listed.ATTR_HEADINGS),
        ("list_landmarks_align_celeba.txt", listed.LANDMARK_HEADINGS),
    ):
        top = [len(names), " ".join(headings)]
        write_list(raw / file, top, ((name, *[1] * len(headings)) for name in names))
    return {split: sorted(encoded) for split, encoded in images.items()}


def write_list(path, top, rows):
    path.write_text("".join(f"{line}\n" for line in [*top, *(" ".join(map(str, row)) for row in rows)]))


def write_tar(path, files: dict[str, bytes]) -> bytes:
    """Writes `{name: content}` as a tar file to `path`, unless it is None, and returns the file's bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


@contextlib.contextmanager
def originals(name, raw):
    """Makes TFDS accept the files in `raw` as a dataset's originals, by expecting their sizes and checksums."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder_cls(name)
    infos = {}
    for url, info in builder.url_infos.items():
        path = os.path.join(raw, info.filename or os.path.basename(url))
        infos[url] = checksums.compute_url_info(path) if os.path.exists(path) else info
    with mock.patch.object(builder, "url_infos", infos):
        yield


def prepare(name, raw, directory) -> bool:
    """Prepares a dataset from the files in `raw`; returns False if it was prepared already."""
    with originals(name, raw):
        return prepare_tfds.Preparation(name, str(raw), str(directory)).run()
