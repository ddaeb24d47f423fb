"""Tests of fillings on the server: exact valid pixels, versions, masks, options, and saving in each format."""

import io

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

import networks
import web_servers
from pconv_jax import inpaint
from pconv_jax.inpainting import jobs
from pconv_jax.web import photographs

HEIGHT, WIDTH = 30, 40
HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[4:9, 6:20] = HOLE[25:, 30:] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[7:15, 15:25] = True


@pytest.fixture(scope="module")
def client():
    with web_servers.client(web_servers.Network()) as client:
        yield client


def noise(channels=3, dtype=np.uint8):
    """Returns noise without the values that the tests' network fills with by accident."""
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def rotated_jpeg():
    """Returns a JPEG that is to be turned by a quarter, with a profile."""
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    PIL.Image.fromarray(noise().transpose(1, 0, 2)).save(file, "JPEG", exif=exif.tobytes(), icc_profile=profile)
    return file.getvalue()


def upright(encoded):
    """Returns the pixels of a JPEG as decoded by another library, turned as its EXIF says."""
    array = imagecodecs.jpeg_decode(encoded)
    return np.rot90(array, -1)


SOURCES = {
    "png 8": web_servers.png(noise()),
    "png 16": web_servers.png(noise(dtype=np.uint16)),
    "png rgba": web_servers.png(noise(4)),
    "png rgba 16": web_servers.png(noise(4, np.uint16)),
    "png grey": web_servers.png(noise(1)),
    "tiff 16": imagecodecs.tiff_encode(noise(dtype=np.uint16)) if hasattr(imagecodecs, "tiff_encode") else None,
    "webp": imagecodecs.webp_encode(noise(), lossless=True),
    "bmp": imagecodecs.bmp_encode(noise()),
    "jpeg turned": rotated_jpeg(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_valid_pixels_keep_their_bits(client, kind):
    """After two fillings one upon the other, pixels outside the holes have the source's bits, in PNG and by default."""
    encoded = SOURCES[kind]
    if encoded is None:
        pytest.skip("this imagecodecs does not write TIFF")
    about = web_servers.open_photograph(client, encoded, f"photo.{kind.split()[0]}")
    source = upright(encoded) if kind == "jpeg turned" else web_servers.pixels(encoded)
    assert (about["height"], about["width"]) == source.shape[:2] == (HEIGHT, WIDTH)
    first = web_servers.fill(client, about, HOLE)
    second = web_servers.fill(client, about, OTHER, base=first["version"], dilate=1)
    assert (second["parent"], second["changed"]) == (first["version"], [14, 6, 12, 10])
    colours = source.shape[-1] - about["alpha"]
    grown = HOLE.copy()
    grown[6:16, 14:26] |= ~np.pad(np.zeros((8, 10), bool), 1, constant_values=True) | _grown(OTHER)[6:16, 14:26]
    for format in ("png", about["default_format"]):
        result = web_servers.pixels(web_servers.saved(client, about, second["version"], format))
        assert result.dtype == source.dtype and result.shape == source.shape
        np.testing.assert_array_equal(result[~grown], source[~grown])
        assert (result[grown][:, :colours] != source[grown][:, :colours]).any(axis=-1).mean() > 0.9
        np.testing.assert_array_equal(result[..., colours:], source[..., colours:])


def _grown(mask):
    """Returns a hole that has grown by one pixel up, down, left and right."""
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "jpeg", "original"])
def test_each_format_can_be_saved(client, format):
    """Every format has a new name, keeps profile and EXIF, and only JPEG changes valid pixels."""
    encoded = rotated_jpeg()
    about = web_servers.open_photograph(client, encoded, "trip.jpg")
    version = web_servers.fill(client, about, HOLE)["version"]
    answer = client.get(f"api/photographs/{about['id']}/versions/{version}/file", params={"format": format})
    image = PIL.Image.open(io.BytesIO(answer.content))
    kind = "jpeg" if format == "original" else format
    assert image.format == kind.upper() and answer.headers["content-type"] == f"image/{kind}"
    extension = {"png": "png", "webp": "webp", "tiff": "tif", "jpeg": "jpg"}[kind]
    assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''trip_filled.{extension}"
    assert image.info["icc_profile"] == PIL.Image.open(io.BytesIO(encoded)).info["icc_profile"]
    exif = image.getexif()
    assert exif[0x010E] == "a description" and exif.get(0x0112, 1) == 1
    same = np.asarray(image)[~HOLE] == upright(encoded)[~HOLE]
    assert same.all() == (kind != "jpeg")


def test_what_a_format_cannot_hold_is_refused(client):
    """The command line's reason is the answer, and an unknown format names the known ones."""
    about = web_servers.open_photograph(client, SOURCES["png rgba 16"])
    path = f"api/photographs/{about['id']}/versions/0/file"
    assert "16 bits per channel" in client.get(path, params={"format": "webp"}).json()["error"]
    assert "needs one of original, png" in client.get(path, params={"format": "gif"}).json()["error"]
    assert client.get(path.replace("/0/", "/7/")).status_code == 404


def test_the_page_and_the_command_line_write_the_same_bytes(tmp_path):
    """With a network, dilate, feather and an ensemble, the result is the file that inpaint writes."""
    network = inpaint.Inpainter(*networks.random(), tile=64)
    photo = web_servers.png(noise(4))
    (tmp_path / "photo.png").write_bytes(photo)
    (tmp_path / "mask.png").write_bytes(web_servers.png(HOLE * np.uint8(255)))
    options = {"dilate": 3, "feather": 2}
    job = jobs.Job(*(str(tmp_path / name) for name in ("photo.png", "mask.png", "out.png")))
    inpaint.fill_file(network.with_ensemble(2), job, inpaint.Options("white_hole", **options))
    with web_servers.client(network) as client:
        about = web_servers.open_photograph(client, photo)
        version = web_servers.fill(client, about, HOLE, ensemble=2, weights="second", **options)
        assert web_servers.saved(client, about, version["version"]) == (tmp_path / "out.png").read_bytes()
        assert version["options"] == {"weights": "second", "ensemble": 2, "opaque": False, **options}


