"""What a transaction would change for one account: two pictures of it, and the steps between.

A step is named by what it does to something a user knows. It holds no secret, so a dry run that
would make a token shows everything of it but the token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from atoll.domain.operation import Json, Operation, OpKind
from atoll.domain.vm import Phase, VmRecord
from atoll.services.sessions import ID_CHARS
from atoll.services.sharing_steps import Given, given_by, sharing_steps
from atoll.services.step import Step
from atoll.services.team_steps import TEAM_TABLES, TeamsPicture, team_steps, teams_picture
from atoll.store import accounts, defaults, domains, operations, passkeys, people, sessions, vms
from atoll.store.accounts import SshKey
from atoll.store.engine import Tx
from atoll.store.people import Invitation
from atoll.store.sessions import TokenRow

# What `Picture` shows, what changes only to be tidied on the way, and the trace of it all.
TABLES = TEAM_TABLES | {
    *("vms", "tags", "ssh_keys", "api_tokens", "operations", "login_codes", "sessions"),
    *("defaults", "grants", "links", "access_requests", "events", "invitations", "passkeys"),
    *("domains", "visits", "visitors", "snapshots"),
}
_MADE = {OpKind.CREATE: "create", OpKind.CLONE: "copy"}
_DONE = {
    OpKind.PAUSE: "pause",
    OpKind.RESUME: "resume",
    OpKind.RESTART: "restart",
    OpKind.RESIZE: "resize",
    OpKind.SNAPSHOT: "snapshot",
    OpKind.ROLLBACK: "rollback",
    OpKind.DROP_SNAPSHOT: "drop-snapshot",
    OpKind.TRASH: "remove",
    OpKind.IDENTIFY: "inform",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What of one account a command may change, as far as the other picture differs in its VMs."""

    labels: Mapping[str, str]  # of all VMs, by id
    vms: Mapping[str, VmRecord]
    keys: Mapping[str, SshKey]
    tokens: Mapping[str, TokenRow]
    operations: Mapping[str, Operation]
    codes: frozenset[str]
    defaults: Mapping[str, str]
    given: Given
    teams: TeamsPicture
    emails: Mapping[str, str]  # of the owners of `vms`, by account
    ended: frozenset[str]  # hashes of sessions
    passkeys: frozenset[str]  # their names
    invitations: Mapping[str, Invitation]  # of everybody: only admins change them
    domains: Mapping[str, str]  # to the VM's id


async def pictures(before: Tx, after: Tx, account: str) -> tuple[Picture, Picture]:
    """The account as two transactions see it. VMs are read only where a mark or an operation differs:
    a dry run that concerns each of 500 VMs looks 500 times.
    """
    marks = [await vms.marks(tx, account) for tx in (before, after)]
    owners = [await vms.owners(tx) for tx in (before, after)]
    unfinished = [await operations.unfinished(tx) for tx in (before, after)]
    touched = {vm for vm, _ in marks[0].items() ^ marks[1].items()}
    touched |= {op.vm for op in unfinished[1] if op not in unfinished[0]}
    touched |= {vm for vm, owner in owners[0].items() if owners[1].get(vm, owner) != owner}
    first, second = [
        await _picture(tx, account, touched, marked, ops)
        for tx, marked, ops in zip((before, after), marks, unfinished, strict=True)
    ]
    return first, second


async def _picture(
    tx: Tx,
    account: str,
    touched: Collection[str],
    marked: Mapping[str, tuple[str, int]],
    unfinished: Iterable[Operation],
) -> Picture:
    shown = await vms.some(tx, touched)
    known = await accounts.some(tx, {account, *(vm.owner for vm in shown)})
    emails = {id_: one.email for id_, one in known.items()}
    email = emails.get(account, "")
    return Picture(
        labels={vm: label for vm, (label, _) in marked.items()},
        vms={vm.id: replace(vm, generation=0) for vm in shown},
        keys={key.fingerprint: key for key in await accounts.keys_of(tx, account)},
        tokens={token.hash: token for token in await sessions.tokens_of(tx, account)},
        operations={op.id: op for op in unfinished if op.account == account},
        codes=await sessions.codes_of(tx, account),
        defaults=await defaults.of(tx, account),
        given=await given_by(tx, account, email),
        teams=await teams_picture(tx, account, email),
        emails=emails,
        ended=await sessions.revoked_of(tx, account),
        passkeys=frozenset(key.name for key in await passkeys.of(tx, account)),
        invitations={each.email: each for each in await people.invited(tx)},
        domains={row.domain: row.vm for row in await domains.of_vms(tx, marked.keys())},
    )


