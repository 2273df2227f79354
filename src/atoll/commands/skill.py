"""The page for coding agents: at most 1,500 tokens, every command in it run by a test."""

from __future__ import annotations

from atoll.commands.addresses import Addresses

SLUG = "skill"
TITLE = "Skill for coding agents"
SUMMARY = "all that an agent needs, in one page"
_TEXT = """\
---
name: atoll
description: Make, use, copy and remove Linux VMs with one SSH command each. Use it when a task needs a \
machine of its own: a server, a test run, a build, an experiment that may break things.
---

# Atoll: VMs over SSH

A command is one SSH call with one quoted line. Read its text: it is a third of the tokens of `--json`,
which is for programs. Your SSH key is your login. If the person uses another key or host alias, keep to
theirs.

```sh
{lobby} 'whoami'
{lobby} 'new --name web'
{lobby} 'ls --json'
{lobby} 'ls -l "we*"'
```

`new` returns when the VM answers (about a second when warm). It takes `--cpu 2 --memory 2G --disk 20G
--image debian --tag ci --comment "why"`; without `--name` it picks one. Names are of lower
case, digits and `-`. `--image full` has Docker, compilers, Node.js and Chromium. It prints name
and state, the `ssh` line and the web address; with `--json` they are `vm_name`, `status`,
`ssh_command`, `https_url`.

## Work inside

Debian, systemd, user `atoll` with sudo, disk kept. scp, sftp, rsync and port forwards work with the same
address.

```sh
{vm} 'uname -a && sudo apt-get update'
{scp} -r ./site {dest}:
{vm} 'systemd-run --user --unit site python3 -m http.server 8000'
{lobby} 'ssh web uptime'
{lobby} 'stat web'
{lobby} 'vm-logs web'
```

The exit code is that of the command inside. Start long jobs with `systemd-run --user`: they outlive
the connection.

## Web

What listens on port 8000 inside is at {url}, for the signed-in owner only.
Ask the person before you make anything public.

```sh
{lobby} 'share port web 3000'
{lobby} 'share set-public web'
{lobby} 'share set-private web'
{lobby} 'browser'
```

`browser` prints a link that signs in whoever opens it, once: give it to the person, to nobody else.

## Try on a copy, then keep or drop it

`cp` clones a running VM with memory and processes in about a second; the original runs on.

```sh
{lobby} 'cp web web-try'
{lobby} 'rename web-try web-next'
{lobby} 'restart web-next'
{lobby} 'pause web'
{lobby} 'resume web'
{lobby} 'tag web-next ci'
```

`pause` frees CPU and memory and keeps processes; `restart` loses them, not the disk.

Before something risky in place, keep the disk; `rollback` makes it what it was, and boots
(after `snap --live` it runs on instead).

```sh
{lobby} 'snap web before'
{lobby} 'rollback web'
```

## Remove

```sh
{lobby} 'rm "web-*" --dry-run'
{lobby} 'rm web-next'
{lobby} 'undo'
{lobby} 'billing usage'
```

`--dry-run` works on everything that changes something, checks all and does nothing. `rm` does not ask;
`undo` takes back the last `rm` or `rollback`, for a day. Remove only VMs you made or were told to.

## Errors

Text on stderr, what to try in its second line. Exit code 2: the line is wrong, do not repeat it. 66: no
such VM. 75: busy or in the wrong state, `resume` it or wait. 69: a limit, or no answer; look with `ls`,
then repeat. 77: your key may not. An exit code of your own command inside a VM can be the same.

Quoting: your shell takes the outer quotes, Atoll the inner: `'comment web "two words"'`.

```sh
{lobby} 'comment web "made for the nightly build"'
{lobby} 'help'
{lobby} 'new --help'
{lobby} 'doc language'
```

Without SSH: `curl -H "Authorization: Bearer $TOKEN" -d 'ls' {exec_url}` (the certificate's authority is
at {ca_url}), with a token from:

```sh
{lobby} 'ssh-key generate-api-key --label agent --cmds ls,new,ssh,rm --exp 30d'
```
"""


def skill(addresses: Addresses) -> str:
    """The page for one cloud, with its own addresses in every line."""
    return _TEXT.format(
        lobby=addresses.lobby_command,
        scp=addresses.scp,
        dest=addresses.ssh_dest("web"),
        vm=addresses.ssh_command("web"),
        url=addresses.https_url("web"),
        ca_url=addresses.cloud_url("ca.pem"),
        exec_url=addresses.cloud_url("exec"),
    ).rstrip("\n")
