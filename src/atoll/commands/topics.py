"""Pages that no declaration can give: how a line is read, what a dry run is, what a setup script is.

Markdown without the heading, which whoever shows the page sets at its own level.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from atoll.commands.dry_run import STEPS

_NOTES = {"set": " (with the new values and `was`)", "inform": " (a VM learns its name or keys)"}
_STEPS = ", ".join(f"`{do}`{_NOTES.get(do, '')}" for do in STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One page."""

    slug: str
    title: str
    summary: str
    body: str


LANGUAGE = Topic(
    slug="language",
    title="The command line",
    summary="quoting, flags, several VMs, JSON, exit codes",
    body="""\
One line is one command, and the same line works over SSH (`ssh <host> '<line>'`), at the prompt
(`ssh <host>`) and as the body of `POST /exec`.

- Words are split as by a POSIX shell: blanks separate; `'…'` keeps everything, `"…"` all but `\\` and
  `"`; a `\\` keeps the next character. Nothing is expanded: no variables, no files, no `;`, no `|`.
- Over SSH your own shell reads the line first and takes one level of quotes away. Put the whole line
  into one pair: `ssh <host> 'comment web "the shop, since May"'`.
- Flags stand anywhere after the command: `--name web` or `--name=web`; a switch is also `--all=false`.
  After `--` nothing is a flag. What follows the VM in `ssh <vm> …` is the command there, with its flags.
- `rm`, `restart`, `pause`, `resume`, `stat` take several VMs, and names with `*` and `?`; `ls`,
  `events` and `tag` take one such pattern. Each VM has a result of its own; the exit code is that of the
  first that failed. A pattern that matches nothing is an error. `rm '*'` needs `--all`. One plain name is
  not answered with a list.
- `--json` prints the result as JSON (`POST /exec` always does), `--help` explains and runs nothing,
  `--dry-run` says what would be done.
- A line has at most 64 KiB of UTF-8, without NUL. Exit code 0 is success; see `doc errors`.""",
)

DRY_RUN = Topic(
    slug="dry-run",
    title="--dry-run",
    summary="what a command would do, without doing it",
    body="""\
Checks all that the command checks (the line, the scope of key or token, names, limits, image, sizes,
state), fails as the command would, and else says what would be done. Nothing is changed and no event is
recorded. What only the engine can refuse, as a pool that runs full on the way, is not foreseen.

```sh
rm web --dry-run
```

JSON: `{"dry_run": true, "would": [{"do": "remove", "vm_name": "web"}]}`. `would` has an entry per step,
in order, and is empty when nothing would change. `notes` (what the command would report on its way) and
`errors` (VM to reason, when others of the same line could be changed) are there when they say something.
"""
    + textwrap.fill(
        f"`do` is one of {_STEPS}. A name that is drawn at random is `null`; secrets are not made.",
        width=104,
        break_on_hyphens=False,
    ),
)

SETUP = Topic(
    slug="setup",
    title="Setup scripts",
    summary="what a new VM runs once, and its variables",
    body="""\
`new --setup-script` gives a VM a script of at most 10 KiB; `new` answers when the VM does, and the script
runs on in it: as root, in `/root`, without input, for at most six hours. A script without `#!` is run by
`/bin/sh`. Programs it leaves in the background go on.

- `--setup-script TEXT`: `\\n` in it ends a line and `\\\\` is a backslash; other backslashes stay. `-` or
  `/dev/stdin`: stdin, as it is. Over SSH the text needs quotes of its own; stdin needs none.
- It runs at most once. When the VM is cut off or restarted in the middle, it does not begin again. A copy
  of the running VM goes on with it where it was; a copy that boots has it only if it had not begun. The
  script is removed from the VM's disk when it ends, also when it fails.
- `--env NAME=VALUE`, repeated for more: in `/etc/profile.d/atoll-env.sh`, for login shells (not for
  `ssh <vm> <command>`) and for the script. Every user in the VM can read it.
- The cloud keeps neither once the VM has them. A script for all your new VMs it does keep:
  `defaults write atoll new.setup-script …`; `new --setup-script ''` makes one without.

```sh
ssh web systemctl show -p ActiveState,Result exe-setup
ssh web journalctl -u exe-setup
```

`activating` while it runs; then `inactive` with `success`, or `failed`.""",
)

TOPICS = (LANGUAGE, DRY_RUN, SETUP)
