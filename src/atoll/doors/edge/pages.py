"""What the edge says when it does not pass a request on: one answer as a page and as JSON. Pure.

Each answer names what failed and what to type next. The texts are HAProxy log-format strings:
`{host}` and the like become `%[var(...)]`, and the rules have checked those values against the
letters of a host name before any page is shown.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass

_VARIABLES = {
    "host": "%[var(txn.host)]",
    "vm": "%[var(txn.name),field(1,.)]",
    "port": "%[var(txn.inner)]",
}
_SLOT = re.compile("|".join(re.escape("{" + name + "}") for name in _VARIABLES))
_STYLE = (
    "body{font:17px/1.5 system-ui,sans-serif;max-width:36em;margin:12vh auto;padding:0 1.5em;"
    "color:#123;background:#fbfaf6}code{background:#eceade;padding:.15em .35em;border-radius:4px}"
    "h1{font-size:1.5em}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One refusal. `hint` is what to type, with `{ssh}` for the command that reaches the lobby."""

    name: str
    status: int
    code: str
    title: str
    text: str
    hint: str = ""


ANSWERS = (
    Answer(
        name="bad-host",
        status=400,
        code="invalid",
        title="This request names no host",
        text="The Host header is missing, repeated or not a host name.",
    ),
    Answer(
        name="elsewhere",
        status=421,
        code="not-found",
        title="Not served here",
        text="{host} is not a name of this cloud.",
        hint="{ssh} ls",
    ),
    Answer(
        name="method",
        status=405,
        code="invalid",
        title="CONNECT is not supported",
        text="This is a web server, not a proxy.",
    ),
    Answer(
        name="sign-in",
        status=401,
        code="unauthenticated",
        title="Sign in first",
        text="{host} is private, and nobody is signed in.",
        hint="{ssh} browser",
    ),
    Answer(
        name="bad-token",
        status=401,
        code="unauthenticated",
        title="This token is not good here",
        text="The token is unknown, has ended, or was not made for {host}.",
        hint="{ssh} ssh-key generate-api-key --vm {vm}",
    ),
    Answer(
        name="repeated",
        status=400,
        code="invalid",
        title="Authorization is given twice",
        text="The Authorization header stands in this request more than once.",
    ),
    Answer(
        name="no-access",
        status=403,
        code="denied",
        title="No access",
        text="There is no VM at {host}, or it is not shared with you.",
        hint="{ssh} ls",
    ),
    Answer(
        name="origin",
        status=403,
        code="denied",
        title="Refused: sent by another site",
        text="A page of another host tried to act at {host} in your name.",
    ),
    Answer(
        name="too-many",
        status=429,
        code="exhausted",
        title="Too many requests",
        text="Your address sends more requests than the edge takes. Wait ten seconds.",
    ),
    Answer(
        name="not-running",
        status=503,
        code="not-running",
        title="{vm} is not running",
        text="The VM {vm} is paused or stopped.",
        hint="{ssh} resume {vm}",
    ),
    Answer(
        name="no-listener",
        status=503,
        code="no-listener",
        title="Nothing listens on port {port}",
        text="The VM {vm} runs, but no server answers on its port {port}. Start one that listens on"
        " 0.0.0.0, or name the port it does use.",
        hint="{ssh} share port {vm} 8000",
    ),
    Answer(
        name="broken",
        status=502,
        code="unavailable",
        title="The answer broke off",
        text="The server on port {port} of {vm} did not send a complete HTTP answer.",
        hint="{ssh} ssh {vm} journalctl --since -5min",
    ),
    Answer(
        name="slow",
        status=504,
        code="unavailable",
        title="No answer",
        text="The server on port {port} of {vm} took the request and never answered.",
    ),
    Answer(
        name="control-away",
        status=503,
        code="unavailable",
        title="The control plane is away",
        text="Sign-in and commands are back in a moment; your VMs keep running.",
        hint="atoll doctor",
    ),
)


def render(answer: Answer, *, ssh: str) -> tuple[str, str]:
    """The page and the JSON body, both ending in a newline, as log-format text."""
    hint = answer.hint.replace("{ssh}", ssh)
    advice = f"<p>Try: <code>{html.escape(hint)}</code></p>" if hint else ""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(answer.title)}'
        f"</title><style>{_STYLE}</style><h1>{html.escape(answer.title)}</h1>"
        f"<p>{html.escape(answer.text)}</p>{advice}</html>\n"
    )
    body = {"code": answer.code, "error": answer.text}
    if hint:
        body["hint"] = f"Try: {hint}"
    return _log_format(page), _log_format(json.dumps(body) + "\n")


def _log_format(text: str) -> str:
    """Escape for HAProxy's log-format, then put the variables in."""
    return _SLOT.sub(lambda slot: _VARIABLES[slot[0][1:-1]], text.replace("%", "%%"))
