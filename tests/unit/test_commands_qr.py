"""QR codes in half blocks: every module is where the library puts it."""

from __future__ import annotations

import pytest
import segno

from atoll.commands.qr import QUIET, Qr, drawn

INK = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}  # is it dark: above, below
URLS = [
    "https://web.atoll.localhost:8443/",
    f"https://atoll.localhost:8443/login/{'Ab3_' * 11}",
    f"https://{'w' * 52}.{'cloud' * 10}.example/?a=日本",
]


@pytest.mark.parametrize("url", URLS)
def test_the_drawing_is_the_librarys_matrix(url: str) -> None:
    code = drawn(url)
    modules = [[INK[block][half] for block in row] for row in code for half in (0, 1)]
    wanted = [list(row) for row in segno.make_qr(url, error="l").matrix]
    size = len(wanted)
    assert [row[QUIET : QUIET + size] for row in modules[QUIET : QUIET + size]] == wanted
    assert not any(map(any, modules[:QUIET])), "light above"
    assert not any(map(any, modules[QUIET + size : 2 * QUIET + size])), "light below"
    assert not any(any(row[:QUIET] + row[QUIET + size :]) for row in modules[: 2 * QUIET + size])
    assert len({len(row) for row in code}) == 1


def test_a_sign_in_link_fits_a_terminal_of_24_rows() -> None:
    assert len(drawn(URLS[1])) <= 22


def test_text_width_and_colours() -> None:
    qr = Qr("above", URLS[0])
    columns = len(drawn(URLS[0])[0])
    assert qr.splitlines() == ["above", *drawn(URLS[0])]
    assert qr.fitted(columns) == qr
    assert qr.fitted(columns - 1).splitlines() == [
        "above", f"The QR code needs {columns} columns; this terminal has {columns - 1}"]  # fmt: skip
    first, *rows = qr.painted().splitlines()
    assert first == "above"
    assert rows == [f"\x1b[97;40m{row}\x1b[0m" for row in drawn(URLS[0])]