def test_versions_form_a_tree(client, monkeypatch):
    """An older version can be filled again; each version keeps its pixels, also when they are no longer in memory."""
    about = web_servers.open_photograph(client, SOURCES["png 16"])
    made = [web_servers.fill(client, about, mask, base=base) for mask, base in ((HOLE, 0), (OTHER, 1), (OTHER, 0))]
    assert [(entry["version"], entry["parent"]) for entry in made] == [(1, 0), (2, 1), (3, 0)]
    assert client.get(f"api/photographs/{about['id']}").json()["versions"] == made
    before = [web_servers.saved(client, about, number) for number in range(4)]
    assert len(set(before)) == 4
    np.testing.assert_array_equal(web_servers.pixels(before[0]), web_servers.pixels(SOURCES["png 16"]))
    monkeypatch.setattr(photographs, "_CACHED_BYTES", 0)
    for number in (2, 0, 3, 1, 2):
        client.session.photographs._cache.clear()
        assert web_servers.saved(client, about, number) == before[number]
    path = f"api/photographs/{about['id']}/versions"
    assert "another one builds on it" in client.delete(f"{path}/1").json()["error"]
    assert client.delete(f"{path}/2").status_code == client.delete(f"{path}/1").status_code == 204
    assert client.delete(f"{path}/1").status_code == client.get(f"{path}/1/preview").status_code == 404
    assert web_servers.saved(client, about, 3) == before[3]
    assert web_servers.fill(client, about, HOLE, base=3)["version"] == 4  # Numbers are not used twice.


def test_a_mask_may_cover_a_part(client):
    """A mask at (x, y) fills the same pixels as one of the photograph's size."""
    about = web_servers.open_photograph(client, SOURCES["png 8"])
    web_servers.fill(client, about, OTHER)
    client.network.calls -= 1  # The tests' network fills every time with another value.
    version = web_servers.fill(client, about, OTHER[5:17, 12:30], x=12, y=5)
    assert version["changed"] == [15, 7, 10, 8] and version["area"] == pytest.approx(OTHER.mean())
    assert web_servers.saved(client, about, 1) == web_servers.saved(client, about, 2)


def test_holes_of_transparency_become_opaque(client):
    """With `opaque`, what was transparent and is filled can be seen; without, transparency stays."""
    array = noise(4)
    array[..., 3] = np.where(HOLE, 0, 200)
    about = web_servers.open_photograph(client, web_servers.png(array))
    for opaque in (0, 1):
        version = web_servers.fill(client, about, HOLE, opaque=opaque)["version"]
        alpha = web_servers.pixels(web_servers.saved(client, about, version))[..., 3]
        np.testing.assert_array_equal(alpha, np.where(HOLE, 255 if opaque else 0, 200))


@pytest.mark.parametrize(
    ("options", "mask", "message"),
    [
        ({"feather": 2}, HOLE, "set dilate to 2 or more"),
        ({"dilate": 1001}, HOLE, "dilate is '1001'; needs a whole number of 0 to 1000"),
        ({"ensemble": 9}, HOLE, "ensemble is '9'"),
        ({"weights": "third"}, HOLE, "weights are 'third'; needs one of first, second"),
        ({"base": "x"}, HOLE, "base is 'x'"),
        ({}, ~HOLE & HOLE, "there is no hole"),
        ({}, HOLE | ~HOLE, "the mask is all hole"),
        ({}, HOLE[1:], "photo.png is 40x30 and the mask 40x29 at (0, 0); masks are not resized"),
        ({"x": 1, "y": 0}, HOLE, "the mask 40x30 at (1, 0)"),
        ({}, noise() > 128, "is a mask in colour"),
    ],
)
def test_what_cannot_be_filled_is_refused(client, options, mask, message):
    """A wrong option or mask is refused at once, with what was found and what is needed."""
    about = web_servers.open_photograph(client, SOURCES["png 8"])
    path = f"api/photographs/{about['id']}/fillings"
    answer = client.post(path, params=options, content=web_servers.png(mask * np.uint8(255)))
    assert answer.status_code == 422 and message in answer.json()["error"], answer.text
    assert client.post(path, params={"base": 5}, content=web_servers.png(HOLE * np.uint8(255))).status_code == 404
    assert "the mask is empty" in client.post(path).json()["error"]


def test_a_hole_that_grows_over_everything_fails(client):
    """What is found only when the filling runs is its error, in the command line's words."""
    about = web_servers.open_photograph(client, SOURCES["png 8"])
    filling = web_servers.ended(client, web_servers.start(client, about, HOLE, dilate=1000))
    assert filling["state"] == "failed" and filling["version"] is None
    assert filling["error"].startswith("photo.png: is all hole: nothing is left to fill it from")


def test_warnings_are_those_of_the_command_line(client):
    """An unusual area is a warning of the version, without names of flags."""
    about = web_servers.open_photograph(client, SOURCES["png 8"])
    version = web_servers.fill(client, about, ~HOLE)
    assert "of the photograph is hole (usual is 1% to 60%)" in version["warnings"][0]
    assert "--" not in version["warnings"][0] and version["area"] == pytest.approx((~HOLE).mean())
