"""Small rules about the words of a line. Pure."""

from __future__ import annotations

import shlex

from atoll.commands.parse import JSON_FLAG


def wants_stdin(line: str) -> bool:
    """Whether a word of the line is `-` or `/dev/stdin`, also as `--flag=-`."""
    try:
        words = shlex.split(line)
    except ValueError:
        return False
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    return any(value in ("-", "/dev/stdin") for value in values)


def wants_json(line: str) -> bool:
    """Whether the line asks for JSON, which is for programs."""
    return JSON_FLAG in line.split()


def commands(text: str) -> list[str]:
    """The commands of pasted lines: each line is one, unless a quote goes on in the next."""
    found: list[str] = []
    begun = ""
    for line in text.split("\n"):
        begun = f"{begun}\n{line}" if begun else line
        if not _is_open(begun):
            found.append(begun.strip())
            begun = ""
    return [command for command in [*found, begun.strip()] if command]


def _is_open(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:
        return True
    return False


def common_start(words: list[str]) -> str:
    """The longest text that all of the sorted words begin with."""
    first, last = words[0], words[-1]
    for index, letter in enumerate(first):
        if index >= len(last) or last[index] != letter:
            return first[:index]
    return first
