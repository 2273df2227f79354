"""The pages: one per verb and error code, found by what one would type; the agents' page works."""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import atoll
from atoll.base.errors import AtollError, NotFound, from_wire
from atoll.commands import library as library_module
from atoll.commands.addresses import Addresses
from atoll.commands.error_pages import CODES, ERROR_PAGES
from atoll.commands.library import Library, slug_of
from atoll.commands.parse import parse
from atoll.commands.skill import skill
from atoll.commands.verbs import REGISTRY
from atoll.config import Config, Https, Ssh
from fakes.engine import FakeEngine
from framework.cloud import Control, control

CLOUD = Addresses(Config(ssh=Ssh(port=22, host="cloud.example"), https=Https(domain="ex.io")))
LIBRARY = Library(registry=REGISTRY, addresses=CLOUD)
SKILL_TOKENS, BYTES_PER_TOKEN = 1500, 3.5


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Control]:
    engine = FakeEngine(tmp_path / "engine.sock")
    async with engine.serving(), control(tmp_path / "control", engine, loops=True) as made:
        yield made


def kinds(kind: type[AtollError] = AtollError) -> Iterator[type[AtollError]]:
    """Every error class of ours."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("atoll."):
            yield child
            yield from kinds(child)


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    for module in pkgutil.walk_packages(atoll.__path__, "atoll."):
        if module.name != "atoll.__main__" and "migrations" not in module.name:
            importlib.import_module(module.name)
    codes = {kind.code for kind in kinds()} | {AtollError.code}
    assert ERROR_PAGES.keys() == codes >= CODES.keys()
    for code in codes:
        page = LIBRARY.get(f"error-{code}")
        assert page is not None
        assert page.text.split("\n", 2)[2] in library_module.errors()
        said = CODES.get(code) or type(from_wire({"code": code}))  # as control hears of it
        assert f"Exit code {said.exit};" in page.text
        assert f"`code` is `{said.code}`" in page.text
        assert ("A command shows it as `internal`" in page.text) == (code not in CODES)
    assert all(kind.code == code for code, kind in CODES.items())


def test_every_verb_has_a_page() -> None:
    for command in REGISTRY:
        page = LIBRARY.get(slug_of(command))
        assert page is not None
        assert page.text.startswith(f"# {command.name}\n\n{command.help}\n")
        assert all(example in page.text for example in command.examples)
        assert all(f"| `{key}` |" in page.text for key in command.result)
        assert ("`--dry-run`" in page.text) >= command.mutates


def test_every_page_is_in_every_list() -> None:
    whole, index, llms = LIBRARY.whole(), LIBRARY.index(), LIBRARY.llms_txt()
    slugs = [page.slug for page in LIBRARY]
    assert len(slugs) == len(set(slugs))
    for page in LIBRARY:
        assert re.fullmatch(r"[a-z][a-z-]*", page.slug)
        assert page.summary
        assert len(page.summary) < 160
        assert not page.text.endswith("\n")
        assert page.text in whole
        assert f"\n- `{page.slug}`: {page.summary}" in index
        assert f"- [{page.title}](https://ex.io:8443/docs/{page.slug}.md): {page.summary}" in llms
    assert llms.startswith("# Atoll\n\n> ")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("", "# Pages"),
        ("new", "# new"),
        ("share port", "# share port"),
        ("share-port", "# share port"),
        ("?", "# help"),
        ("skill", "---\nname: atoll"),
        ("SKILL.md", "---\nname: atoll"),
        ("language", "# The command line"),
        ("errors", "# Errors"),
        ("error-not-found", "# Error not-found"),
        ("error not found", "# Error not-found"),
        ("not-found", "# Error not-found"),
        ("unknown-command", "# Error unknown-command"),
        ("share", "# share show"),
    ],
)
def test_a_page_is_found_by_what_one_types(words: str, start: str) -> None:
    assert LIBRARY.find(words.split()).startswith(f"{start}\n")


def test_a_family_is_all_of_its_verbs() -> None:
    text = LIBRARY.find(["share"])
    for verb in ("show", "port", "set-public", "set-private"):
        assert f"# share {verb}\n" in text
    assert LIBRARY.find(["all"]) == LIBRARY.whole()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nwe", "no page 'nwe'. Did you mean doc new?"),
        ("../etc/passwd", "no page '../etc/passwd'. Try: doc"),
        ("new web", "no page 'new-web'. Did you mean doc new?"),
        ("x" * 10_000, f"no page '{'x' * 60}'. Try: doc"),
    ],
)
def test_a_page_that_is_not_there(words: str, said: str) -> None:
    with pytest.raises(NotFound) as caught:
        LIBRARY.find(words.split())
    assert str(caught.value) == said


# --- the agents' page ---


def blocks(text: str) -> list[str]:
    """Lines of the `sh` blocks."""
    return [
        line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.split("\n")
        if line
    ]  # fmt: skip


def spans(text: str) -> list[str]:
    """What stands between backticks in the prose."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]


