"""Files of the page: by content hash, packed, for ever; nothing else is there."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from atoll.base.errors import Internal, Unavailable
from atoll.doors.web.assets import Assets, accepts_gzip, vendored

SCRIPT = b"export const tide = 1;\n" * 40


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    (ours / "tide.js").write_bytes(SCRIPT)
    (ours / "dot.png").write_bytes(b"\x89PNG")
    (theirs / "isle.css").write_text("body{}")
    (theirs / "installed.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("not a file of the page")
    return Assets([ours, theirs])


def client(assets: Assets) -> httpx2.AsyncClient:
    app = Starlette(routes=assets.routes())
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://isle")


async def test_a_name_is_a_url_that_holds_the_contents_hash(assets: Assets) -> None:
    url = assets.url("tide.js")
    assert url == f"/static/tide.{hashlib.sha256(SCRIPT).hexdigest()[:16]}.js"
    async with client(assets) as http:
        got = await http.get(url, headers={"accept-encoding": "identity"})
        assert got.content == SCRIPT
        assert got.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert got.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "content-encoding" not in got.headers
        css = await http.get(assets.url("isle.css"))
        assert css.headers["content-type"] == "text/css; charset=utf-8"
        png = await http.get(assets.url("dot.png"))
        assert (png.headers["content-type"], png.content) == ("image/png", b"\x89PNG")


async def test_who_accepts_gzip_gets_it(assets: Assets) -> None:
    async with client(assets) as http:
        got = await http.get(assets.url("tide.js"), headers={"accept-encoding": "br, gzip"})
        assert got.headers["content-encoding"] == "gzip"
        assert got.headers["vary"] == "accept-encoding"
        assert int(got.headers["content-length"]) == len(gzip.compress(SCRIPT, 9)) < len(SCRIPT)
        assert got.content == SCRIPT
        head = await http.head(assets.url("tide.js"))
        assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("br;q=1, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("br, gzip; q=0.000", False),
        ("notgzip", False),
    ],
)
def test_what_a_client_accepts(header: str, accepts: bool) -> None:
    assert accepts_gzip(header) is accepts


@pytest.mark.parametrize(
    "path",
    [
        "/static/tide.js",
        "/static/tide.0000000000000000.js",
        "/static/installed.json",
        "/static/../secret.txt",
        "/static/%2e%2e%2fsecret.txt",
        "/static/",
        "/static/a/b.js",
    ],
)
async def test_no_other_name_is_there(assets: Assets, path: str) -> None:
    async with client(assets) as http:
        assert (await http.get(path)).status_code == 404


def test_a_page_that_names_a_missing_file_is_a_defect(assets: Assets) -> None:
    with pytest.raises(Internal, match=r"no file gone\.js"):
        assets.url("gone.js")


def test_one_name_in_two_folders_is_a_defect(tmp_path: Path) -> None:
    (tmp_path / "tide.js").touch()
    with pytest.raises(Internal, match=r"two files .* tide\.js"):
        Assets([tmp_path, tmp_path])


def test_a_folder_that_is_missing_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="files of the web page are missing") as caught:
        Assets([tmp_path / "gone"])
    assert "make up" in caught.value.hint


def test_what_came_from_npm_is_served() -> None:
    assets = Assets([vendored()])
    for name in ("htmx.js", "sse.js", "xterm.js", "xterm.css", "xterm-fit.js"):
        assert assets.url(name)
    assert sum(len(assets.asset(name).packed) for name in ("xterm.js", "xterm.css")) < 95_000
