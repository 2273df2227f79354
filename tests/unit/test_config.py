"""The configuration file: round trip, defaults, and errors that name what is wrong."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from atoll.base.errors import Invalid
from atoll.config import Config, Https, Network, Paths, load, path_in_force, render
from framework.past import CONFIGS


def write(folder: Path, text: str) -> Path:
    path = folder / "atoll.toml"
    path.write_text(text)
    return path


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")) == Config()


def test_what_render_prints_loads_to_the_same_values(tmp_path: Path) -> None:
    config = Config(
        paths=Paths(state=tmp_path / 'with "quotes" and \\'),
        network=Network(
            instance="t1",
            block=ipaddress.IPv4Network("10.99.0.0/16"),
            upstream_dns=(ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.2")),
        ),
        https=Https(vm_ports=False, session_hours=0.5),
    )
    assert load(write(tmp_path, render(config))) == config
    assert load(write(tmp_path, render(config, only_set=True))) == config


def test_a_file_that_is_kept_fixes_no_default(tmp_path: Path) -> None:
    config = Config(network=Network(instance="t1"))
    lines = render(config, only_set=True).splitlines()
    assert [line for line in lines if line and line[0] not in "[#"] == ['instance = "t1"']
    assert '# cache = "/var/cache/atoll"' in lines


def test_render_explains_every_key(tmp_path: Path) -> None:
    lines = render(Config()).splitlines()
    keys = [number for number, line in enumerate(lines) if " = " in line and line[0] != "#"]
    assert len(keys) == sum(len(type(section).model_fields) for _name, section in Config())
    assert all(lines[number - 1].startswith("# ") for number in keys)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[ssh]\nport = 0\n", "ssh.port"),
        ("[ssh]\nport = 70000\n", "ssh.port"),
        ("[ssh]\nprot = 22\n", "ssh.prot"),
        ("[nonsense]\n", "nonsense"),
        ('[network]\ninstance = "Up/../per"\n', "network.instance"),
        ('[network]\nblock = "10.0.0.1/16"\n', "network.block"),
        ('[engine]\naccel = "xen"\n', "engine.accel"),
        ('[https]\ndomain = "a b"\n', "https.domain"),
        ('[https]\nlisten = "localhost"\n', "https.listen"),
        ('[https]\nlisten = ""\n', "https.listen"),
        ('[domains]\nresolvers = ["1.1.1.1", "dns.example"]\n', "domains.resolvers"),
        ('[domains]\nresolvers = [""]\n', "domains.resolvers"),
        ("[ssh\n", "atoll.toml"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(Invalid, match=r"atoll\.toml") as failure:
        load(write(tmp_path, text))
    assert named in failure.value.message


@pytest.mark.parametrize("release", CONFIGS)
def test_the_file_an_earlier_release_wrote_loads_or_says_what_to_take_out(
    tmp_path: Path, release: str
) -> None:
    """`make up` writes every key into it, so a key that is dropped is in everybody's file."""
    dropped = {"c99cd20": ["warm_sizes"]}.get(release, [])
    lines = CONFIGS[release].read_text().splitlines()
    if dropped:
        with pytest.raises(Invalid) as failure:
            load(CONFIGS[release])
        assert failure.value.message == f"{CONFIGS[release]}: this version has no setting " + (
            ", ".join(f"engine.{key}" for key in dropped)
        )
        assert "Take out" in failure.value.hint
    kept = [line for line in lines if line.partition(" = ")[0] not in dropped]
    load(write(tmp_path, "\n".join(kept)))  # its values are yesterday's defaults, and in force


def test_the_settings_can_be_listed_whatever_is_in_the_file() -> None:
    """As the hint of every error above says."""
    assert load(Path("/dev/null")) == Config()


def test_all_keys_that_are_not_there_are_named_at_once(tmp_path: Path) -> None:
    text = "[ssh]\nprot = 22\nport = 0\n[engine]\nwarm_sizes = []\n[later]\n"
    with pytest.raises(Invalid, match="has no setting") as failure:
        load(write(tmp_path, text))
    for key in ("ssh.prot", "engine.warm_sizes", "later"):
        assert key in failure.value.message


def test_a_file_that_was_asked_for_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_CONFIG", str(tmp_path / "missing.toml"))
    assert path_in_force() == tmp_path / "missing.toml"
    with pytest.raises(Invalid, match="does not exist"):
        load()


def test_paths_follow_the_folders(tmp_path: Path) -> None:
    config = Config(paths=Paths(state=tmp_path / "s", run=tmp_path / "r"))
    assert config.pool == tmp_path / "s/pool"
    assert config.engine_socket == tmp_path / "r/engine.sock"
    assert config.database_url == f"sqlite+aiosqlite:///{tmp_path}/s/control/atoll.db"
