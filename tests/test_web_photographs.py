"""Tests of photographs on the server: opening, previews, masks, limits, and that nothing is left behind."""

import asyncio
import base64
import functools
import io
import os
import threading

import httpx2
import numpy as np
import PIL.Image
import pytest

import web_servers
from pconv_jax.reading import files
from pconv_jax.web import app, arrivals, photographs, saving, security

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 30, 40


@pytest.fixture(scope="module")
def client():
    with web_servers.client(web_servers.Network(), max_pixels=5000) as client:
        yield client


def noise(channels=3, dtype=np.uint8):
    """Returns noise, so that any pixel that changes is noticed."""
    return RNG.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def jpeg(orientation=None, **options):
    """Returns a JPEG of noise."""
    exif = PIL.Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    file = io.BytesIO()
    PIL.Image.fromarray(noise()).save(file, "JPEG", exif=exif.tobytes(), **options)
    return file.getvalue()


def test_a_photograph_is_described(client):
    """The page learns size, depth, alpha, what each format would lose, and the warnings of the command line."""
    rgba = noise(4, np.uint16)
    about = web_servers.open_photograph(client, web_servers.png(rgba), "C:\\x\\..\\Ä b\n.png")
    assert (about["name"], about["width"], about["height"], about["bits"]) == ("Ä b.png", WIDTH, HEIGHT, 16)
    assert about["alpha"] and about["transparent"] and about["format"] == about["default_format"] == "png"
    problems = {entry["format"]: entry["problem"] for entry in about["formats"]}
    assert problems["png"] is None and "16 bits per channel" in problems["webp"] and problems["jpeg"]
    turned = web_servers.open_photograph(client, jpeg(orientation=6), "turned.jpg")
    assert (turned["width"], turned["height"], turned["turned"]) == (HEIGHT, WIDTH, True)
    formats = {entry["format"]: entry for entry in turned["formats"]}
    assert "valid pixels change slightly" in formats["jpeg"]["warnings"][0] and turned["default_format"] == "png"
    assert formats["tiff"]["filename"] == "turned_filled.tif"
    listed = client.get("api/session").json()
    assert {entry["id"] for entry in listed["photographs"]} >= {about["id"], turned["id"]}
    assert listed["weights"][0] == {"id": "first", "name": "First", "description": "first network", "default": True}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_previews_have_eight_bits_and_the_size(client, channels, dtype):
    """Previews have the photograph's pixels in 8 bits, also of a rectangle; thumbnails are small."""
    array = noise(channels, dtype)
    about = web_servers.open_photograph(client, web_servers.png(array))
    path = f"api/photographs/{about['id']}"
    wanted = array if dtype == np.uint8 else (array >> 8).astype(np.uint8)
    answer = client.get(f"{path}/versions/0/preview")
    np.testing.assert_array_equal(web_servers.pixels(answer.content), wanted)
    assert answer.headers["content-type"] == "image/png" and "immutable" in answer.headers["cache-control"]
    part = client.get(f"{path}/versions/0/preview", params={"x": 3, "y": 5, "width": 7, "height": 11}).content
    np.testing.assert_array_equal(web_servers.pixels(part), wanted[5:16, 3:10])
    assert web_servers.pixels(client.get(f"{path}/thumbnail").content).shape == (HEIGHT, WIDTH, channels)
    assert client.get(f"{path}/versions/0/preview", params={"x": 34, "width": 7}).status_code == 422
    assert client.get(f"{path}/versions/0/preview", params={"x": "-1"}).status_code == 422
    assert client.get(f"{path}/versions/1/preview").status_code == 404


def test_thumbnails_are_small():
    """The longest side of a thumbnail has 160 pixels, and the other one pixel at least."""
    from pconv_jax.inpainting import photograph
    from pconv_jax.web import previews

    photo = photograph.Photograph(np.zeros((1, 4000, 3), np.uint8))
    assert web_servers.pixels(previews.thumbnail(photo)).shape == (1, 160, 3)