def difference(before: Picture, after: Picture) -> tuple[Step, ...]:
    """The steps from one to the other: what the store says, then what VMs and engine are told."""
    started = [op for key, op in after.operations.items() if key not in before.operations]
    return (
        *team_steps(before.teams, after.teams),
        *_vm_steps(before, after, started),
        *_key_steps(before, after),
        *_token_steps(before, after),
        *(Step("sign-in-link", {}) for _ in after.codes - before.codes),
        *_default_steps(before.defaults, after.defaults),
        *sharing_steps(before.given, after.given),
        *_people_steps(before, after),
        *_domain_steps(before, after),
        *_operation_steps(before, after, started),
    )


def _vm_steps(before: Picture, after: Picture, started: list[Operation]) -> list[Step]:
    making = {op.vm: op for op in started if op.kind in _MADE}
    steps = []
    for vm_id, vm in after.vms.items():
        old = before.vms.get(vm_id)
        if old is None:
            steps.append(_made(vm, making[vm_id], before))
        elif old.phase is Phase.TRASHED and vm.phase is Phase.LIVE:
            about: dict[str, Json] = {"vm_name": vm.name, "former_name": old.former_name}
            steps.append(Step("restore", about | {"status": vm.wanted.value}))
        elif old.owner != vm.owner:
            heir = {"vm_name": vm.name, "owner": after.emails[vm.owner]}
            steps.append(Step("transfer", heir))
        else:
            steps.extend(_changed(old, vm))
    return steps


def _made(vm: VmRecord, op: Operation, before: Picture) -> Step:
    about: dict[str, Json] = {
        "vm_name": vm.name,
        "image": vm.image,
        "cpus": vm.cpus,
        "memory_bytes": vm.memory_bytes,
        "disk_bytes": vm.disk_bytes,
        "tags": list(vm.tags),
        "comment": vm.comment,
    }
    if source := before.labels.get(str(op.payload.get("source"))):
        of = op.payload.get("of")
        about["source"] = source if of is None else f"{source}@{of}"
    if "setup_script" in op.payload:
        about["setup_script"] = True  # of which, as of variables, the text may be a secret
    if isinstance(env := op.payload.get("env"), dict):
        about["env"] = [*sorted(env)]
    return Step(_MADE[op.kind], about)


def _changed(old: VmRecord, vm: VmRecord) -> list[Step]:
    if old.name != vm.name and vm.name is not None:
        return [Step("rename", {"vm_name": old.name, "new_name": vm.name})]
    was, now = _settings(old), _settings(vm)
    changed = {key: value for key, value in now.items() if value != was[key]}
    if old.is_port_chosen != vm.is_port_chosen:
        changed["port"] = vm.port  # though it may be the same: it stays that from now on
    if not changed:
        return []
    before = {key: was[key] for key in changed}
    return [Step("set", {"vm_name": old.label, **changed, "was": before})]


def _settings(vm: VmRecord) -> dict[str, Json]:
    return {
        "tags": list(vm.tags),
        "comment": vm.comment,
        "port": vm.port,
        "history": vm.history or "default",
    }


def _operation_steps(before: Picture, after: Picture, started: list[Operation]) -> list[Step]:
    """What the engine would be asked for, but for what is said already of new and restored VMs."""
    steps = []
    labels = {**before.labels, **after.labels}  # one that is given away is in the former alone
    for op in sorted(started, key=lambda op: labels[op.vm]):
        old = before.vms.get(op.vm)
        if op.kind in _DONE and old is not None and old.phase is not Phase.TRASHED:
            about: dict[str, Json] = {"vm_name": labels[op.vm]}
            if op.kind is OpKind.RESIZE:
                about |= _new_sizes(old, op)
            if op.kind in (OpKind.SNAPSHOT, OpKind.ROLLBACK, OpKind.DROP_SNAPSHOT):
                about |= {key: op.payload[key] for key in ("name", "to") if key in op.payload}
            steps.append(Step(_DONE[op.kind], about))
    return steps


