"""Passkeys against an authenticator in software: made, used, replayed, forged."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.base.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from atoll.services import passkeys as module
from atoll.services.passkeys import CHALLENGE_S, Passkeys
from atoll.store import passkeys as rows
from atoll.store.engine import Tx
from fakes.engine import FakeEngine
from framework.authenticator import Authenticator
from framework.cloud import Control, control

DOMAIN = "atoll.localhost"
ORIGIN = f"https://{DOMAIN}:8443"
SOURCE = "192.0.2.1"


@pytest.fixture(name="cloud")
async def _cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine) as made:
        yield made


@pytest.fixture(name="passkeys")
def _passkeys(cloud: Control) -> Passkeys:
    return cloud.cloud.passkeys


async def made(cloud: Control, name: str = "", **given: Any) -> Authenticator:
    """A passkey of ann's."""
    phone, keys, ann = (
        Authenticator(ORIGIN, DOMAIN, **given),
        cloud.cloud.passkeys,
        cloud.ann.account,
    )
    options, browser = await keys.offer(ann)
    await keys.add(ann, phone.made(options), browser=browser, name=name)
    return phone


async def test_made_listed_used_and_removed(cloud: Control, passkeys: Passkeys) -> None:
    assert (await cloud.run("passkey ls")).text == "No passkeys"
    phone = await made(cloud, "phone")
    (entry,) = (await cloud.data("passkey ls"))["passkeys"]
    assert entry == {"name": "phone", "since": "2027-01-15T08:00:00Z", "last_used": None}
    cloud.clock.time += 60
    options, browser = passkeys.question(source=SOURCE)
    assert (
        "allowCredentials" not in json.loads(options) or not json.loads(options)["allowCredentials"]
    )
    assert await passkeys.account(phone.used(options), browser=browser) == cloud.ann.account
    (entry,) = (await cloud.data("passkey ls"))["passkeys"]
    assert entry["last_used"] == "2027-01-15T08:01:00Z"
    assert (await cloud.data("passkey ls", cloud.bob))["passkeys"] == []
    with pytest.raises(NotFound):
        await cloud.run("passkey rm phone", cloud.bob)
    assert (await cloud.run("passkey rm phone")).text == "removed phone"
    options, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied, match="not good here"):
        await passkeys.account(phone.used(options), browser=browser)


async def test_what_is_asked_of_browsers(cloud: Control, passkeys: Passkeys) -> None:
    phone = await made(cloud)
    options = json.loads((await passkeys.offer(cloud.ann.account))[0])
    assert options["rp"]["id"] == DOMAIN
    assert options["authenticatorSelection"]["residentKey"] == "required"
    assert options["authenticatorSelection"]["userVerification"] == "preferred"
    assert [each["id"] for each in options["excludeCredentials"]]
    assert phone.user == cloud.ann.account.id.encode()
    assert len(options["challenge"]) == 43


async def test_a_challenge_works_once_in_time_and_for_its_browser(
    cloud: Control, passkeys: Passkeys
) -> None:
    phone = await made(cloud)
    options, browser = passkeys.question(source=SOURCE)
    answer = phone.used(options)
    with pytest.raises(Denied, match="begun elsewhere"):
        await passkeys.account(answer, browser="x" * 43)
    assert await passkeys.account(answer, browser=browser) == cloud.ann.account
    with pytest.raises(Denied, match="begun elsewhere"):
        await passkeys.account(answer, browser=browser)
    options, browser = passkeys.question(source=SOURCE)
    cloud.clock.time += CHALLENGE_S + 1
    with pytest.raises(Denied, match="took too long"):
        await passkeys.account(phone.used(options), browser=browser)
    first, _ = passkeys.question(source=SOURCE)
    _, other = passkeys.question(source=SOURCE)
    with pytest.raises(Denied, match="not good here"):
        await passkeys.account(phone.used(first), browser=other)


async def test_a_challenge_is_for_one_purpose_and_one_account(
    cloud: Control, passkeys: Passkeys
) -> None:
    phone = await made(cloud)
    options, browser = await passkeys.offer(cloud.ann.account)
    with pytest.raises(Denied, match="begun elsewhere"):
        await passkeys.account(phone.used(options), browser=browser)
    options, browser = await passkeys.offer(cloud.ann.account)
    new = Authenticator(ORIGIN, DOMAIN)
    with pytest.raises(Denied, match="begun elsewhere"):
        await passkeys.add(cloud.bob.account, new.made(options), browser=browser, name="")
    options, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied, match="begun elsewhere"):
        await passkeys.add(cloud.ann.account, "{}", browser=browser, name="")


async def test_a_counter_that_does_not_grow_is_a_copy(cloud: Control, passkeys: Passkeys) -> None:
    phone = await made(cloud, count=5)
    for count, is_good in ((6, True), (6, False), (3, False), (0, False), (7, True)):
        phone.count = count - 1
        options, browser = passkeys.question(source=SOURCE)
        answer = passkeys.account(phone.used(options), browser=browser)
        if is_good:
            assert await answer == cloud.ann.account
        else:
            with pytest.raises(Denied, match="not good here"):
                await answer


