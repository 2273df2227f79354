"""Image `full`: containers, composed services, what Kubernetes stands on, and a browser.

Nothing comes from a registry: containers are made of the VM's own files. Debian carries no Kubernetes
server (trixie has its client, and etcd), so its foundation is shown in place of a ready node.
"""

from __future__ import annotations

import json
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
]

PREPARE_S = 1800.0  # the build, on a machine that never made this image, and two cold boots
# Packages with all they need, as files of this VM: a Debian of its own, with busybox for servers.
IMPORT = """
apt-cache depends --installed --important --recurse base-files bash busybox-static coreutils dash \\
    hostname |
  grep '^[a-z]' | xargs dpkg -L | sort -u |
  while read -r path; do if [ -e "$path" ]; then echo ".$path"; fi; done |
  sudo tar -C / --no-recursion -T - -c | docker import - own:1
"""
LIMITED = """
docker run --rm --init --memory 48m --hostname boat own:1 bash -c \
  '. /etc/os-release; hostname; id -u; cat /sys/fs/cgroup/memory.max; echo $ID $VERSION_CODENAME'
(. /etc/os-release; echo $ID $VERSION_CODENAME)
"""
BUILD = """
mkdir -p context && cd context
printf 'FROM own:1\\nRUN mkdir /www\\nRUN ls -d /www > /built\\n' > Dockerfile
docker build -q -t own:2 . >/dev/null
docker run --rm own:2 cat /built
"""
COMPOSE = """
mkdir -p pair && cd pair
cat > compose.yaml <<'END'
services:
  back:
    image: own:2
    command: sh -c 'hostname > /www/index.html; exec busybox httpd -f -p 80 -h /www'
    hostname: back-office
  front:
    image: own:2
    command: >
      sh -c 'until busybox wget -qO /www/index.html http://back/; do sleep 1; done;
      exec busybox httpd -f -p 80 -h /www'
    depends_on: [back]
    ports: ["8000:80"]
END
docker compose up -d --quiet-pull
curl -sS --retry 90 --retry-delay 1 --retry-all-errors http://localhost:8000/
docker compose ps --format '{{.Service}} {{.State}}' | sort
"""
# Two pods as a CNI plugin lays them, and a service address as kube-proxy does: the answer of pod 3
# goes over the bridge to pod 2, so its address is put right only if bridged packets are tracked.
PODS = """
sudo modprobe -a br_netfilter overlay
sudo sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
sudo ip link add cni0 type bridge
sudo ip addr add 10.42.0.1/24 dev cni0
sudo ip link set cni0 up
for pod in 2 3; do
  sudo ip netns add pod$pod
  sudo ip link add veth$pod master cni0 type veth peer name eth0 netns pod$pod
  sudo ip link set veth$pod up
  sudo ip -n pod$pod addr add 10.42.0.$pod/24 dev eth0
  sudo ip -n pod$pod link set lo up
  sudo ip -n pod$pod link set eth0 up
  sudo ip -n pod$pod route add default via 10.42.0.1
done
sudo iptables -I FORWARD -s 10.42.0.0/16 -j ACCEPT
sudo iptables -I FORWARD -d 10.42.0.0/16 -j ACCEPT
sudo iptables -t nat -A POSTROUTING -s 10.42.0.0/16 ! -d 10.42.0.0/16 -j MASQUERADE
sudo iptables -t nat -N SERVICE
sudo iptables -t nat -A PREROUTING -d 10.43.0.10 -p tcp --dport 80 -m comment --comment web -j SERVICE
sudo iptables -t nat -A SERVICE -p tcp -m statistic --mode random --probability 1 \
  -j DNAT --to-destination 10.42.0.3:80
docker save own:2 | sudo ctr -n k8s.io images import - >/dev/null
own=docker.io/library/own:2
sudo ctr -n k8s.io run -d --memory-limit 50331648 --with-ns network:/run/netns/pod3 $own web \
  sh -c 'echo pod 3 > /www/index.html; exec busybox httpd -f -p 80 -h /www'
sudo ctr -n k8s.io run --rm --with-ns network:/run/netns/pod2 $own client \
  sh -c 'for try in $(seq 30); do busybox wget -qO - http://10.43.0.10/ && exit; sleep 1; done'
cat /sys/fs/cgroup/k8s.io/web/memory.max
sudo grep -c -m 1 'dst=10.43.0.10 .*src=10.42.0.3 ' /proc/net/nf_conntrack
sudo ip netns exec pod2 curl -sS -o /dev/null -w '%{http_code}\\n' http://deb.debian.org/
"""
# The kubelet's and the volume drivers' part: a delegated tree of limits, kernel messages, containerd's
# interface for it, file systems on top of one another, and a container's mount that the host sees.
NODE = """
sudo systemd-run -q --wait --pipe -p Delegate=yes sh -e <<'END'
cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
mkdir kubelet pod
echo $$ > kubelet/cgroup.procs
echo '+cpu +io +memory +pids' > cgroup.subtree_control
echo 64M > pod/memory.max
echo '20000 100000' > pod/cpu.max
echo 99 > pod/pids.max
cat pod/memory.max pod/cpu.max pod/pids.max
test -e pod/io.stat
END
sudo head -n 1 /dev/kmsg | grep -c .
sudo ctr plugins ls | awk '$2 == "cri" { print $1, $4 }'
mkdir -p below above work both
echo below > below/file
sudo mount -t overlay overlay -o lowerdir=below,upperdir=above,workdir=work both
echo above | sudo tee both/file >/dev/null
cat below/file above/file
sudo umount both
sudo mkdir -p /srv/volume
docker run --rm --privileged -v /srv:/srv:rshared own:1 busybox mount -t tmpfs inner /srv/volume
findmnt -rno SOURCE,FSTYPE /srv/volume
sudo umount /srv/volume
"""
# What the page says only once its script has run: the emoji has colours, letters of a
# proportional font have widths of their own, those of the other have one.
PAGE = """
mkdir -p page
cat > page/index.html <<'END'
<meta charset=utf-8><p id=p>before</p><canvas id=c></canvas><script>
const pen = c.getContext("2d")
const width = (family, text) => {
  pen.font = "30px " + family
  return pen.measureText(text).width
}
const same = (family) => width(family, "iiii") == width(family, "WWWW") ? "same" : "different"
pen.fillText("😀", 0, 30)
const rgba = pen.getImageData(0, 0, 60, 60).data
const emoji = rgba.some((value, at) => at % 4 == 0 && value != rgba[at + 2]) ? "coloured" : "plain"
p.textContent = [emoji, same("monospace"), same("sans-serif"), same("serif")].join(" ")
</script>
END
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
    # Not on its standard input: a container attached to that would swallow the rest.
    argv = 'bash -e -o pipefail -c "$(cat)"'
    done = await atoll.ssh(argv, user=vm, stdin=script.encode(), seconds=seconds)
    return done.out.decode().splitlines()


async def test_it_boots_without_complaint(full: Atoll) -> None:
    said = await lines(full, "systemctl is-system-running --wait; docker info -f '{{.Driver}}'")
    assert said == ["running", "overlay2"]


async def test_a_container_from_the_vms_own_files(full: Atoll) -> None:
    (imported,) = await lines(full, IMPORT)
    assert imported.startswith("sha256:")
    said = await lines(full, LIMITED)
    assert said == ["boat", "0", str(48 << 20), "debian trixie", "debian trixie"]
    assert await lines(full, BUILD) == ["/www"]


async def test_composed_services_find_one_another(full: Atoll) -> None:
    assert await lines(full, COMPOSE) == ["back-office", "back running", "front running"]


async def test_a_clone_carries_the_containers_on(full: Atoll) -> None:
    await full.ssh("cp", "full", "full-next")
    script = (
        "curl -sS http://localhost:8000/; docker ps -q | wc -l; docker exec pair-back-1 hostname"
    )
    assert await lines(full, script, vm="full-next") == ["back-office", "2", "back-office"]
    await full.ssh("rm", "full-next")


async def test_pods_reach_a_service_and_the_world(full: Atoll) -> None:
    assert await lines(full, PODS) == ["pod 3", str(48 << 20), "1", "200"]


async def test_a_machine_as_a_kubelet_wants_it(full: Atoll) -> None:
    assert await lines(full, NODE) == [
        *(str(64 << 20), "20000 100000", "99"),
        "1",
        "io.containerd.grpc.v1 ok",
        *("below", "above"),
        "inner tmpfs",
    ]


async def test_a_browser_runs_the_script_of_a_page(full: Atoll) -> None:
    page = "\n".join(await lines(full, PAGE))
    assert '<p id="p">coloured same different different</p>' in page