def as_lobby_gets_it(line: str, addresses: Addresses) -> str:
    """What is left of an ssh line once the local shell and ssh have read it."""
    words = shlex.split(line)
    scp = addresses.scp.split()
    if words[: len(scp)] == scp:  # reaches the VM's own sshd, which is asked for here
        assert words[-1] == f"{addresses.ssh_dest('web')}:"
        return "ssh web scp"
    for name in (addresses.lobby_command, addresses.ssh_command("web")):
        head = name.split()
        if words[: len(head)] == head:
            rest = " ".join(words[len(head) :])
            assert rest, line
            is_inside = name != addresses.lobby_command
            return f"ssh web {shlex.quote(rest)}" if is_inside else rest
    raise AssertionError(f"not an ssh line of this cloud: {line}")


def test_it_is_short_enough_whatever_the_host_is_called() -> None:
    for addresses in (CLOUD, Addresses(Config())):
        assert len(skill(addresses).encode()) / BYTES_PER_TOKEN <= SKILL_TOKENS


async def test_every_command_in_it_works_in_this_order(cloud: Control) -> None:
    addresses = Addresses(cloud.cloud.config)
    text = skill(addresses)
    lines = blocks(text)
    assert len(lines) > 20
    ran = set()
    for line in lines:
        words = as_lobby_gets_it(line, addresses)
        reply = await cloud.run(words)
        assert reply.exit == 0, line
        command = parse(REGISTRY, words).command
        ran.add(command.name)
        if command.name == "ssh":
            assert reply.run_in_vm is not None
            assert reply.run_in_vm.vm_name == "web"
    assert ran >= {"new", "ls", "cp", "rm", "undo", "ssh", "pause", "resume", "stat", "vm-logs"}
    assert {vm["vm_name"] for vm in (await cloud.data("ls"))["vms"]} == {"web", "web-next"}


async def test_what_its_prose_quotes_is_true(cloud: Control) -> None:
    await cloud.run("new --name web")
    text = skill(Addresses(cloud.cloud.config))
    heads = {head[0] for head in REGISTRY.heads()}
    tried = []
    for span in spans(text):
        if span.startswith("--cpu"):  # flags of `new`
            await cloud.run(f"new --name sized {span}")
        elif span.startswith("curl "):
            words = shlex.split(span)
            await cloud.run(words[words.index("-d") + 1])
            assert words[-1] == "https://atoll.localhost:8443/exec"
        elif span.startswith("'"):  # a whole line in the quotes of the local shell
            await cloud.run(shlex.split(span)[0])
        elif span.split()[0] in heads:
            await cloud.run(f"{span} --help")
        else:
            continue
        tried.append(span.split()[0])
    assert {"--cpu", "curl", "'comment", "new", "cp", "undo"} <= set(tried)


def test_it_is_a_skill_file() -> None:
    head, name, description, end = skill(CLOUD).splitlines()[:4]
    assert (head, name, end) == ("---", "name: atoll", "---")
    assert re.fullmatch(r"description: .{20,1024}", description)
    assert "ssh cloud.example 'ls --json'" in skill(CLOUD)
