"""A long text on a screen: which rows are seen, also after a search or another size."""

from __future__ import annotations

from atoll.commands.table import Table
from atoll.doors.ssh.draw import Size
from atoll.doors.ssh.pages import Pages, rows_of

TEXT = "\n".join(f"line {n} " + "x" * (n % 30) for n in range(50))


def test_rows() -> None:
    assert [row.text for row in rows_of("abcdef\n\n日本\ta", 4, colour=True)] == [
        "abcd", "ef", "", "日本", "    ", "  a"]  # fmt: skip
    assert [row.line for row in rows_of("abcdef\n\nx", 4, colour=True)] == [0, 0, 1, 2]
    (row,) = rows_of("\x1b[31m", 80, colour=True)
    assert row.sent == "\\x1b[31m"


def test_a_table_is_cut_and_painted() -> None:
    table = Table(("NAME", "STATUS", "COMMENT"), [("web", "running", "x" * 40)])
    rows = rows_of(table, 24, colour=True)
    assert [row.text for row in rows] == ["NAME  STATUS   COMMENT", "web   running  xxxxxxxx…"]
    assert rows[1].sent == "web   \x1b[32mrunning\x1b[0m  xxxxxxxx…"
    assert rows_of(table, 24, colour=False)[1].sent == rows[1].text


def test_lines_around_a_table_go_on_in_the_next_row() -> None:
    table = Table(("NAME", "STATUS"), [("web", "running")], above=["x" * 20], below=[""])
    rows = rows_of(table, 14, colour=True)
    assert [row.text for row in rows] == [
        "x" * 14, "x" * 6, "NAME  STATUS", "web   running", ""]  # fmt: skip
    assert [row.line for row in rows] == [0, 0, 1, 2, 3]


def test_steps_stop_at_the_ends() -> None:
    pages = Pages(TEXT, Size(80, 11), colour=False)
    assert (pages.where, len(pages.seen)) == ("1-10 of 50", 10)
    assert not pages.step(-1)
    assert pages.step(10)
    assert pages.where == "11-20 of 50"
    assert pages.go(pages.last)
    assert pages.where == "41-50 of 50"
    assert not pages.step(1)


def test_a_search_goes_on_both_ways() -> None:
    pages = Pages(TEXT, Size(80, 11), colour=False)
    assert pages.find("LINE 2")
    assert pages.seen[0].startswith("line 2 ")
    assert pages.find("")
    assert pages.seen[0].startswith("line 20")
    assert pages.find("", down=False)
    assert pages.seen[0].startswith("line 2 ")
    assert not pages.find("nothing")
    assert pages.seen[0].startswith("line 2 ")


def test_the_line_at_the_top_stays_when_the_size_changes() -> None:
    pages = Pages(TEXT, Size(80, 11), colour=False)
    pages.go(28)
    for size in (Size(12, 11), Size(200, 20), Size(20, 5)):
        pages.resize(size)
        assert any(row.startswith("line 28") for row in pages.seen[:9])
    assert not pages.is_one
    pages.resize(Size(80, 51))
    assert pages.is_one