def _new_sizes(vm: VmRecord, op: Operation) -> dict[str, Json]:
    was: dict[str, Json] = {
        "cpus": vm.cpus,
        "memory_bytes": vm.memory_bytes,
        "disk_bytes": vm.disk_bytes,
    }
    now = {key: value for key, value in op.payload.items() if value != was[key]}
    return {**now, "was": {key: was[key] for key in now}}


def _key_steps(before: Picture, after: Picture) -> list[Step]:
    def step(do: str, key: SshKey) -> Step:
        about: dict[str, Json] = {"name": key.name, "fingerprint": key.fingerprint}
        return Step(do, about | _limits(before, key))

    added = [key for mark, key in after.keys.items() if mark not in before.keys]
    removed = [key for mark, key in before.keys.items() if mark not in after.keys]
    kept = [(key, after.keys.get(mark, key)) for mark, key in before.keys.items()]
    return [
        *(step("add-key", key) for key in added),
        *(step("remove-key", key) for key in removed),
        *(
            Step("rename-key", {"name": old.name, "new_name": new.name})
            for old, new in kept
            if old.name != new.name
        ),
    ]


def _token_steps(before: Picture, after: Picture) -> list[Step]:
    def step(do: str, token: TokenRow) -> Step:
        cmds: Json = None if token.cmds is None else list(token.cmds)
        about: dict[str, Json] = {"label": token.label, "cmds": cmds}
        return Step(do, about | _limits(before, token))

    added = [token for mark, token in after.tokens.items() if mark not in before.tokens]
    removed = [token for mark, token in before.tokens.items() if mark not in after.tokens]
    kept = [(token, after.tokens.get(mark, token)) for mark, token in before.tokens.items()]
    return [
        *(step("add-token", token) for token in added),
        *(step("remove-token", token) for token in removed),
        *(
            Step("rename-token", {"label": old.label, "new_label": new.label})
            for old, new in kept
            if old.label != new.label
        ),
    ]


def _limits(before: Picture, one: SshKey | TokenRow) -> dict[str, Json]:
    """What a key or token is limited to."""
    name = before.labels.get(one.vm or "")
    limits: dict[str, Json] = {"vm_name": name} if name else {}
    if one.tag is not None:
        limits["tag"] = one.tag
    if isinstance(one, SshKey) and one.user is not None:
        limits["ssh_user"] = one.user
    return limits


def _people_steps(before: Picture, after: Picture) -> list[Step]:
    was, now = before.invitations, after.invitations
    return [
        *(
            Step("end-session", {"id": key[:ID_CHARS]})
            for key in sorted(after.ended - before.ended)
        ),
        *(Step("remove-passkey", {"name": name}) for name in before.passkeys - after.passkeys),
        *(Step("invite-person", {"email": email}) for email in now if now[email] != was.get(email)),
        *(Step("uninvite-person", {"email": email}) for email in was if email not in now),
    ]


def _default_steps(before: Mapping[str, str], after: Mapping[str, str]) -> list[Step]:
    changed = [key for key, value in after.items() if before.get(key) != value]
    return [Step("set-default", {"key": key}) for key in changed] + [
        Step("remove-default", {"key": key}) for key in before if key not in after
    ]


def _domain_steps(before: Picture, after: Picture) -> list[Step]:
    def step(do: str, domain: str, vm: str) -> Step:
        return Step(do, {"vm_name": after.labels.get(vm) or before.labels[vm], "domain": domain})

    added = after.domains.items() - before.domains.items()
    removed = before.domains.items() - after.domains.items()
    return [
        *(step("add-domain", *one) for one in sorted(added)),
        *(step("remove-domain", *one) for one in sorted(removed)),
    ]