BAD = {
    b"": "is empty",
    b"GIF89a" + bytes(90): "is a GIF; needs JPEG, PNG, WebP, TIFF or BMP: convert it first",
    b"hello, world": "is not an image of a known format",
    b"\x89PNG\r\n\x1a\n" + bytes(50): "has a damaged header",
    web_servers.png(np.zeros((100, 100), np.uint8)): "is 100x100, more than 5000 pixels",
}


@pytest.mark.parametrize("encoded", BAD, ids=list(BAD.values()))
def test_bad_files_are_refused_and_removed(client, encoded):
    """What cannot be read is refused in the command line's words, and nothing of it stays."""
    before = sorted(os.listdir(client.folder))
    answer = client.post("api/photographs", params={"name": "bad.png"}, content=encoded)
    assert answer.status_code == 422 and BAD[encoded] in answer.json()["error"]
    assert answer.json()["error"].startswith("bad.png ")
    assert sorted(os.listdir(client.folder)) == before


def test_a_jpeg_that_lost_data_is_read_with_a_warning(client):
    """It is opened, as on the command line, and the page can say what is missing."""
    whole = jpeg()
    about = web_servers.open_photograph(client, whole[: len(whole) * 2 // 3] + b"\xff\xd9")
    assert len(about["warnings"]) == 1 and "damaged" in about["warnings"][0]


def test_too_long_bodies_are_refused(client, monkeypatch):
    """A body that claims or has too many bytes ends with 413, and nothing of it stays."""
    before = sorted(os.listdir(client.folder))
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    monkeypatch.setattr(app, "MAX_MASK_BYTES", 1000)
    identifier = web_servers.open_photograph(client, web_servers.png(np.zeros((9, 9), np.uint8)))["id"]
    for path in ("api/photographs", f"api/photographs/{identifier}/fillings", f"api/photographs/{identifier}/mask"):
        for content in (bytes(1001), (bytes(600) for _ in range(2))):
            answer = client.post(path, content=content)
            assert answer.status_code == 413 and "more than 1000 bytes" in answer.json()["error"]
    client.delete(f"api/photographs/{identifier}")
    assert sorted(os.listdir(client.folder)) == before


def test_a_hundred_uploads():
    """A hundred photographs are held and listed in order; closing them removes every file."""
    with web_servers.client(web_servers.Network()) as client:
        names = [f"{number}.png" for number in range(100)]
        made = [web_servers.open_photograph(client, web_servers.png(noise()), name) for name in names]
        assert [entry["name"] for entry in client.get("api/session").json()["photographs"]] == names
        assert len({entry["id"] for entry in made}) == len(os.listdir(client.folder)) == 100
        for entry in made:
            assert client.delete(f"api/photographs/{entry['id']}").status_code == 204
        assert not os.listdir(client.folder) and not client.get("api/session").json()["photographs"]
        assert client.get(f"api/photographs/{made[0]['id']}").status_code == 404
        assert (
            "closed, or the server was started again"
            in client.delete(f"api/photographs/{made[0]['id']}").json()["error"]
        )


def test_the_number_of_photographs_is_limited(monkeypatch):
    """Beyond the limit a photograph is refused, until another one is closed."""
    monkeypatch.setattr(photographs, "MOST", 1)
    with web_servers.client(web_servers.Network()) as client:
        first = web_servers.open_photograph(client, web_servers.png(noise()))
        answer = client.post("api/photographs", content=web_servers.png(noise()))
        assert answer.status_code == 429 and "close some first" in answer.json()["error"]
        client.delete(f"api/photographs/{first['id']}")
        web_servers.open_photograph(client, web_servers.png(noise()))


def test_an_upload_that_waits_for_another_delays_no_other_answer(client, monkeypatch):
    """While one photograph is decoded, an upload waits for its turn, and other requests are answered."""
    held, waiting, decoded = client.session.photographs, threading.Event(), threading.Event()
    new_path = held.new_path

    def decode():
        with held._lock:
            assert waiting.wait(60)
            decoded.wait(20)

    monkeypatch.setattr(held, "new_path", lambda: waiting.set() or new_path())
    upload = functools.partial(client.post, "api/photographs", content=web_servers.png(noise()))
    threads = [threading.Thread(target=call) for call in (decode, upload)]
    for thread in threads:
        thread.start()
    assert waiting.wait(60)
    assert client.get("main.js").status_code == 200 and threads[0].is_alive()
    decoded.set()
    for thread in threads:
        thread.join(60)


def test_a_client_that_goes_away_leaves_nothing(client):
    """When the connection ends within an upload, what has arrived is removed, and the server goes on."""
    before, held = sorted(os.listdir(client.folder)), client.session
    messages = [{"type": "http.request", "body": bytes(500), "more_body": True}, {"type": "http.disconnect"}]
    path = f"/{web_servers.TOKEN}/api/photographs"
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"name=a.png", "scheme": "http"}
    scope |= {"headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "root_path": "", "server": ("127.0.0.1", 1)}

    async def receive():
        return messages.pop(0)

    async def send(message):
        pass

    asyncio.run(security.Guard(app.create(held), web_servers.TOKEN, "127.0.0.1")(scope, receive, send))
    assert not messages and sorted(os.listdir(client.folder)) == before
    assert client.get("api/session").status_code == 200


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "../../etc/passwd": "passwd",
        "a/b\\c.jpg": "c.jpg",
        "": "photograph",
        "...": "photograph",
        "x\0\n\x1b[2J.png": "x[2J.png",
        "n" * 500 + ".jpeg": "n" * 120 + ".jpeg",
    }.items(),
)
def test_names_that_are_sent_become_harmless(name, wanted):
    """The last part of a path is kept, printable and short."""
    assert saving.safe_name(name) == wanted
    assert "/" not in saving.file_name(saving.safe_name(name), "png")


