"""Image `full`: containers, composed services and a browser, with nothing fetched from a registry.

Asked for with ATOLL_FULL=1: the image takes minutes to build, and only the first of these tests has
yet run to its end. It joins the ring when all have.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from atoll.base import ids
from atoll.rpc.messages import Image, Prepare
from framework.atoll import Atoll

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("ATOLL_FULL"), reason="ATOLL_FULL=1 asks for image full"),
]

PREPARE_S = 1800.0  # the build, on a machine that never made this image, and one cold boot
# The static busybox every image carries is a whole container image.
IMPORT = """
mkdir -p rootfs/bin rootfs/www
cp /usr/bin/busybox rootfs/bin/
for name in sh hostname httpd wget cat id ls grep sleep; do ln -s busybox rootfs/bin/$name; done
tar -C rootfs -c . | docker import - tiny:1
"""
LIMITED = """
docker run --rm --init --memory 48m --hostname boat tiny:1 \
  sh -c 'hostname; id -u; cat /sys/fs/cgroup/memory.max; ls /'
"""
BUILD = """
mkdir -p context && cd context
printf 'FROM tiny:1\\nRUN hostname > /built\\nRUN ls /bin/httpd >> /built\\n' > Dockerfile
docker build -q -t tiny:2 . >/dev/null
docker run --rm tiny:2 cat /built | tail -n 1
"""
COMPOSE = """
mkdir -p pair && cd pair
cat > compose.yaml <<'END'
services:
  back:
    image: tiny:1
    command: sh -c 'hostname > /www/index.html; exec httpd -f -p 80 -h /www'
    hostname: back-office
  front:
    image: tiny:1
    command: >
      sh -c 'until wget -qO /www/index.html http://back/; do sleep 1; done;
      exec httpd -f -p 80 -h /www'
    depends_on: [back]
    ports: ["8000:80"]
END
docker compose up -d --quiet-pull
curl -sS --retry 90 --retry-delay 1 --retry-all-errors http://localhost:8000/
docker compose ps --format '{{.Service}} {{.State}}' | sort
"""
# What the page says only once its script has run.
PAGE = """
mkdir -p page
echo '<p id=p>before</p><script>p.textContent = ["after", "script"].join(" ")</script>' > page/index.html
systemd-run --user -q --unit page python3 -m http.server -d page 8100
curl -sS -o /dev/null --retry 60 --retry-delay 1 --retry-connrefused http://localhost:8100/
chromium --headless --disable-gpu --dump-dom http://localhost:8100/ 2>/dev/null
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def full(atoll: Atoll) -> AsyncIterator[Atoll]:
    """The cloud with VM `full`, started from a warm template of that image."""
    request = Prepare(op=ids.new("op"), image="full", cpus=1, memory_bytes=1 << 30)
    await atoll.engine.call(request, Image, seconds=PREPARE_S)
    line = ("new", "--name", "full", "--image", "full", "--memory", "1G", "--disk", "20G", "--json")
    made = json.loads((await atoll.ssh(*line)).out)
    assert made["cold_booted"] is False
    yield atoll
    await atoll.ssh("rm", "full")


async def lines(atoll: Atoll, script: str, *, vm: str = "full", seconds: float = 200) -> list[str]:
    """What a script printed in the VM; the first command that fails ends it."""
    done = await atoll.ssh("bash -e", user=vm, stdin=script.encode(), seconds=seconds)
    return done.out.decode().splitlines()


async def test_it_boots_without_complaint(full: Atoll) -> None:
    said = await lines(full, "systemctl is-system-running --wait; docker info -f '{{.Driver}}'")
    assert said == ["running", "overlay2"]


async def test_a_container_from_the_vms_own_files(full: Atoll) -> None:
    (imported,) = await lines(full, IMPORT)
    assert imported.startswith("sha256:")
    said = await lines(full, LIMITED)
    assert said[:3] == ["boat", "0", str(48 << 20)]
    assert {"bin", "www"} <= set(said[3:])
    assert await lines(full, BUILD) == ["/bin/httpd"]


async def test_composed_services_find_one_another(full: Atoll) -> None:
    assert await lines(full, COMPOSE) == ["back-office", "back running", "front running"]


async def test_a_clone_carries_the_containers_on(full: Atoll) -> None:
    await full.ssh("cp", "full", "full-next")
    script = (
        "curl -sS http://localhost:8000/; docker ps -q | wc -l; docker exec pair-back-1 hostname"
    )
    assert await lines(full, script, vm="full-next") == ["back-office", "2", "back-office"]
    await full.ssh("rm", "full-next")


async def test_a_browser_runs_the_script_of_a_page(full: Atoll) -> None:
    assert '<p id="p">after script</p>' in "\n".join(await lines(full, PAGE))
