"""The registry: every verb is documented, every example parses, the reference page is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.commands.pages import page, page_data, reference
from atoll.commands.parse import parse
from atoll.commands.registry import Command
from atoll.commands.verbs import REGISTRY

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
COMMANDS = list(REGISTRY)


def test_the_verbs_of_the_language() -> None:
    assert [command.name for command in COMMANDS] == [
        "new", "cp", "ls", "rm", "undo", "rename", "tag", "comment",
        "pause", "resume", "restart", "stat", "ssh",
        "share show", "share port", "share set-public", "share set-private",
        "ssh-key list", "ssh-key add", "ssh-key remove", "ssh-key rename",
        "ssh-key generate-api-key", "ssh-key shorten",
        "whoami", "browser", "help", "doc", "exit",
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_verb_is_documented(command: Command) -> None:
    assert command.help.endswith(".")
    assert command.examples
    assert all(parameter.help for parameter in command.parameters)
    assert command.result or command.name in ("ssh", "exit")
    assert page_data(command)["usage"] in page(command)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_example_parses(command: Command) -> None:
    for example in command.examples:
        line = example.split(" < ")[0]
        assert parse(REGISTRY, line).command is command


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text() == reference(REGISTRY), "run: python -m atoll.commands.reference"
