"""Pages that no declaration can give: how a line is read, and what a dry run is.

Markdown without the heading, which whoever shows the page sets at its own level.
"""

from __future__ import annotations

from dataclasses import dataclass


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
- `rm`, `restart`, `pause`, `resume`, `stat` take several VMs, and names with `*` and `?`; `ls` and `tag`
  take one such pattern. Each VM has a result of its own; the exit code is that of the first that failed.
  A pattern that matches nothing is an error. `rm '*'` needs `--all`. One plain name is not answered
  with a list.
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
`do` is one of `create`, `copy`, `restore`, `rename`, `set` (with the new values and `was`), `inform` (a
VM learns its name or keys), `pause`, `resume`, `restart`, `remove`, `add-key`, `remove-key`,
`rename-key`, `add-token`, `remove-token`, `sign-in-link`. A name that is drawn at random is `null`;
secrets are not made.""",
)

TOPICS = (LANGUAGE, DRY_RUN)
