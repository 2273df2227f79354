"""Who may open a VM, as `share show` says it; and why somebody may or may not open a URL. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from atoll.commands.render import facts, instant, table
from atoll.commands.view import share_word
from atoll.domain.account import Account, Published
from atoll.domain.sharing import (
    DEFAULT_PORT,
    EVERY_PORT,
    EVERYBODY,
    WHOLE,
    Grant,
    Level,
    Link,
    Opening,
    Who,
    is_plain,
    may_open,
)
from atoll.services.sharing import Shared

_HEAD = ("WHO", "LEVEL", "WHAT", "UNTIL", "OPENED", "NOTE")


def data(
    shared: Shared, url: str, link_url: Callable[[Link], str], opened: Mapping[str, float]
) -> dict[str, Any]:
    """The JSON of `share show`; `opened` says when which account (id) last was let in."""
    given = shared.grants
    return {
        "vm_name": shared.vm.label,
        "status": share_word(shared.vm),
        "port": shared.vm.port,
        "url": url,
        "users": [_user(shared, grant, opened) for grant in given if grant.kind is Who.PERSON],
        "links": [_link(link, link_url(link)) for link in shared.links],
        "teams": [_team(shared, grant) for grant in given if grant.kind is Who.TEAM],
        "public": [_what(grant) for grant in given if grant.kind is Who.PUBLIC],
        "requests": [
            {"email": one.email, "asked_at": instant(one.created_at), "message": one.message}
            for one in shared.asking
        ],
    }


def address(shared: Shared, url: str) -> str:
    """Its address alone, for people."""
    vm = shared.vm
    return facts((("url", url), ("port", str(vm.port)), ("share", share_word(vm))))


def text(
    shared: Shared, url: str, link_url: Callable[[Link], str], opened: Mapping[str, float]
) -> str:
    """The same for people."""
    vm = shared.vm
    rows = [
        ("you", "root", "everything", "", _opened_at(opened.get(vm.owner)), ""),
        *(_row(shared, grant, opened) for grant in shared.grants),
        *(
            (f"link {link.id}", "web", _place(link), _until(link), "", _uses(link, link_url(link)))
            for link in shared.links
        ),
        *((one.email, "", "", "", "", f"asks: {one.message}") for one in shared.asking),
    ]
    return table(_HEAD, rows, above=(*address(shared, url).split("\n"), ""))


def explained(
    published: Published,
    account: Account | None,
    who: str,
    *,
    url: str,
    port: int,
    path: str,
    now: float,
) -> dict[str, Any]:
    """Why somebody may or may not open a URL. `account` is theirs, None for strangers."""
    id_ = account.id if account else None
    is_open = may_open(published.openings, id_, port=port, path=path, now=now)
    because = _because(published, id_, port, path, now) if is_open else _why_not(account, who, path)
    shown = {"url": url, "port": port, "path": path, "allowed": is_open, "because": because}
    return {"who": who or "nobody signed in", **shown}


def told(explanation: dict[str, Any]) -> str:
    """The same in a sentence."""
    verb = "may open" if explanation["allowed"] else "may not open"
    return f"{explanation['who']} {verb} {explanation['url']}: {explanation['because']}"


def _because(published: Published, id_: str | None, port: int, path: str, now: float) -> str:
    covering = [
        one
        for one in published.openings
        if one.account in (EVERYBODY, id_) and one.covers(port=port, path=path, now=now)
    ]
    best = min(covering, key=lambda one: (one.account == EVERYBODY, one.port != EVERY_PORT))
    end = "" if best.until is None else f" until {instant(best.until)}"
    if best.account == EVERYBODY:
        return f"{_opened(best)} is public{end}"
    if best.port == EVERY_PORT:
        return f"they own the VM or have root access to it{end}"
    return f"{_opened(best)} is shared with them{end}"


def _why_not(account: Account | None, who: str, path: str) -> str:
    if not is_plain(path):
        return (
            "servers differ in how they read this path, so only a share of the whole port covers it"
        )
    if who and account is None:
        return "there is no account with this address yet"
    if account is None:
        return "it is not public"
    return "nothing that is shared with them covers it"


def _opened(one: Opening) -> str:
    return f"port {one.port}" + ("" if one.path == WHOLE else f" below {one.path}")


def _user(shared: Shared, grant: Grant, opened: Mapping[str, float]) -> dict[str, Any]:
    last = opened.get(shared.addresses.get(grant.who, ""))
    via = {"via": grant.link} if grant.link else {}
    return {
        "email": grant.who,
        "status": _status(shared, grant),
        "invited_at": instant(grant.created_at),
        "share_level": grant.level.value,
        **_what(grant),
        **via,
        **({} if last is None else {"last_opened_at": instant(last)}),
    }


def _team(shared: Shared, grant: Grant) -> dict[str, Any]:
    return {
        "team_id": grant.who,
        "team_name": shared.teams.get(grant.who, grant.who),
        "share_level": grant.level.value,
        **_what(grant),
    }


def _link(link: Link, url: str) -> dict[str, Any]:
    last = link.last_used_at
    return {
        "id": link.id,
        "token": url.rpartition("/")[2],
        "url": url,
        "created_at": instant(link.created_at),
        "use_count": link.use_count,
        "last_used_at": None if last is None else instant(last),
        **_what(link),
    }


def _what(one: Grant | Link) -> dict[str, Any]:
    """What it is for; of keys that are not there: the VM's own port, the whole site, for ever."""
    found: dict[str, Any] = {}
    if one.port != DEFAULT_PORT:
        found["port"] = one.port
    if one.path != WHOLE:
        found["path"] = one.path
    if one.expires_at is not None:
        found["expires_at"] = instant(one.expires_at)
    return found


def _row(shared: Shared, grant: Grant, opened: Mapping[str, float]) -> tuple[str, ...]:
    team = shared.teams.get(grant.who, grant.who)
    who = {Who.PUBLIC: "everybody", Who.TEAM: f"team {team}"}.get(grant.kind, grant.who)
    person = shared.addresses.get(grant.who, "") if grant.kind is Who.PERSON else ""
    last = _opened_at(opened.get(person) if person else None)
    notes = [_status(shared, grant)] if grant.kind is Who.PERSON else []
    if grant.link:
        notes.append(f"by {grant.link}")
    return (who, grant.level.value, _place(grant), _until(grant), last, ", ".join(notes))


def _status(shared: Shared, grant: Grant) -> str:
    return "active" if grant.who in shared.addresses else "pending"


def _opened_at(at: float | None) -> str:
    return "" if at is None else instant(at)


def _place(one: Grant | Link) -> str:
    if isinstance(one, Grant) and one.level is Level.ROOT:
        return "everything"
    port = "the web address" if one.port == DEFAULT_PORT else f"port {one.port}"
    return port if one.path == WHOLE else f"{port} below {one.path}"


def _until(one: Grant | Link) -> str:
    return "" if one.expires_at is None else instant(one.expires_at)


def _uses(link: Link, url: str) -> str:
    return f"used {link.use_count} times: {url}"


def listed(given: Iterable[Grant]) -> str:
    """What was taken, in a line."""
    return ", ".join(f"{_place(grant)} ({grant.level.value})" for grant in given)