async def test_of_two_uses_at_the_same_moment_with_one_count_one_is_good(
    cloud: Control, passkeys: Passkeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has read the counter before the first one has written it."""
    phone = await made(cloud, count=5)
    async with cloud.store.read() as tx:
        (key,) = await rows.of(tx, cloud.ann.account.id)
        before = await rows.find(tx, key.id)

    async def find(tx: Tx, id_: str) -> object:
        return before

    monkeypatch.setattr(rows, "find", find)
    for is_good in (True, False):
        phone.count = 5
        options, browser = passkeys.question(source=SOURCE)
        answer = passkeys.account(phone.used(options), browser=browser)
        if is_good:
            assert await answer == cloud.ann.account
        else:
            with pytest.raises(Denied, match="not good here"):
                await answer


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": f"https://web.{DOMAIN}:8443"},  # a VM's page may ask for our passkeys
        {"origin": f"https://{DOMAIN}"},
        {"origin": f"https://{DOMAIN}:8444"},
        {"origin": f"http://{DOMAIN}:8443"},
        {"origin": "https://evil.example"},
        {"rp_id": f"web.{DOMAIN}"},
        {"rp_id": "localhost"},
        {"flags": 0},  # nobody was there
        {"user": b"acct-somebody"},
    ],
)
async def test_another_site_or_another_account_is_refused(
    cloud: Control, passkeys: Passkeys, wrong: dict[str, Any]
) -> None:
    phone = await made(cloud)
    for name, value in wrong.items():
        setattr(phone, name, value)
    options, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied, match="not good here"):
        await passkeys.account(phone.used(options), browser=browser)
    if "user" in wrong:
        return
    other = Authenticator(ORIGIN, DOMAIN)
    for name, value in wrong.items():
        setattr(other, name, value)
    options, browser = await passkeys.offer(cloud.ann.account)
    with pytest.raises(Denied, match="not good here"):
        await passkeys.add(cloud.ann.account, other.made(options), browser=browser, name="")


async def test_another_key_is_refused(cloud: Control, passkeys: Passkeys) -> None:
    phone = await made(cloud)
    forger = Authenticator(ORIGIN, DOMAIN, id=phone.id, user=phone.user)
    options, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied, match="not good here"):
        await passkeys.account(forger.used(options), browser=browser)


async def test_names_and_limits(
    cloud: Control, passkeys: Passkeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PASSKEYS", 3)
    for name in ("", "phone", ""):
        await made(cloud, name)
    names = [one["name"] for one in (await cloud.data("passkey ls"))["passkeys"]]
    assert sorted(names) == ["passkey-1", "passkey-2", "phone"]
    with pytest.raises(Exhausted):
        await made(cloud)
    await cloud.run("passkey rm passkey-2")
    for name, kind in (
        ("phone", Conflict),
        ("a b", Invalid),
        ("\x1b", Invalid),
        ("x" * 65, Invalid),
    ):
        with pytest.raises(kind):
            await made(cloud, name)
    await cloud.run("passkey rm passkey-1")
    phone, ann = Authenticator(ORIGIN, DOMAIN), cloud.ann.account
    options, browser = await passkeys.offer(ann)
    await passkeys.add(ann, phone.made(options), browser=browser, name="")
    await cloud.run("passkey rm phone")
    options, browser = await passkeys.offer(ann)
    with pytest.raises(Conflict, match="here already"):
        await passkeys.add(ann, phone.made(options), browser=browser, name="")


async def test_challenges_take_bounded_room(
    cloud: Control, passkeys: Passkeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHALLENGES", 10)
    for number in range(20):
        passkeys.question(source=f"203.0.113.{number}")
    assert len(passkeys._challenges) == 10
    for _ in range(30):
        passkeys.question(source=SOURCE)
    with pytest.raises(Exhausted):
        passkeys.question(source=SOURCE)
    passkeys.question(source="198.51.100.1")


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary().map(repr)
_FIELDS = st.sampled_from(
    ["id", "rawId", "type", "response", "clientDataJSON", "authenticatorData", "signature",
     "userHandle", "attestationObject", "transports", "x"]
)  # fmt: skip
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=8),
    max_leaves=20,
)


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
async def test_nonsense_is_refused_in_order(
    cloud: Control, passkeys: Passkeys, data: st.DataObject
) -> None:
    """Whatever a browser sends, also where one field of a good answer is something else."""
    phone, ann = Authenticator(ORIGIN, DOMAIN), cloud.ann.account
    options, browser = await passkeys.offer(ann)
    answer = json.loads(phone.made(options))
    if data.draw(st.booleans()):
        part = data.draw(st.sampled_from([answer, answer["response"]]))
        part[data.draw(st.sampled_from(sorted(part)))] = data.draw(_JSON)
    else:
        answer = data.draw(_JSON)
    text = json.dumps(answer) if data.draw(st.booleans()) else data.draw(st.text(max_size=50))
    cloud.clock.time += 60  # the limit of tries is another test's
    for asking in ("add", "account"):
        try:
            if asking == "add":
                await passkeys.add(ann, text, browser=browser, name="")
                await cloud.run("passkey rm passkey-1")
            else:
                await passkeys.account(text, browser=passkeys.question(source=SOURCE)[1])
        except Denied:
            pass


async def test_what_is_too_long_is_refused(cloud: Control, passkeys: Passkeys) -> None:
    _, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied):
        await passkeys.account('{"a":' * 20_000, browser=browser)
    _, browser = passkeys.question(source=SOURCE)
    with pytest.raises(Denied):
        await passkeys.account('{"a":' * 5_000, browser=browser)
