"""Who may open a VM, as its page shows it: each entry with the button that ends it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.doors.web.forms import Form, Forms

Entry = tuple[Mapping[str, Any], Form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What `share show` said, with forms."""

    people: tuple[Entry, ...]
    links: tuple[Entry, ...]
    public: tuple[Entry, ...]
    asking: tuple[Entry, ...]
    add: Form
    add_link: Form

    @classmethod
    def of(cls, forms: Forms, share: Mapping[str, Any]) -> Shared:
        """From the JSON of `share show`."""
        vm = share["vm_name"]
        return cls(
            people=tuple(
                (user, forms.act("share remove", vm=vm, who=user["email"], **_place(user)))
                for user in share["users"]
            ),
            links=tuple(
                (link, forms.act("share remove-link", vm=vm, link=link["id"]))
                for link in share["links"]
            ),
            public=tuple(
                (one, forms.act("share set-private", vm=vm, **_place(one)))
                for one in share["public"]
                if _place(one)
            ),
            asking=tuple(
                (one, forms.act("share add", vm=vm, who=one["email"])) for one in share["requests"]
            ),
            add=forms.form(
                "share add", ("who", "root", "for", "port", "path", "message"), {"vm": vm}
            ),
            add_link=forms.form("share add-link", ("for", "port", "path"), {"vm": vm}),
        )


def _place(one: Mapping[str, Any]) -> dict[str, str]:
    """The port and path of an entry, as a line gives them."""
    return {key: str(one[key]) for key in ("port", "path") if key in one}
