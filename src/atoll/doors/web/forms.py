"""Forms made from the declarations of verbs: what they ask, and the line they stand for.

Invariant: a form names a verb of the registry and values for its parameters, nothing else. What it
sends comes back through `composed`, so a browser that makes up a form can do what a line can do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from atoll.base.errors import NotFound
from atoll.commands.compose import Composed, Values, compose
from atoll.commands.library import slug_of
from atoll.commands.registry import Command, Parameter, Registry
from atoll.doors.web.sent import Sent

DRY_RUN = "dry_run"  # the switch of every form that changes something
ELSEWHERE = frozenset({"ssh", "exit"})  # a terminal's, and a prompt's


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter as a person fills it in."""

    parameter: Parameter
    value: str = ""
    choices: tuple[str, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """As it is sent."""
        return self.parameter.name

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off; it starts as it is by default, so the line does not say it."""
        return self.parameter.is_switch

    @property
    def kind(self) -> str:
        """`switch`, `choice`, `area` (several lines) or `text`."""
        parameter = self.parameter
        if self.is_switch:
            return "switch"
        if self.choices:
            return "choice"
        is_pairs = parameter.is_many and "=" in parameter.value  # one in a line
        return "area" if parameter.reads_stdin or is_pairs else "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A verb with values that are given and fields that are asked."""

    command: Command
    given: Values
    fields: tuple[Field, ...]

    @property
    def slug(self) -> str:
        """`share-set-public`."""
        return slug_of(self.command)

    @property
    def line(self) -> str:
        """The line it stands for as long as nothing is filled in."""
        values = {field.name: [field.value] for field in self.fields if not field.is_switch}
        return compose(self.command, {**self.given, **values}).line


class Forms:
    """Makes and reads forms of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._by_slug = {slug_of(command): command for command in registry}

    def __iter__(self) -> Iterator[Command]:
        return iter(c for c in self._by_slug.values() if c.name not in ELSEWHERE)

    def command(self, slug: str) -> Command:
        """The verb with this slug that a form may stand for; raises NotFound."""
        command = self._by_slug.get(slug)
        if command is None or command.name in ELSEWHERE:
            raise NotFound(f"no form {slug[:60]!r}", hint="See /run")
        return command

    def act(self, name: str, **given: str | Sequence[str]) -> Form:
        """A form that is one button."""
        return self.form(name, (), given)

    def form(
        self,
        name: str,
        ask: Iterable[str],
        given: Mapping[str, str | Sequence[str]],
        *,
        choices: Mapping[str, Sequence[str]] | None = None,
        values: Mapping[str, str] | None = None,
    ) -> Form:
        """A form of the verb `name` that asks for some parameters; others are given or left out."""
        command = self.command(name.replace(" ", "-"))
        by_name = {parameter.name: parameter for parameter in command.parameters}
        return Form(
            command=command,
            given={k: [v] if isinstance(v, str) else list(v) for k, v in given.items()},
            fields=tuple(
                Field(
                    parameter=by_name[each],
                    value=(values or {}).get(each, ""),
                    choices=tuple((choices or {}).get(each, ())),
                )
                for each in ask
            ),
        )

    def whole(self, slug: str, *, choices: Mapping[str, Sequence[str]]) -> Form:
        """A form that asks for everything a verb takes, but for what would never end."""
        command = self.command(slug)
        every = (*command.places, *command.options)
        ask = [parameter.name for parameter in every if not parameter.is_endless]
        return self.form(slug, ask, {}, choices=choices)

    def composed(self, slug: str, sent: Sent) -> Composed:
        """The line that a sent form stands for. Raises NotFound, Invalid."""
        command = self.command(slug)
        values = dict(sent)
        is_dry_run = values.pop(DRY_RUN, [""])[-1] == "true"
        return compose(command, _without_defaults(command, values), is_dry_run=is_dry_run)


def _without_defaults(command: Command, values: dict[str, list[str]]) -> Values:
    """A switch comes as `false` from its hidden twin, and then as `true` when it is set; one that is
    left as it is by default is not said.
    """
    kept = dict(values)
    for option in command.options:
        sent = values.get(option.name)
        if option.is_switch and sent:
            is_set = sent[-1] == "true"
            if is_set == (option.default == "true"):
                del kept[option.name]
    return kept
