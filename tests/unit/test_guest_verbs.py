"""Verbs on a temporary root with a kernel that only records; requests come as bytes."""

from __future__ import annotations

import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.guest import wire
from atoll.guest.agent import Agent
from atoll.guest.freezing import MARKER
from atoll.guest.identity import Refused
from atoll.guest.verbs import Verbs
from fakes.guest_kernel import FakeKernel

ENTROPY = b64encode(bytes(range(32))).decode()
NOW = 1_790_000_000_000_000_000


def identify(**changes: object) -> dict[str, object]:
    args: dict[str, object] = {
        "hostname": "web",
        "fresh": True,
        "entropy": ENTROPY,
        "epoch": "life-1",
        "user_ca": "ssh-ed25519 AAAA ca",
        "authorized_keys": ["ssh-ed25519 AAAA me"],
        "login_user": "atoll",
    }
    return {**args, **changes}


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    for folder in ("etc/ssh", "run", "var/lib/systemd"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text("0" * 32 + "\n")
    return FakeKernel(str(tmp_path))


@pytest.fixture
def verbs(kernel: FakeKernel) -> Verbs:
    return Verbs(kernel)


def names(kernel: FakeKernel) -> list[str]:
    return [name for name, _ in kernel.calls]


def test_identify_thaws_and_reseeds_before_anything_is_drawn_or_written(
    verbs: Verbs, kernel: FakeKernel
) -> None:
    verbs.run("freeze", {"seconds": 30})
    kernel.calls.clear()
    answer = verbs.run("identify", identify())
    assert names(kernel) == ["thaw", "thaw", "entropy", "hostname"]
    assert kernel.calls[2] == ("entropy", bytes(range(32)))
    root = Path(kernel.root)
    assert answer["machine_id"] == (root / "etc/machine-id").read_text().strip() != "0" * 32
    assert (root / "etc/ssh/authorized_keys.d/atoll").read_text() == "ssh-ed25519 AAAA me\n"
    hello = verbs.run("hello", {})
    assert hello["epoch"] == "life-1"
    assert hello["frozen"] is False


def test_the_same_epoch_again_keeps_the_machine_id(verbs: Verbs) -> None:
    first = verbs.run("identify", identify())["machine_id"]
    assert verbs.run("identify", identify())["machine_id"] == first
    assert verbs.run("identify", identify(epoch="life-2"))["machine_id"] != first
    kept = verbs.run("identify", identify(epoch="life-3", fresh=False))["machine_id"]
    assert kept == verbs.run("hello", {})["machine_id"]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_another_life_of_the_same_vm_keeps_its_id_and_runs_the_hooks(
    verbs: Verbs, kernel: FakeKernel
) -> None:
    root = Path(kernel.root)
    (root / "etc/atoll/after-fork.d").mkdir(parents=True)
    hook = root / "etc/atoll/after-fork.d/told"
    hook.write_text(f"#!/bin/sh\necho $ATOLL_HOSTNAME >> {root}/told\n")
    hook.chmod(0o755)
    for life, forked, lines in ((1, False, 0), (2, True, 1), (2, True, 1), (3, True, 2)):
        answer = verbs.run("identify", identify(fresh=False, forked=forked, epoch=f"life-{life}"))
        assert answer["machine_id"] == "0" * 32
        deadline = time.monotonic() + 10
        while (told := _lines(root / "told")) < lines:
            assert time.monotonic() < deadline, "the hook did not run"
        assert told == lines


def test_a_value_that_is_refused_changes_nothing(verbs: Verbs, kernel: FakeKernel) -> None:
    for change in (
        {"hostname": "NOT A NAME"},
        {"entropy": "AAAA"},
        {"entropy": "!"},
        {"authorized_keys": ["two\nlines"]},
        {"authorized_keys": "text"},
        {"login_user": None},
        {"fresh": "yes"},
        {"host_key": "nonsense"},
    ):
        with pytest.raises((Refused, ValueError)):
            verbs.run("identify", identify(**change))
    assert kernel.calls == []
    assert not (Path(kernel.root) / "etc/hostname").exists()


def test_hooks_run_once_and_only_for_a_fresh_machine(verbs: Verbs, kernel: FakeKernel) -> None:
    root = Path(kernel.root)
    folder = root / "etc/atoll/after-fork.d"
    folder.mkdir(parents=True)
    (folder / "10-note").write_text(f'#!/bin/sh\necho "$ATOLL_HOSTNAME" >> {root}/said\n')
    (folder / "10-note").chmod(0o755)
    verbs.run("identify", identify(fresh=False))
    verbs.run("identify", identify(epoch="life-2"))
    deadline = time.monotonic() + 10
    while not (root / "said").exists() or not (root / "said").read_text():
        assert time.monotonic() < deadline, "the hook did not run"
    assert (root / "said").read_text() == "web\n"


def test_a_fresh_vm_gets_its_setup_script_and_variables(verbs: Verbs, kernel: FakeKernel) -> None:
    root = Path(kernel.root)
    script, variables = root / "var/lib/atoll/setup", root / "etc/profile.d/atoll-env.sh"
    env = {"PLAIN": "1", "HARD": "it's $HOME `id` \"\\ü", "EMPTY": ""}
    given = {"setup_script": "#!/bin/sh\necho ü\n", "env": env}
    verbs.run("identify", identify(fresh=False, **given))
    assert not script.exists(), "a VM that resumes or restarts has had its own"
    assert verbs.run("identify", identify(epoch="life-2", **given))["setup"] is True
    assert script.read_text() == "#!/bin/sh\necho ü\n"
    assert (script.stat().st_mode & 0o777, variables.stat().st_mode & 0o777) == (0o700, 0o644)
    said = subprocess.run(
        ["/bin/sh", "-c", f'. {variables}; printf "%s|" "$PLAIN" "$HARD" "$EMPTY"'],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert said.stdout.decode() == "|".join([*env.values(), ""])
    script.unlink()  # it runs
    assert verbs.run("identify", identify(epoch="life-2", **given))["setup"] is True
    assert not script.exists(), "an answer that was lost must not start it again"


@pytest.mark.parametrize(
    "given",
    [
        {"setup_script": "\0"},
        {"setup_script": "x" * 20_000},
        {"setup_script": 1},
        {"env": ["A"]},
        {"env": {"A": 1}},
        {"env": {"A B": "1"}},
        {"env": {"A": "two\nlines"}},
        {"env": {"A=$(id)": ""}},
    ],
)
def test_setup_that_is_refused_changes_nothing(
    verbs: Verbs, kernel: FakeKernel, given: dict[str, object]
) -> None:
    with pytest.raises(Refused):
        verbs.run("identify", identify(**given))
    assert kernel.calls == []
    assert not (Path(kernel.root) / "etc/hostname").exists()


def test_freeze_holds_newest_first_and_thaws_in_the_other_order(
    verbs: Verbs, kernel: FakeKernel
) -> None:
    assert verbs.run("freeze", {"seconds": 30}) == {"mounts": ["/data", "/"]}
    assert (Path(kernel.root) / MARKER).exists()
    assert verbs.run("thaw", {}) == {"mounts": ["/", "/data"], "expired": False}
    assert kernel.calls == [
        ("freeze", "/data"),
        ("freeze", "/"),
        ("thaw", "/"),
        ("thaw", "/data"),
    ]
    assert verbs.run("thaw", {}) == {"mounts": [], "expired": False}
    assert not (Path(kernel.root) / MARKER).exists()


def test_the_watchdog_lets_go_and_thaw_says_so(verbs: Verbs, kernel: FakeKernel) -> None:
    verbs.run("freeze", {"seconds": 0.02})
    deadline = time.monotonic() + 10
    while kernel.frozen:
        assert time.monotonic() < deadline, "still frozen"
    assert verbs.run("thaw", {}) == {"mounts": [], "expired": True}
    verbs.run("freeze", {"seconds": 30})
    assert verbs.run("thaw", {})["expired"] is False, "a new freeze starts clean"


def test_a_freeze_that_fails_half_way_holds_nothing(verbs: Verbs, kernel: FakeKernel) -> None:
    kernel.fails_at = "/"
    with pytest.raises(OSError, match="Input/output error"):
        verbs.run("freeze", {"seconds": 30})
    assert kernel.frozen == {}
    assert verbs.run("hello", {})["frozen"] is False


@pytest.mark.parametrize("seconds", [0, -1, 61, "5", None])
def test_a_freeze_is_short(verbs: Verbs, seconds: object) -> None:
    with pytest.raises(Refused):
        verbs.run("freeze", {"seconds": seconds})


def test_shutdown_knows_two_modes(verbs: Verbs, kernel: FakeKernel) -> None:
    verbs.run("shutdown", {"mode": "reboot"})
    assert kernel.calls == [("power", "reboot")]
    with pytest.raises(Refused):
        verbs.run("shutdown", {"mode": "halt; rm -rf /"})


def test_ready_is_what_the_boot_left(verbs: Verbs, kernel: FakeKernel) -> None:
    assert verbs.run("hello", {})["ready"] is False
    (Path(kernel.root) / "run/atoll-ready").write_text("running\n")
    hello = verbs.run("hello", {})
    assert (hello["ready"], hello["system"]) == (True, "running")


def test_there_is_no_exec(verbs: Verbs) -> None:
    with pytest.raises(Refused, match="is not one of"):
        verbs.run("exec", {"argv": ["sh"]})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
words = st.sampled_from(
    ["ping", "hello", "identify", "clock", "freeze", "thaw", "stat", "shutdown", "exec", ""]
)
fields = st.sampled_from([*identify(), "unix_time_ns", "seconds", "mode", "host_key", "machine_id"])


@given(verb=words, args=st.dictionaries(fields, json_values, max_size=5))
def test_any_request_gets_one_answer(
    tmp_path_factory: pytest.TempPathFactory, verb: str, args: dict[str, object]
) -> None:
    verbs = Verbs(FakeKernel(str(tmp_path_factory.getbasetemp())))
    agent = Agent(verbs)
    (frame,) = agent.feed(wire.encode(wire.request("n", 3, verb, args)))
    verbs.run("thaw", {})
    (answer,) = wire.Reader().feed(frame)
    assert wire.is_answer(answer, "n", 3)
    assert ("ok" in answer) != ("error" in answer)


@given(message=st.dictionaries(st.sampled_from(["v", "nonce", "id", "verb", "args"]), json_values))
def test_any_message_gets_an_error_at_least(message: dict[str, object]) -> None:
    (frame,) = Agent(Verbs(FakeKernel("/nonexistent"))).feed(wire.encode(message))
    (answer,) = wire.Reader().feed(frame)
    assert "error" in answer or message.get("v") == wire.VERSION
