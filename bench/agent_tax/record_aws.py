"""Record what the AWS CLI prints: `python bench/agent_tax/record_aws.py` (needs PyPI, two minutes).

awscli and moto's server, at the versions below, go into a folder that is removed afterwards. moto answers
as EC2 does, with fewer fields, so what is recorded is a lower bound of the real thing. The fleet is
made first and not recorded. Assumed in AWS's favour: image, key pair and an open security group
exist, their ids are known, and so are those that `list` printed; each command works the first time.
Left out, because EC2 has no like of it: a web address with TLS and sign-in, a copy's memory.

Each task is recorded twice: with the client's own JSON, and by somebody who has every answer cut down
to what the next command needs (`--query`).
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from bench.agent_tax.tasks import CONSOLE, COPY, FLEET, NEW, TAG  # noqa: E402

PACKAGES = ("awscli==1.46.3", "moto[ec2,server]==5.2.5")
RECORD = Path(__file__).with_name("aws.json")
TYPE, LARGER, IMAGE, KEY = "t3.small", "t3.large", "ami-12c6146b", "laptop"
# moto's console text is of a Xen guest; ours takes its place, so that all sides print the same.
SERVER = (
    "import sys, moto.ec2.responses.general as g, moto.server as s;"
    "g.SAMPLE_CONSOLE_OUTPUT = sys.argv.pop(1); s.main(sys.argv[1:])"
)
_ADDRESS = "--query Reservations[].Instances[].PublicIpAddress --output text"
_ID = "--query Instances[].InstanceId --output text"
_NONE = "--query a --output text"  # prints `None`
_LIST = (
    "describe-instances --output text --query 'Reservations[].Instances[].[Tags[?Key==`Name`]|[0].Value,"
    "InstanceId,State.Name,PublicIpAddress]'"
)


def _run_instance(image: str, name: str) -> str:
    tags = f"ResourceType=instance,Tags=[{{Key=Name,Value={name}}},{{Key=Tag,Value={TAG}}}]"
    return (
        f"run-instances --image-id {image} --instance-type {TYPE} --key-name {KEY} "
        f"--tag-specifications '{tags}'"
    )


class Ec2:
    """The client, and the ids it has printed so far."""

    def __init__(self, program: Path, port: int, home: Path) -> None:
        self._program = program
        self._environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def ask(self, line: str) -> str:
        """Run `aws ec2 LINE`; raises RuntimeError with what it said when it fails."""
        done = subprocess.run(
            [str(self._program), "ec2", *shlex.split(line)],
            env=self._environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"aws ec2 {line}: {done.stderr.strip()}")
        return done.stdout.strip()

    def turns(self, *lines: str) -> list[dict[str, str]]:
        """Run and record."""
        return [{"command": f"aws ec2 {line}", "output": self.ask(line)} for line in lines]

    def fleet(self) -> dict[str, str]:
        """Make it; name -> id."""
        self.ask(f"create-key-pair --key-name {KEY}")
        return {name: self.ask(f"{_run_instance(IMAGE, name)} {_ID}") for name in FLEET}


def record(ec2: Ec2) -> dict[str, dict[str, list[dict[str, str]]]]:
    """Both ways of doing every task, in the order of the tasks."""
    ids = ec2.fleet()
    return {"plain": _plain(ec2, ids), "cut": _cut(ec2, ids)}


def _plain(ec2: Ec2, ids: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    web = ids["web"]
    tasks = {"list": ec2.turns("describe-instances")}
    tasks["create"] = ec2.turns(_run_instance(IMAGE, NEW))
    made = json.loads(tasks["create"][0]["output"])["Instances"][0]["InstanceId"]
    tasks["create"] += _awaited(ec2, made)
    tasks["copy"] = ec2.turns(f"create-image --instance-id {web} --name {COPY}")
    image = json.loads(tasks["copy"][0]["output"])["ImageId"]
    tasks["copy"] += ec2.turns(f"wait image-available --image-ids {image}")
    tasks["copy"] += ec2.turns(_run_instance(image, COPY))
    copied = json.loads(tasks["copy"][-1]["output"])["Instances"][0]["InstanceId"]
    tasks["copy"] += _awaited(ec2, copied)
    tasks["logs"] = ec2.turns(f"get-console-output --instance-id {web}")
    tasks |= _rest(ec2, web, copied, "", "")
    ec2.ask(f"terminate-instances --instance-ids {made}")
    return tasks


def _cut(ec2: Ec2, ids: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    web = ids["web"]
    tasks = {"list": ec2.turns(_LIST)}
    tasks["create"] = ec2.turns(f"{_run_instance(IMAGE, NEW)} {_ID}")
    tasks["create"] += _awaited(ec2, tasks["create"][0]["output"])
    line = f"create-image --instance-id {web} --name {COPY}2 --query ImageId --output text"
    tasks["copy"] = ec2.turns(line)
    image = tasks["copy"][0]["output"]
    tasks["copy"] += ec2.turns(f"wait image-available --image-ids {image}")
    tasks["copy"] += ec2.turns(f"{_run_instance(image, COPY)} {_ID}")
    copied = tasks["copy"][-1]["output"]
    tasks["copy"] += _awaited(ec2, copied)
    tasks["logs"] = ec2.turns(
        f"get-console-output --instance-id {web} --output text --query Output"
    )
    return tasks | _rest(ec2, web, copied, f" {_NONE}", " --query SnapshotId --output text")


def _awaited(ec2: Ec2, instance: str) -> list[dict[str, str]]:
    """Until it can be logged in to, and where: the address is not there before it runs."""
    return ec2.turns(
        f"wait instance-status-ok --instance-ids {instance}",
        f"describe-instances --instance-ids {instance} {_ADDRESS}",
    )


def _rest(
    ec2: Ec2, web: str, copied: str, silent: str, snapshot: str
) -> dict[str, list[dict[str, str]]]:
    """What is the same in both ways but for how much of the answers is asked for."""
    instance = json.loads(ec2.ask(f"describe-instances --instance-ids {web}"))
    found = instance["Reservations"][0]["Instances"][0]
    volume = found["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    address = "203.0.113.7" if silent else "203.0.113.8"  # a rule cannot be made twice
    return {
        "share with one person": ec2.turns(  # of one address; who sits there, EC2 cannot know
            f"authorize-security-group-ingress --group-name default --protocol tcp --port 443 "
            f"--cidr {address}/32{silent}"
        ),
        "restart": ec2.turns(
            f"reboot-instances --instance-ids {web}",
            f"wait instance-status-ok --instance-ids {web}",
        ),
        "resize": [
            *ec2.turns(
                f"stop-instances --instance-ids {web}{silent}",
                f"wait instance-stopped --instance-ids {web}",
                f"modify-instance-attribute --instance-id {web} --instance-type "
                f"{TYPE if silent else LARGER}",
                f"start-instances --instance-ids {web}{silent}",
            ),
            *_awaited(ec2, web),  # a start gives another address
        ],
        "snapshot": ec2.turns(f"create-snapshot --volume-id {volume}{snapshot}"),
        # rollback is create-replace-root-volume-task, which moto does not know
        "delete": ec2.turns(f"terminate-instances --instance-ids {copied}{silent}"),
    }


def main() -> None:
    """Install, serve, record, write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else _installed(root)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        argv = [str(place / "bin" / "python"), "-c", SERVER, CONSOLE, "-H", "127.0.0.1"]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen([*argv, "-p", str(port)], stdout=log, stderr=log)
        try:
            _wait_for(port)
            sides = record(Ec2(place / "bin" / "aws", port, root))
        finally:
            server.terminate()
            server.wait()
    RECORD.write_text(json.dumps({"made_with": list(PACKAGES), **sides}, indent=1) + "\n")
    print(f"wrote {RECORD}")


def _installed(root: Path) -> Path:
    place = root / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
    subprocess.run([str(place / "bin/pip"), "install", "-q", *PACKAGES], check=True, timeout=600)
    return place


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise SystemExit("moto's server does not listen")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
