"""Setup scripts: what is taken, how it is written in one line, and the unit that runs one once."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Invalid
from atoll.domain.setup import ENV_COUNT, SCRIPT_BYTES, check_script, parse_env, unescaped
from atoll.engine.images.recipe import CUSTOMISE, TREE
from atoll.guest.identity import ENVIRONMENT, SETUP
from atoll.rpc.messages import Identity

UNITS = TREE / "etc/systemd/system"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"#!/bin/sh\napt-get update", "#!/bin/sh\napt-get update"),
        (r"echo a\\nb", r"echo a\nb"),
        (r"echo \\\\n", r"echo \\n"),
        (r"printf '\t\x41' \ ", r"printf '\t\x41' \ "),
        ("two\nlines", "two\nlines"),
        ("ends in \\", "ends in \\"),
    ],
)
def test_escapes_of_one_line(typed: str, meant: str) -> None:
    assert unescaped(typed) == meant


@given(st.text())
def test_doubled_backslashes_are_the_text_itself(script: str) -> None:
    """As the SDK of the reference product sends a script."""
    assert unescaped(script.replace("\\", "\\\\")) == script


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("x" * (SCRIPT_BYTES + 1), f"of {SCRIPT_BYTES + 1} bytes is over the limit of 10 KiB"),
        ("ü" * SCRIPT_BYTES, "over the limit"),
        ("a\0b", "without NUL"),
        ("\udcff", "must be UTF-8"),
        (" \n", "is empty"),
    ],
)
def test_what_is_no_script(script: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check_script(script)


def test_a_script_of_the_limit_is_one() -> None:
    script = "x" * SCRIPT_BYTES
    assert Identity(hostname="a", fresh=True, setup_script=check_script(script)).setup_script


def test_variables() -> None:
    env = parse_env(["A=1", "_b2=x=y z", "EMPTY="])
    assert env == {"A": "1", "_b2": "x=y z", "EMPTY": ""}
    assert Identity(hostname="a", fresh=True, env=env).env == env


@pytest.mark.parametrize(
    "pairs",
    [
        ["A"], ["=1"], ["1A=1"], ["A-B=1"], ["A B=1"], ["Ü=1"], ["A=1", "A=2"], ["A=a\nb"],
        ["A=a\rb"], ["A=\0"], ["A=\udcff"], ["A=" + "x" * 4097], ["A" * 129 + "=1"],
        [f"A{i}=1" for i in range(ENV_COUNT + 1)], [f"A{i}={'x' * 4000}" for i in range(5)],
    ],
)  # fmt: skip
def test_what_are_no_variables(pairs: list[str]) -> None:
    with pytest.raises(Invalid):
        parse_env(pairs)


def test_no_value_is_repeated_in_an_error_or_a_log() -> None:
    with pytest.raises(Invalid) as caught:
        parse_env(["KEY=s3cret\n"])
    assert "s3cret" not in str(caught.value)
    identity = Identity(hostname="a", fresh=True, setup_script="s3cret", env={"K": "s3cret"})
    assert "s3cret" not in repr(identity)


class Unit:
    """exe-setup.service on files of its own; what systemd would do with it, in its order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        text = (UNITS / "exe-setup.service").read_text()
        lines = [line.partition("=") for line in text.splitlines() if line.startswith("Exec")]
        self.steps = [(key, self._argv(value)) for key, _, value in lines]
        for name in (SETUP, ENVIRONMENT):
            (root / name).parent.mkdir(parents=True)

    def _argv(self, line: str) -> list[str]:
        moved = line
        for folder in (SETUP, ENVIRONMENT):
            moved = moved.replace(f"/{folder}", f"{self.root}/{folder}")
        return shlex.split(moved.replace("/bin/sync /var/lib/atoll", "/bin/true"))

    def write(self, script: str) -> None:
        (self.root / SETUP).write_text(script)
        (self.root / SETUP).chmod(0o700)

    def begin(self) -> None:
        """Up to the moment before the script."""
        for key, argv in self.steps:
            if key == "ExecStartPre":
                subprocess.run(argv, check=True)

    def run(self) -> tuple[int, str]:
        """Exit status and output of the script."""
        self.begin()
        (start,) = (argv for key, argv in self.steps if key == "ExecStart")
        done = subprocess.run(start, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
        self.stop()
        return done.returncode, done.stdout.decode()

    def stop(self) -> None:
        (stop,) = (argv for key, argv in self.steps if key == "ExecStopPost")
        subprocess.run(stop, check=True)

    @property
    def left(self) -> list[str]:
        return sorted(os.listdir((self.root / SETUP).parent))


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


def test_the_unit_runs_the_script_with_its_variables_and_removes_it(unit: Unit) -> None:
    (unit.root / ENVIRONMENT).write_text("export MODE='a b'\n")
    unit.write('#!/bin/sh\necho "$MODE"; read line || echo eof\n')
    assert unit.run() == (0, "a b\neof\n")
    assert unit.left == []


def test_a_script_without_a_first_line_is_for_the_shell(unit: Unit) -> None:
    unit.write("echo hi\n")
    assert unit.run() == (0, "hi\n")


def test_a_script_that_fails_is_removed_as_well(unit: Unit) -> None:
    unit.write("#!/bin/sh\nexit 7\n")
    assert unit.run() == (7, "")
    assert unit.left == []


def test_a_script_that_was_begun_is_not_found_again(unit: Unit) -> None:
    """Cut off in the middle, and in a copy of that disk: its name is gone, and tmpfiles cleans up."""
    unit.write("echo hi\n")
    unit.begin()
    assert unit.left == ["setup.running"]
    rules = (TREE / "etc/tmpfiles.d/atoll.conf").read_text().splitlines()
    assert f"r! /{SETUP}.running" in rules


def test_the_units_belong_together() -> None:
    path = (UNITS / "atoll-setup.path").read_text()
    assert f"PathExists=/{SETUP}\nUnit=exe-setup.service\n" in path
    assert "[Install]" not in path
    ready = (UNITS / "atoll-ready.service").read_text()
    assert "--wait >/run/atoll-ready.new; systemctl start atoll-setup.path; mv " in ready
    customise = CUSTOMISE.read_text()
    assert f"ln -s /{SETUP} /exe.dev/setup\n" in customise
    assert "ln -s exe-setup.service /etc/systemd/system/atoll-setup.service\n" in customise
