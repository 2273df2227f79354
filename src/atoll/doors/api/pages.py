"""The few HTML pages of control. No inline script or style; every value is escaped here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import HTMLResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One VM in the list."""

    name: str
    url: str
    is_running: bool
    is_public: bool


def message(title: str, text: str, *, hint: str = "", status: int = 200) -> HTMLResponse:
    """A page that says one thing and what to type next."""
    advice = f"<p>Try: <code>{html.escape(hint)}</code></p>" if hint else ""
    return _page(title, f"<p>{html.escape(text)}</p>{advice}", status=status)


def confirm(action: str) -> HTMLResponse:
    """A form that sends itself: the page behind a sign-in link."""
    form = (
        f'<form method="post" action="{html.escape(action)}"><button>Sign in</button></form>'
        '<script src="/static/go.js" defer></script>'
    )
    return _page("Sign in", form)


def listing(email: str, rows: Sequence[Row], *, ssh: str) -> HTMLResponse:
    """The VMs somebody may open."""
    body = f"<p>Signed in as {html.escape(email)}.</p>"
    if rows:
        body += "<table><tr><th>VM<th>State<th>Web</tr>"
        body += "".join(_row(row) for row in rows)
        body += "</table>"
    else:
        body += f"<p>No VM yet. Try: <code>{html.escape(ssh)} new</code></p>"
    body += '<form method="post" action="/logout"><p><button>Sign out</button></p></form>'
    return _page("Your VMs", body)


def _row(row: Row) -> str:
    state = "running" if row.is_running else "not running"
    visibility = "public" if row.is_public else "private"
    url = html.escape(row.url)
    return f'<tr><td><a href="{url}">{html.escape(row.name)}</a><td>{state}<td>{visibility}</tr>'


def _page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)} · Atoll</title>"
        f'<link rel="stylesheet" href="/static/atoll.css"><h1>{html.escape(title)}</h1>'
        f"{body}</html>\n",
        status_code=status,
    )
