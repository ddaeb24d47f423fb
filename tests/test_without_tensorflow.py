"""Tests of preparing datasets of other kinds than CelebA by their own builders, without TensorFlow."""

import io
import sys

import numpy as np
import PIL.Image
import pytest

import pictures
import tiny_tfds
from pconv_jax.data import sources, tfds_source
from pconv_jax.tools import prepare_tfds, without_tensorflow


def jpeg(seed, kind="RGB", encoder="JPEG"):
    """Returns a smooth image, encoded by Pillow."""
    file = io.BytesIO()
    small = PIL.Image.fromarray(pictures.noise(seed, 4, 4))
    small.resize((64, 48), PIL.Image.Resampling.BICUBIC).convert(kind).save(file, encoder, quality=95)
    return file.getvalue()


def decoded(encoded):
    """Returns the image as RGB, decoded by Pillow and not by the package's decoder."""
    return np.asarray(PIL.Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)


def test_places365_small(tmp_path):
    """The list of files is extracted to disk, and the images are read from the archives."""
    raw = tmp_path / "raw"
    raw.mkdir()
    images = {f"data_256/a/airfield/{i:08d}.jpg": jpeg(i) for i in range(6)}
    tiny_tfds.write_tar(raw / "train_256_places365standard.tar", images)
    tiny_tfds.write_tar(raw / "test_256.tar", {"test_256/Places365_test_1.jpg": jpeg(20)})
    tiny_tfds.write_tar(raw / "val_256.tar", {"val_256/Places365_val_1.jpg": jpeg(10)})
    lists = {
        "places365_train_standard.txt": "".join(f"{name.removeprefix('data_256')} 0\n" for name in images).encode(),
        "places365_test.txt": b"Places365_test_1.jpg\n",
        "places365_val.txt": b"Places365_val_1.jpg 0\n",
    }
    tiny_tfds.write_tar(raw / "filelist_places365-standard.tar", lists)
    assert tiny_tfds.prepare("places365_small", raw, tmp_path)
    train, evaluation = tfds_source.train_and_evaluation(
        "places365_small", ("train", "validation"), directory=str(tmp_path)
    )
    assert sorted(train[i] for i in range(6)) == sorted(images.values())
    assert [evaluation[i] for i in range(len(evaluation))] == [jpeg(10)]


def test_imagenet2012(tmp_path):
    """Archives within an archive are read, and photographs in CMYK and PNG become RGB JPEGs of the same picture."""
    raw = tmp_path / "raw"
    raw.mkdir()
    cmyk, png = jpeg(2, "CMYK"), jpeg(3, encoder="PNG")
    classes = {
        "n01739381.tar": {"n01739381_1.JPEG": jpeg(1), "n01739381_1309.JPEG": cmyk},
        "n02105855.tar": {"n02105855_2933.JPEG": png},
    }
    tiny_tfds.write_tar(
        raw / "ILSVRC2012_img_train.tar",
        {name: tiny_tfds.write_tar(None, files) for name, files in classes.items()},
    )
    tiny_tfds.write_tar(raw / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": jpeg(4)})
    assert tiny_tfds.prepare("imagenet2012", raw, tmp_path)
    train, evaluation = tfds_source.train_and_evaluation(
        "imagenet2012", ("train", "validation"), directory=str(tmp_path)
    )
    assert [evaluation[0]] == [jpeg(4)]
    images = [train[i] for i in range(len(train))]
    assert len(images) == 3 and jpeg(1) in images and all(encoded[:2] == b"\xff\xd8" for encoded in images)
    for original in (cmyk, png):
        distance = min(np.abs(decoded(encoded) - decoded(original)).mean() for encoded in images)
        assert distance < 2.5
    assert all(sources.decode(encoded).shape == (48, 64, 3) for encoded in images)


@pytest.fixture(scope="module")
def arrays():
    """Returns the builder of a dataset of arrays, whose images have names of their own and which has no checksums."""
    import tensorflow_datasets as tfds

    class TinyArrays(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None

        def _info(self):
            features = {"picture": tfds.features.Image(shape=(8, 10, 3)), "grey": tfds.features.Image(shape=(8, 10, 1))}
            features["depth"] = tfds.features.Image(shape=(8, 10, 1), dtype=np.float32)
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {"train": self._generate_examples(0), "test": self._generate_examples(10)}

        def _generate_examples(self, seed):
            for i in range(seed, seed + 3):
                depth = np.zeros((8, 10, 1), np.float32)
                grey = pictures.noise(i, 8, 10, 1)
                yield i, {"picture": pictures.noise(i, 8, 10), "grey": grey, "depth": depth}

    return TinyArrays


@pytest.mark.parametrize(("key", "channels"), [("picture", 3), ("grey", 1)])
def test_arrays(tmp_path, arrays, key, channels):
    """For any dataset by name and key, arrays become PNGs with every pixel unchanged."""
    assert prepare_tfds.Preparation("tiny_arrays", "", str(tmp_path)).run()
    train, _ = tfds_source.train_and_evaluation("tiny_arrays", ("train", "test"), key, str(tmp_path))
    images = sorted(sources.decode(train[i], channels).tobytes() for i in range(3))
    assert images == sorted(pictures.noise(i, 8, 10, channels).tobytes() for i in range(3))
    with pytest.raises(
        ValueError, match=r'no image "depth": set data.image_feature to one of its images \(grey, picture\)'
    ):
        tfds_source.train_and_evaluation("tiny_arrays", ("train", "test"), "depth", str(tmp_path))


def test_other_parts_of_tensorflow_are_named(tmp_path, arrays, monkeypatch):
    """If a dataset computes with TensorFlow, the error names the missing part, and where to prepare it instead."""
    from tensorflow_datasets.core.download import extractor

    def compute(self, _):
        return extractor.tf.linalg

    monkeypatch.setattr(arrays, "_split_generators", compute)
    message = r"tiny_arrays needs the package tensorflow, .*no tf.linalg without TensorFlow.* copy it to .*/1.0.0$"
    with pytest.raises(ValueError, match=message):
        prepare_tfds.Preparation("tiny_arrays", "", str(tmp_path)).run()


def test_nothing_stays_changed_or_open(tmp_path):
    """TFDS is unchanged afterwards, and is never changed where TensorFlow is installed."""
    from tensorflow_datasets.core.download import extractor

    (tmp_path / "file").write_bytes(b"content")
    before = extractor.tf
    with without_tensorflow.stand_in():
        assert extractor.tf is not before
        with extractor.tf.io.gfile.GFile(tmp_path / "file", "rb") as file:
            pass
        assert file.read() == b"content"
        with extractor.tf.io.gfile.GFile(tmp_path / "text", "w") as text:
            text.write("ä")
        assert (tmp_path / "text").read_text(encoding="utf-8") == "ä"
    assert extractor.tf is before and file.closed


def test_an_installed_tensorflow_is_used(tmp_path, monkeypatch):
    """If TensorFlow is installed, nothing is replaced."""
    from tensorflow_datasets.core.download import extractor

    (tmp_path / "tensorflow.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = extractor.tf
    with without_tensorflow.stand_in():
        assert extractor.tf is before
