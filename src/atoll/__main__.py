"""The command line of the host: set up, look, serve. Users of the cloud use SSH, HTTPS or the API.

The only module that prints. An AtollError ends the program with its message and hint on stderr and
its exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from typing import Any

from atoll.base import log
from atoll.base.errors import AtollError, Invalid
from atoll.config import Config, load, path_in_force, render
from atoll.doctor import running
from atoll.doctor.examine import examine
from atoll.doctor.finding import Finding, Level
from atoll.doors.edge import launch
from atoll.doors.local import socket_path
from atoll.doors.names import launch as dns_launch
from atoll.host_setup.layout import log_dir
from atoll.host_setup.local import Local
from atoll.host_setup.processes import build, children, choose, names
from atoll.supervise.supervisor import Supervisor, allow_many_files


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except AtollError as error:
        print(f"atoll: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        return error.exit
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
        return 128 + signal.SIGPIPE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atoll", description="A cloud you own, on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("up", _up, "start everything; make the first account and VM (root)")
    add("down", _down, "pause all VMs to disk and end every process (root)")
    purge = add("purge", _purge, "down, then delete all data (root)")
    purge.add_argument("--yes", action="store_true", help="really")
    add("status", _status, "what runs")
    doctor = add("doctor", _doctor, "what is missing or degraded, and what to type")
    doctor.add_argument("--json", action="store_true", help="findings as JSON")
    config = add("config", _config, "the configuration in force")
    config.add_argument("what", choices=("show", "path"), nargs="?", default="show")
    ssh = add("ssh-config", _ssh_config, "OpenSSH client configuration for short names (root)")
    ssh.add_argument("--install", action="store_true", help="write it into ~/.ssh")
    trust = add("trust", _trust, "have this machine trust the certificates of this cloud (root)")
    trust.add_argument("--remove", action="store_true", help="no longer")
    trust.add_argument("--print", action="store_true", help="print the CA's certificate instead")
    issuer = add("issuer", _issuer, "the keys that tokens of this cloud are signed with (root)")
    issuer.add_argument("what", choices=("rotate",), help="new ones now; all tokens end")
    execute = add("exec", _exec, "run one command of the cloud as its owner (root)")
    execute.add_argument("line", nargs=argparse.REMAINDER, help="for example: ls --json")
    edge = add("edge", _edge, "the keys that sign what browsers show at VMs (root)")
    edge.add_argument("what", choices=("rotate-key",))
    edge.add_argument(
        "--revoke",
        action="store_true",
        help="forget all older keys: browsers go round by the sign-in",
    )
    serve = add("serve", _serve, "run one of the processes in the foreground")
    serve.add_argument("what", choices=("engine", "control", "edge", "dns", "supervise"))
    serve.add_argument("--only", action="append", help="supervise only this child")
    return parser


def _up(_arguments: argparse.Namespace) -> int:
    from atoll.host_setup.progress import Progress
    from atoll.host_setup.up import up

    asyncio.run(up(load(), path_in_force(), Progress(sys.stdout)))
    return 0


def _down(_arguments: argparse.Namespace) -> int:
    from atoll.host_setup.down import down
    from atoll.host_setup.progress import Progress

    asyncio.run(down(load(), path_in_force(), Progress(sys.stdout)))
    return 0


def _purge(arguments: argparse.Namespace) -> int:
    config = load()
    if not arguments.yes:
        raise Invalid(
            f"purge deletes every VM, disk and key under {config.paths.state}",
            hint="Try: atoll purge --yes",
        )
    from atoll.host_setup.down import purge
    from atoll.host_setup.progress import Progress

    asyncio.run(purge(config, path_in_force(), Progress(sys.stdout)))
    return 0


def _status(_arguments: argparse.Namespace) -> int:
    async def look(config: Config) -> list[Finding]:
        return await running.examine(config, await _process_facts(config))

    return _print_findings(asyncio.run(look(load())))


def _doctor(arguments: argparse.Namespace) -> int:
    async def look() -> list[Finding]:
        config, problem = _load_or_default()
        return await examine(config, path_in_force(), problem, await _process_facts(config))

    return _print_findings(asyncio.run(look()), as_json=arguments.json)


def _load_or_default() -> tuple[Config, AtollError | None]:
    """The doctor must work on a broken machine."""
    try:
        return load(), None
    except AtollError as error:
        return Config(), error


async def _process_facts(config: Config) -> dict[str, str]:
    return await choose(config, path_in_force()).facts()


def _print_findings(findings: Sequence[Finding], *, as_json: bool = False) -> int:
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(finding.line() for finding in findings))
    return 1 if any(finding.level is Level.MISSING for finding in findings) else 0


def _config(arguments: argparse.Namespace) -> int:
    print(path_in_force() if arguments.what == "path" else render(load()))
    return 0


def _ssh_config(arguments: argparse.Namespace) -> int:
    from atoll.host_setup import ssh_config
    from atoll.host_setup.people import become, caller

    config = load()
    keys = asyncio.run(Local(socket=socket_path(config.paths.run)).public_keys())
    text = ssh_config.render(config, gateway_key=keys["gateway_key"], host_ca=keys["host_ca"])
    if not arguments.install:
        print(text, end="")
        return 0
    person = caller()
    become(person)
    path = ssh_config.install(text, person, config)
    short = config.https.domain.partition(".")[0]
    print(f"wrote {path}; try: ssh {short} help")
    return 0


def _trust(arguments: argparse.Namespace) -> int:
    from atoll.host_setup import trust

    config = load()
    if arguments.print:
        print(trust.certificate(config), end="")
        return 0
    if arguments.remove:
        path, was_there = asyncio.run(trust.remove(config))
        print(f"{path} is gone" if was_there else f"{path} was not there")
        return 0
    path, is_new = asyncio.run(trust.install(config))
    print(f"{path} is trusted {'now' if is_new else 'already'}\n\n{trust.elsewhere(config)}")
    return 0


def _issuer(_arguments: argparse.Namespace) -> int:
    kid = asyncio.run(Local(socket=socket_path(load().paths.run)).rotate_issuer())
    print(f"tokens are signed with {kid} from now on; no earlier one is good any more")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    def progress(text: str) -> None:
        print(text, file=sys.stderr)

    def more(text: str) -> None:
        print(text, flush=True)

    words = arguments.line[1:] if arguments.line[:1] == ["--"] else arguments.line
    local = Local(socket=socket_path(load().paths.run))
    reply = asyncio.run(local.execute(shlex.join(words), progress=progress, more=more))
    if reply["text"]:
        print(reply["text"])
    return int(reply["exit"])


def _edge(arguments: argparse.Namespace) -> int:
    local = Local(socket=socket_path(load().paths.run))
    kid = asyncio.run(local.rotate_key(revoke=arguments.revoke))
    older = "older ones are forgotten" if arguments.revoke else "the one before verifies for 12 h"
    print(f"key {kid} signs now; {older}")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    log.setup(json=not sys.stderr.isatty())
    config = load()
    if arguments.what == "supervise":
        allow_many_files()
        asyncio.run(_supervisor(config, arguments.only or names(config)).run())
        return 0
    if arguments.what == "edge":
        asyncio.run(launch.prepare(config))
        launch.become_haproxy(config)
    if arguments.what == "dns":
        asyncio.run(dns_launch.prepare(config))
        dns_launch.become_knot(config)
    from atoll import daemon  # heavy: the whole of one half

    run = daemon.run_engine if arguments.what == "engine" else daemon.run_control
    asyncio.run(_until_told(run(config)))
    return 0


def _supervisor(config: Config, names: Sequence[str]) -> Supervisor:
    return Supervisor(
        children=[child for child in children(config) if child.name in names],
        run_dir=config.paths.run,
        log_dir=log_dir(config),
        build=build(config),
    )


async def _until_told(job: Coroutine[Any, Any, None]) -> None:
    """Run `job` until it ends or SIGTERM or SIGINT cancels it, which is a clean end."""
    task = asyncio.current_task()
    assert task is not None
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await job
    except asyncio.CancelledError:
        if not told:
            raise


if __name__ == "__main__":
    sys.exit(main())
