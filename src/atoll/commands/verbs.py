"""The whole language: the verbs of every part, in the order help shows them."""

from __future__ import annotations

from atoll.commands import (
    account,
    defaults,
    events,
    help,
    key,
    label,
    listing,
    removal,
    resize,
    share,
    share_links,
    share_people,
    share_received,
    state,
    token,
    usage,
    visits,
    vm,
)
from atoll.commands.registry import Registry

REGISTRY = Registry.of(
    vm.VERBS,
    listing.VERBS,
    removal.VERBS,
    label.VERBS,
    state.VERBS,
    resize.VERBS,
    events.VERBS,
    share.VERBS,
    share_people.VERBS,
    share_links.VERBS,
    share_received.VERBS,
    visits.VERBS,
    key.VERBS,
    token.VERBS,
    account.VERBS,
    defaults.VERBS,
    usage.VERBS,
    help.VERBS,
)
