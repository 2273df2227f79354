"""The registry: every verb is documented, every example parses, the generated pages are current."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.commands.pages import page, page_data
from atoll.commands.parse import parse
from atoll.commands.reference import generated, main
from atoll.commands.registry import Command
from atoll.commands.verbs import REGISTRY

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = list(REGISTRY)


def test_the_verbs_of_the_language() -> None:
    assert [command.name for command in COMMANDS] == [
        "new", "cp", "ls", "rm", "undo", "rename", "tag", "comment",
        "pause", "resume", "restart", "stat", "vm-logs", "ssh", "resize",
        "snap", "snap ls", "snap rm", "snap history", "rollback",
        "events", "audit", "audit verify", "audit export",
        "share show", "share port", "share set-public", "share set-private",
        "share add", "share remove", "share add-link", "share remove-link", "share ls", "share accept",
        "share ask", "share log",
        "transfer", "team new", "team ls", "team members", "team join", "team leave", "team rename",
        "team disable", "team add", "team remove", "team role", "team usage",
            "domain add", "domain ls", "domain rm",
        "ssh-key list", "ssh-key add", "ssh-key remove", "ssh-key rename",
        "ssh-key generate-api-key", "ssh-key shorten",
        "passkey ls", "passkey rm", "session ls", "session rm",
        "invite", "invite ls", "invite rm", "people", "mail",
        "whoami", "browser", "defaults read", "defaults write", "defaults delete",
        "billing usage", "help", "doc", "exit",
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


@pytest.mark.parametrize("name", generated())
def test_the_generated_pages_are_current(name: str) -> None:
    current = generated()[name]
    assert (DOCS / name).read_text() == current, "run: python -m atoll.commands.reference"


def test_they_are_written_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    main()
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert written == generated().keys()
