"""An image's digest changes with everything that changes the image, and with nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.base.errors import NotFound
from atoll.engine.images import recipe
from atoll.engine.images.build import install_argv
from atoll.engine.images.recipe import DEBIAN, FULL, RECIPES, TREE


def test_the_digest_is_stable() -> None:
    assert DEBIAN.digest("amd64") == replace(DEBIAN).digest("amd64")
    assert len(DEBIAN.digest("amd64")) == 20


def test_each_ingredient_is_in_the_digest() -> None:
    variants = {
        DEBIAN.digest("amd64"),
        DEBIAN.digest("arm64"),
        FULL.digest("amd64"),
        replace(DEBIAN, packages=(*DEBIAN.packages, "jq")).digest("amd64"),
        replace(DEBIAN, script="true\n").digest("amd64"),
        replace(DEBIAN, suite="forky").digest("amd64"),
    }
    assert len(variants) == 6


def test_a_file_of_the_tree_is_in_the_digest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(TREE, tree)
    assert DEBIAN.digest("amd64", tree=tree) == DEBIAN.digest("amd64")
    (tree / "etc/hostname").write_text("other\n")
    changed = DEBIAN.digest("amd64", tree=tree)
    assert changed != DEBIAN.digest("amd64")
    (tree / "etc/hostname").chmod(0o755)
    assert DEBIAN.digest("amd64", tree=tree) != changed


def test_the_agent_is_brought_along() -> None:
    inside = [target for _, target in recipe.sources()]
    assert inside == sorted(inside)
    assert "usr/lib/atoll/atoll/guest/agent.py" in inside
    assert "usr/lib/atoll/atoll/guest/wire.py" in inside
    assert "etc/systemd/system/atoll-agent.service" in inside


def test_the_agent_imports_nothing_but_itself() -> None:
    """It runs on the guest's plain Python."""
    for path in recipe.GUEST.glob("*.py"):
        for line in path.read_text().splitlines():
            if line.startswith(("import atoll", "from atoll")):
                assert line.startswith("from atoll.guest"), f"{path.name}: {line}"


def test_full_is_debian_and_more() -> None:
    assert set(DEBIAN.packages) < set(FULL.packages)
    assert set(RECIPES) == {"debian", "full"}


def test_no_mitigation_is_switched_off_on_real_hardware() -> None:
    assert "mitigations" not in recipe.cmdline("amd64")
    assert "mitigations=off" in recipe.cmdline_tcg()


def test_an_unknown_image_names_the_known() -> None:
    with pytest.raises(NotFound, match="debian or full"):
        recipe.find("windows")


def test_install_argv() -> None:
    work = Path("/c/a b")
    argv = install_argv(replace(DEBIAN, packages=("b", "a")), "amd64", work, work / "root", "")
    assert argv == [
        "setpriv",
        "--pdeathsig=KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--quiet",
        "--architectures=amd64",
        "--include=a,b,linux-image-cloud-amd64",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--customize-hook=grep -h "^Date:" "$1"/var/lib/apt/lists/*Release > \'/c/a b\'/dates',
        "--customize-hook=tar-in '/c/a b'/sources.tar /",
        "--customize-hook=chroot \"$1\" /bin/sh -eu < '/c/a b/customise.sh'",
        "trixie",
        "/c/a b/root",
    ]
    assert install_argv(DEBIAN, "amd64", work, work / "root", "copy:/m")[-1] == "copy:/m"
