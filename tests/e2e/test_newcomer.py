"""The newcomer's path: `new`, a shell, a private page, a live clone, and taking it all back."""

from __future__ import annotations

import json

import pytest

from atoll.base.errors import AtollError
from atoll.base.proc import run
from framework.atoll import Atoll

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

PAGE = "sh -c 'mkdir -p site && echo hello from $(hostname) > site/index.html'"
SERVE = "systemd-run --user --unit site python3 -m http.server -d site 8000"


async def curl(atoll: Atoll, vm: str, *arguments: str, path: str = "/") -> str:
    """The real client; `*.localhost` is loopback for it, and it trusts the cloud's own CA."""
    https = atoll.config.https
    url = f"https://{vm}.{https.domain}:{https.port}{path}"
    ca = atoll.config.control_state / "keys" / "ca.pem"
    argv = ["curl", "-sS", "--cacert", str(ca), "--max-time", "30", *arguments, url]
    return (await run(argv, seconds=40)).out.decode()


async def test_a_vm_in_one_command_with_shell_and_page(atoll: Atoll) -> None:
    made = json.loads((await atoll.ssh("new", "--name", "web", "--json")).out)
    assert made["vm_name"] == "web"
    assert made["ssh_dest"].startswith("web@")
    assert (
        made["https_url"] == f"https://web.{atoll.config.https.domain}:{atoll.config.https.port}/"
    )
    assert made["cold_booted"] is False, "a warm template was prepared"

    assert (await atoll.ssh("hostname", user="web")).out == b"web\n"
    await atoll.ssh(PAGE, user="web")
    await atoll.ssh(SERVE, user="web")
    listed = json.loads((await atoll.ssh("ls", "--json")).out)["vms"]
    assert [vm["status"] for vm in listed if vm["vm_name"] == "web"] == ["running"]


async def test_the_page_is_private_until_it_is_published(atoll: Atoll) -> None:
    status = ("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
    browser = ("-H", "accept: text/html")
    code, _, where = (await curl(atoll, "web", *status, *browser)).partition(" ")
    assert code in ("302", "303")
    assert where.startswith(f"https://{atoll.config.https.domain}:{atoll.config.https.port}/login")
    assert (await curl(atoll, "web", *status)).startswith("401")

    await atoll.ssh("share", "set-public", "web")
    again = ("--fail", "--retry", "20", "--retry-delay", "1", "--retry-all-errors")
    assert await curl(atoll, "web", *again) == "hello from web\n"
    await atoll.ssh("share", "set-private", "web")
    assert (await curl(atoll, "web", *status)).startswith("401")


async def test_a_live_clone_carries_on_what_the_parent_ran(atoll: Atoll) -> None:
    made = json.loads((await atoll.ssh("cp", "web", "web-next", "--json")).out)
    assert made["source"] == "web"
    assert (await atoll.ssh("hostname", user="web-next")).out == b"web-next\n"
    inside = await atoll.ssh("curl -s localhost:8000", user="web-next")
    assert inside.out == b"hello from web\n", "the server process was cloned, page and all"
    await atoll.ssh("echo changed > site/index.html", user="web-next")
    assert (await atoll.ssh("curl -s localhost:8000", user="web")).out == b"hello from web\n"


async def test_pause_resume_and_undo_keep_processes(atoll: Atoll) -> None:
    boot = (await atoll.ssh("cat /proc/sys/kernel/random/boot_id", user="web-next")).out
    await atoll.ssh("pause", "web-next")
    resumed = json.loads((await atoll.ssh("resume", "web-next", "--json")).out)
    assert resumed["cold_booted"] == "false"
    assert (await atoll.ssh("cat /proc/sys/kernel/random/boot_id", user="web-next")).out == boot
    await atoll.ssh("rm", "web-next")
    with pytest.raises(AtollError):
        await atoll.command("stat web-next")
    await atoll.ssh("undo")
    assert (await atoll.ssh("cat /proc/sys/kernel/random/boot_id", user="web-next")).out == boot
    assert (await atoll.ssh("curl -s localhost:8000", user="web-next")).out == b"changed\n"


async def test_restart_boots_from_the_same_disk(atoll: Atoll) -> None:
    boot = (await atoll.ssh("cat /proc/sys/kernel/random/boot_id", user="web-next")).out
    await atoll.ssh("restart", "web-next")
    after = (await atoll.ssh("cat /proc/sys/kernel/random/boot_id; cat site/index.html",
                             user="web-next")).out.decode().split()  # fmt: skip
    assert after[0] != boot.decode().strip()
    assert after[1] == "changed"
    reboot = await atoll.ssh("sudo reboot", user="web-next", check=False)
    assert reboot.code in (0, 255)


async def test_rm_frees_the_name(atoll: Atoll) -> None:
    await atoll.ssh("rm", "web", "web-next")
    listed = json.loads((await atoll.ssh("ls", "--json")).out)["vms"]
    assert not {vm["vm_name"] for vm in listed} & {"web", "web-next"}
    again = json.loads((await atoll.ssh("new", "--name", "web", "--json")).out)
    assert again["vm_name"] == "web"
    assert (await atoll.ssh("test -e site && echo old || echo fresh", user="web")).out == b"fresh\n"
    await atoll.ssh("rm", "web")
