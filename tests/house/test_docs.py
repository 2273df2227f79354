"""Docs that can be checked are: generated pages, links, commands, words."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from atoll.config import Config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def options() -> list[tuple[str, str, str]]:
    return [
        (section, key, field.description or "")
        for section, value in Config()
        for key, field in type(value).model_fields.items()
    ]


@pytest.mark.parametrize(("section", "key", "text"), options())
def test_every_option_has_its_reason_or_unit(section: str, key: str, text: str) -> None:
    assert len(text) >= 7, f"{section}.{key} says nothing"


def test_the_configuration_page_is_up_to_date() -> None:
    reference = runpy.run_path(str(ROOT / "scripts/config_reference.py"))["reference"]
    assert (ROOT / "docs/configuration.md").read_text() == reference(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_tasks_that_are_named_exist(page: Path) -> None:
    tasks = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    tasks |= {"unit", "engine", "e2e", "fault"}
    named = re.findall(r"(?:`|^\s*(?:sudo )?)make ([a-z0-9]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= tasks


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "glossary.md"], ids=name)
def test_a_vm_is_called_a_vm(page: Path) -> None:
    """One word per idea; the glossary alone names the others, to rule them out."""
    text = re.sub(r"`[^`]*`", "", page.read_text())
    assert not re.findall(r"\b(?:box|boxes|sandbox|sandboxes|microVM)\b", text)
