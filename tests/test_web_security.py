"""Tests of who may use the server of the page: nobody but the page that it serves itself."""

import os
import pathlib

import pytest

import web_servers
from pconv_jax.web import app, security

OWN = "http://127.0.0.1"


@pytest.fixture(scope="module")
def client():
    with web_servers.client(web_servers.Network()) as client:
        yield client


def test_the_page_and_its_files_are_served(client):
    """The page and its modules come from the package, with types that browsers accept."""
    assert client.get("").headers["content-type"].startswith("text/html")
    assert client.get("main.js").headers["content-type"].startswith("text/javascript")
    bare = client.get(f"{OWN}/{web_servers.TOKEN}", follow_redirects=False)
    assert bare.status_code == 307 and bare.headers["location"] == f"/{web_servers.TOKEN}/"


@pytest.mark.parametrize("path", ["api/session", "", "main.js"])
@pytest.mark.parametrize("token", ["", "x" * 43, "t" * 42, "t" * 44, "T" * 43, "té", "%00"])
def test_a_wrong_token_is_refused(client, path, token):
    """Without the token neither the interface nor the page is there; the answer says what to do."""
    answer = client.get(f"{OWN}/{token}/{path}")
    assert answer.status_code == 403 and "open the address that the terminal shows" in answer.json()["error"]
    assert client.get(f"{OWN}/").text.startswith("the address lacks the right token")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8733", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
def test_another_host_is_refused(client, host):
    """With DNS rebinding, a page of another name reaches the server, but under its own name."""
    answer = client.get("api/session", headers={"Host": host})
    assert answer.status_code == 403 and "which is not this server's" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:8733", "localhost", "LOCALHOST:9000", "[::1]:8733"])
def test_names_of_this_machine_are_accepted(client, host):
    """The port may differ, so that the page can be reached through an SSH tunnel."""
    assert client.get("api/session", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_remote_hosts_are_addresses_or_the_own_name():
    """A server for other machines answers to every address, and still to no other name."""
    with web_servers.client(web_servers.Network(), host="0.0.0.0") as client:
        for host, status in {"192.168.0.7:80": 200, "[fe80::1]": 200, "evil.example": 403, "localhost": 200}.items():
            assert client.get("api/session", headers={"Host": host}).status_code == status
    assert [security.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1")] == [True] * 4
    assert not any(security.is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "https://127.0.0.1", ""])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "api/photographs"), ("GET", "api/session"), ("DELETE", "api/fillings/1")]
)
def test_another_origin_is_refused(client, method, path, origin):
    """A page of another origin cannot use the server, even if it knows the token."""
    answer = client.request(method, path, headers={"Origin": origin})
    assert answer.status_code == 403 and "only the server's own page may send it" in answer.json()["error"]


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_requests_of_other_sites_are_refused(client, site, status):
    """Browsers mark requests that another page causes, such as those of its images, which have no origin."""
    assert client.get("api/session", headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize("path", ["", "api/session", "api/nothing", "main.js", f"{OWN}/"])
def test_every_answer_has_the_headers(client, path):
    """Nothing can be loaded from elsewhere, framed, or kept by the browser; refusals are no exception."""
    headers = client.get(path).headers
    for name, value in security.HEADERS.items():
        assert headers[name] == value
    assert headers["cache-control"] == "no-store" and "access-control-allow-origin" not in headers
    assert "http" not in headers["content-security-policy"] and "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "../app.py",
        "%2e%2e/app.py",
        "..%2fapp.py",
        "x/../../app.py",
        "%2e%2e%5capp.py",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "%00",
    ],
)
def test_paths_do_not_leave_the_page(client, path):
    """Only files of the page are served, however a path is written."""
    assert os.path.exists(os.path.join(app.PAGE, "..", "app.py"))
    answer = client.get(f"{OWN}/{web_servers.TOKEN}/{path}")
    assert answer.status_code in (403, 404) and "error" in answer.json()


def test_links_out_of_the_page_are_not_followed(client, tmp_path, monkeypatch):
    """Identifiers of photographs are looked up and never become paths."""
    for identifier in ("..", "%2e%2e%2fsecret", "....//", "a" * 5000):
        for path in (f"api/photographs/{identifier}", f"api/photographs/{identifier}/versions/0/file"):
            assert client.get(path).status_code in (404, 403)
    assert client.get("api/photographs/x/versions/../../../file").status_code == 404


def test_other_methods_are_refused(client):
    """A route takes the methods that it is for."""
    assert client.put("api/session").status_code == client.delete("api/session").status_code == 405
    assert client.post("").status_code == 405


def test_nothing_outside_is_named_in_the_page():
    """No file of the page names another machine: all that it loads is in the package."""
    files = [path for path in pathlib.Path(app.PAGE).rglob("*") if path.suffix in (".html", ".css", ".js", ".svg")]
    assert files
    for path in files:
        text = path.read_text().replace("http://www.w3.org/", "")  # Names of XML, which nobody loads.
        assert "http://" not in text and "https://" not in text and 'src="//' not in text, path
