"""What an image is made of. A recipe and the files it brings have one digest: the image's address.

Anything that changes the outcome is in the digest, except the archive's state on the day of the
build: that is written in the manifest, and an image is made anew by deleting its folder.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from pathlib import Path

from atoll.base.errors import NotFound, Unavailable

BUILDER = 2  # raise when build.py or disk.py changes what comes out
HERE = Path(__file__).parent
TREE = HERE / "tree"
CUSTOMISE = HERE / "customise.sh"
GUEST = HERE.parent.parent / "guest"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CMDLINE = (
    "root=/dev/vda",
    "rootfstype=ext4",
    "rw",
    "rootflags=noatime,noinit_itable,discard",
    "quiet",
)
_CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}
# An emulated guest gains nothing from mitigations (its code is not run by the CPU), and loses
# seconds of boot to self-tests of accelerated ciphers and to a nested KVM that cannot work.
_CMDLINE_TCG = (
    "mitigations=off",
    "module_blacklist=kvm_amd,kvm_intel,kvm,aesni_intel,ghash_clmulni_intel,"
    "sha512_ssse3,sha256_ssse3,sha1_ssse3,polyval_clmulni",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One image. `script` runs inside after `customise.sh`; `virtual_bytes` is the base's size.

    The base is small because the root file system grows to the VM's disk at its first boot.
    """

    name: str
    packages: tuple[str, ...]
    suite: str = "trixie"
    script: str = ""
    default_port: int = 8000
    login_user: str = "atoll"
    virtual_bytes: int = 8 << 30
    build_seconds: float = 1800.0
    excluded: tuple[str, ...] = field(
        default=("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
    )
    included: tuple[str, ...] = ("/usr/share/doc/*/copyright",)

    def digest(self, architecture: str, *, tree: Path = TREE) -> str:
        """20 hex digits over the recipe, the builder, the tree, the agent and the architecture."""
        sha = hashlib.sha256(f"{BUILDER} {architecture} {self!r}\n".encode())
        sha.update(f"{cmdline(architecture)} {cmdline_tcg()}\n".encode())
        for path, target in sources(tree):
            sha.update(f"{target} {path.stat().st_mode & 0o111:o} ".encode())
            sha.update(hashlib.sha256(path.read_bytes()).digest())
        sha.update(CUSTOMISE.read_bytes())
        return sha.hexdigest()[:20]


def sources(tree: Path = TREE) -> list[tuple[Path, str]]:
    """(file here, path inside) of everything copied into an image, sorted by path inside."""
    files = [(path, str(path.relative_to(tree))) for path in tree.rglob("*") if path.is_file()]
    guest = [(path, f"usr/lib/atoll/atoll/guest/{path.name}") for path in GUEST.glob("*.py")]
    return sorted(files + guest, key=lambda pair: pair[1])


def architecture() -> str:
    """This machine's, as Debian spells it."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise Unavailable(f"there are no images for {machine}", hint="Use x86-64 or arm64")
    return _ARCHITECTURES[machine]


def cmdline(architecture: str) -> str:
    """Kernel arguments every boot needs."""
    return " ".join((*_CMDLINE, f"console={_CONSOLE[architecture]}"))


def cmdline_tcg() -> str:
    """Kernel arguments to add when the CPU is emulated; on real hardware they would cost safety."""
    return " ".join(_CMDLINE_TCG)


_BASE = (
    # the machine
    "busybox-static",
    "dbus",
    "dbus-user-session",
    "e2fsprogs",
    "initramfs-tools",
    "kmod",
    "libpam-systemd",
    "linux-sysctl-defaults",  # without it only root can ping
    "lz4",
    "systemd-sysv",
    "udev",
    # ways in and out
    "ca-certificates",
    "curl",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "nftables",
    "openssh-server",
    "rsync",
    "wget",
    # what one expects at a prompt
    "bash-completion",
    "git",
    "less",
    "nano",
    "procps",
    "python3",
    "python3-venv",
    "sudo",
    "tmux",
    "vim-tiny",
    "xz-utils",
    "zstd",
)

DEBIAN = Recipe(name="debian", packages=_BASE)

FULL = Recipe(
    name="full",
    packages=(
        *_BASE,
        "build-essential",
        "chromium",
        "chromium-sandbox",
        "docker-buildx",
        "docker-cli",
        "docker-compose",
        "docker.io",
        "fonts-dejavu-core",
        "fonts-liberation",
        "fonts-noto-color-emoji",
        "iptables",
        "jq",
        "nodejs",
        "npm",
        "ripgrep",
        "sqlite3",
        "unzip",
    ),
    script="usermod --append --groups docker atoll\n",
    virtual_bytes=16 << 30,
    build_seconds=5400.0,
)

RECIPES = {recipe.name: recipe for recipe in (DEBIAN, FULL)}


def find(name: str) -> Recipe:
    """The recipe called `name`, or NotFound."""
    if name not in RECIPES:
        raise NotFound(
            f"there is no image {name[:40]!r}", hint=f"Try: {' or '.join(sorted(RECIPES))}"
        )
    return RECIPES[name]
