"""Files from npm: only the declared archive is opened, only named files come out of it."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atoll.base.errors import Invalid, Unavailable
from atoll.doors.web.assets import for_tests, vendored
from atoll.host_setup.web_files import archive
from atoll.host_setup.web_files.declared import FOR_PAGES, FOR_TESTS, Package
from atoll.host_setup.web_files.install import install, is_installed
from atoll.host_setup.web_files.registry import Registry, address

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
    return info, data


def packed(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def integrity(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


GOOD = packed(
    member("package/package.json", b"{}"),
    member("package/dist/tide.js", b"export const tide = 1\n"),
    member("package/LICENSE", b"anything goes\n"),
    member("../../tide.js", b"elsewhere"),
)
TIDE = Package(
    name="@isle/tide",
    version="1.2.3",
    integrity=integrity(GOOD),
    licence="MIT",
    files={"dist/tide.js": "tide.js", "LICENSE": "tide.LICENSE.txt"},
)


class Shelf(ThreadingHTTPServer):
    """A registry; `bodies` by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.bodies: dict[str, bytes] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Shelf)
        self.server.asked.append(self.path)
        body = self.server.bodies.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_args: object) -> None:
        """Not into the tests' output."""


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf() as server:
        server.bodies["/@isle/tide/-/tide-1.2.3.tgz"] = GOOD
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def quiet(_text: str) -> None:
    """No progress."""


def test_an_archive_is_fetched_once_and_its_files_installed(shelf: Shelf, tmp_path: Path) -> None:
    registry = Registry(url=shelf.url, cache=tmp_path / "cache/npm")
    said: list[str] = []
    folder = tmp_path / "share/web"
    assert install(folder, [TIDE], registry, said.append)
    assert said == ["@isle/tide@1.2.3"]
    assert (folder / "tide.js").read_bytes() == b"export const tide = 1\n"
    names = {path.name for path in folder.iterdir()}
    assert names == {"tide.js", "tide.LICENSE.txt", "installed.json"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    assert not install(folder, [TIDE], registry, said.append)

    (folder / "tide.js").write_text("changed by hand")
    assert install(folder, [TIDE], registry, quiet), "what was changed is put right"
    assert is_installed(folder, [TIDE])
    assert shelf.asked == ["/@isle/tide/-/tide-1.2.3.tgz"], "the second time from the cache"
    assert [path.name for path in folder.parent.iterdir()] == ["web"]


def test_a_damaged_cache_is_not_believed_and_none_is_needed(shelf: Shelf, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    registry = Registry(url=shelf.url, cache=cache)
    assert registry.archive(TIDE) == GOOD
    (kept,) = cache.iterdir()
    kept.write_bytes(GOOD[:-1])
    assert registry.archive(TIDE) == GOOD
    (tmp_path / "file").touch()
    assert Registry(url=shelf.url, cache=tmp_path / "file" / "no").archive(TIDE) == GOOD


def test_another_archive_under_that_name_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    registry = Registry(url=shelf.url, cache=tmp_path / "cache")
    folder = tmp_path / "web"
    install(folder, [TIDE], registry, quiet)
    newer = replace(TIDE, version="1.2.4")
    shelf.bodies["/@isle/tide/-/tide-1.2.4.tgz"] = packed(member("package/dist/tide.js", b"evil"))
    newer = replace(newer, integrity=integrity(b"the declared one"))
    with pytest.raises(Unavailable, match=r"@isle/tide@1\.2\.4 that are not that package"):
        install(folder, [newer], registry, quiet)
    assert is_installed(folder, [TIDE]), "the old files are untouched"


def test_a_registry_that_does_not_answer_is_named_with_a_way_out(tmp_path: Path) -> None:
    with Shelf() as gone:
        url = gone.url
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+/@isle/tide.*refused") as caught:
        Registry(url=url, cache=tmp_path).archive(TIDE)
    assert "npm_config_registry=" in caught.value.hint


def test_a_registry_without_the_package_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="answers 404"):
        Registry(url=shelf.url, cache=tmp_path).archive(replace(TIDE, version="9.9.9"))


def test_a_body_without_an_end_is_cut_off(shelf: Shelf, tmp_path: Path) -> None:
    shelf.bodies["/@isle/tide/-/tide-1.2.3.tgz"] = b"x" * (archive.ARCHIVE_BYTES + 1)
    with pytest.raises(Unavailable, match="sends over"):
        Registry(url=shelf.url, cache=tmp_path).archive(TIDE)


HOSTILE = {
    "a link": (member("package/dist/tide.js", kind=tarfile.SYMTYPE), "is not a plain file"),
    "a device": (member("package/dist/tide.js", kind=tarfile.CHRTYPE), "is not a plain file"),
    "too large": (member("package/dist/tide.js", b"x" * (archive.FILE_BYTES + 1)), "are allowed"),
    "elsewhere": (member("package/../dist/tide.js", b"x"), "it has no LICENSE, dist/tide.js"),
    "not below": (member("dist/tide.js", b"x"), "it has no LICENSE, dist/tide.js"),
}


@pytest.mark.parametrize(("hostile", "why"), HOSTILE.values(), ids=list(HOSTILE))
def test_nothing_odd_is_unpacked(hostile: Member, why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        archive.unpack(packed(hostile), TIDE)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", GOOD[:60], GOOD[: len(GOOD) // 2]], ids=len)
def test_what_is_no_archive_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(Unavailable, match="cannot be used"):
        archive.unpack(data, TIDE)


def test_a_weaker_hash_is_no_integrity() -> None:
    assert archive.matches(GOOD, integrity(GOOD))
    sha1 = base64.b64encode(hashlib.sha1(GOOD).digest()).decode()
    assert not archive.matches(GOOD, f"sha1-{sha1}")
    assert not archive.matches(GOOD, "")


def test_the_registry_is_npms_unless_its_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    assert address() == "https://registry.npmjs.org/"
    monkeypatch.setenv("npm_config_registry", "http://mirror.isle:4873/npm")
    assert address() == "http://mirror.isle:4873/npm/"
    for wrong in ("file:///etc", "https://", "https://ann:secret@mirror.isle/"):
        monkeypatch.setenv("npm_config_registry", wrong)
        with pytest.raises(Invalid, match="not a plain") as caught:
            address()
        assert "secret" not in str(caught.value)


def test_every_package_brings_its_licence_and_names_are_used_once() -> None:
    packages = [*FOR_PAGES, *FOR_TESTS]
    names = [name for package in packages for name in package.files.values()]
    assert len(names) == len(set(names))
    assert all(any("LICENSE" in path for path in package.files) for package in packages)
    assert all(archive.matches(b"", package.integrity) is False for package in packages)


def test_this_environment_has_what_is_declared() -> None:
    assert is_installed(vendored(), FOR_PAGES), "run: make dev"
    assert is_installed(for_tests(), FOR_TESTS), "run: make dev"