def test_masks_of_files(client):
    """Mask files are read as on the command line, and come back as white holes of the photograph's size."""
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[4:9, 6:20] = True
    about = web_servers.open_photograph(client, web_servers.png(noise()))
    path = f"api/photographs/{about['id']}/mask"

    def read(content, **options):
        return client.post(path, params=options, content=content)

    for polarity, content in {"white_hole": hole, "black_hole": ~hole}.items():
        for array in (content * np.uint8(255), content * np.uint16(65535), content.astype(np.uint8)):
            answer = read(web_servers.png(array), polarity=polarity).json()
            mask = web_servers.pixels(base64.b64decode(answer["mask"]))[..., 0]
            np.testing.assert_array_equal(mask, hole * 255)
            assert answer["area"] == pytest.approx(hole.mean()) and not answer["warnings"]
    grey = read(web_servers.png(np.where(hole, 255, 100).astype(np.uint8))).json()
    assert "neither black nor white" in grey["warnings"][0] and "the mask" in grey["warnings"][0]
    refused = read(web_servers.png(hole[:-1] * np.uint8(255)))
    assert refused.status_code == 422 and "masks are not resized" in refused.json()["error"]
    assert "needs black and white" in read(web_servers.png(noise())).json()["error"]
    assert "the mask is not an image" in read(b"nonsense").json()["error"]
    assert "polarity is grey" in read(b"", polarity="grey").json()["error"]
    assert "has no transparency" in read(b"", polarity="alpha").json()["error"]


def test_the_mask_of_transparency(client):
    """With polarity alpha, transparent pixels of the photograph are the hole."""
    array = noise(4)
    array[..., 3] = 255
    array[3:8, 5:15, 3] = 0
    about = web_servers.open_photograph(client, web_servers.png(array))
    answer = client.post(f"api/photographs/{about['id']}/mask", params={"polarity": "alpha"}).json()
    mask = web_servers.pixels(base64.b64decode(answer["mask"]))[..., 0]
    np.testing.assert_array_equal(mask, (array[..., 3] == 0) * 255)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٣", "9" * 30, "101"])
def test_numbers_of_queries(text):
    """Only whole numbers within their range are accepted."""
    from starlette import requests

    scope = {"type": "http", "query_string": httpx2.QueryParams({"n": text}).__str__().encode(), "headers": []}
    with pytest.raises(ValueError, match=r"^n is .* needs a whole number of 0 to 100$"):
        arrivals.number(requests.Request(scope), "n", 0, 100)
