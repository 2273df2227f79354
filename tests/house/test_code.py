"""House rules about code that no tool checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAST = ROOT / "tests" / "past" / "agents"  # kept as they were
TESTS = sorted(p for p in (ROOT / "tests").rglob("*.py") if not p.is_relative_to(PAST))
CODE = [
    *SOURCES,
    *TESTS,
    *sorted((ROOT / "bench").rglob("*.py")),
    *sorted((ROOT / "scripts").iterdir()),
]
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def breaking(paths: Iterable[Path], is_bad: Callable[[Path], object]) -> list[str]:
    """The files a rule is broken in, as one reads them."""
    return [str(path.relative_to(ROOT)) for path in paths if is_bad(path)]


def test_a_module_says_what_it_owns() -> None:
    written = [path for path in SOURCES if path.read_text()]
    assert written
    assert not breaking(written, lambda p: not ast.get_docstring(ast.parse(p.read_text())))


def test_a_module_is_named_by_its_noun() -> None:
    assert not breaking(SOURCES, lambda p: VAGUE & set(p.relative_to(ROOT).with_suffix("").parts))


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert not breaking(CODE, lambda p: marks.search(p.read_text()))


def test_tests_use_no_mocks_and_do_not_sleep() -> None:
    def is_bad(path: Path) -> bool:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        modules = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        return bool({"mock", "unittest.mock"} & modules or "time.sleep" in calls)

    assert not breaking(TESTS, is_bad)


def test_layers_hold() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
