"""Who may do what to whom in a team, for every pair of roles and for any run of changes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Conflict, Denied, Invalid
from atoll.domain.team import (
    ROLE_WORDS,
    Act,
    Invitation,
    Members,
    Role,
    check_gives,
    check_may,
    check_team,
    may,
    with_role,
    without,
)

RANK = {Role.MEMBER: 0, Role.ADMIN: 1, Role.OWNER: 2}
PEOPLE = ("ann", "bob", "cat", "dan")
INVITATION = Invitation(
    team="team-1", email="x@y", role=Role.ADMIN, invited_by="ann", created_at=0.0, expires_at=10.0
)


def test_what_each_role_may() -> None:
    assert {act for act in Act if may(Role.MEMBER, act)} == {Act.LOOK, Act.LEAVE}
    assert {act for act in Act if not may(Role.ADMIN, act)} == {Act.DISABLE}
    assert all(may(Role.OWNER, act) for act in Act)
    with pytest.raises(Denied, match="a member of a team may not rename it"):
        check_may(Role.MEMBER, Act.RENAME)
    assert ROLE_WORDS["user"] is Role.MEMBER


@pytest.mark.parametrize(("by", "role"), list(itertools.product(Role, repeat=2)))
def test_nobody_invites_above_themselves(by: Role, role: Role) -> None:
    allowed = by is not Role.MEMBER and RANK[role] <= RANK[by]
    if allowed:
        check_gives(by, role)
    else:
        with pytest.raises(Denied):
            check_gives(by, role)


@pytest.mark.parametrize(("by", "whom", "role"), list(itertools.product(Role, repeat=3)))
def test_roles_given_to_others(by: Role, whom: Role, role: Role) -> None:
    members = {"by": by, "whom": whom, "other": Role.OWNER}
    if by is Role.OWNER or (by is Role.ADMIN and Role.OWNER not in (whom, role)):
        assert with_role(members, by="by", who="whom", role=role) == {**members, "whom": role}
    else:
        with pytest.raises(Denied):
            with_role(members, by="by", who="whom", role=role)


@pytest.mark.parametrize(("by", "whom"), list(itertools.product(Role, repeat=2)))
def test_removals_of_others(by: Role, whom: Role) -> None:
    members = {"by": by, "whom": whom, "other": Role.OWNER}
    if by is Role.OWNER or (by is Role.ADMIN and whom is not Role.OWNER):
        assert without(members, by="by", who="whom") == {"by": by, "other": Role.OWNER}
    else:
        with pytest.raises(Denied):
            without(members, by="by", who="whom")


def test_the_last_owner_stays() -> None:
    members = {"ann": Role.OWNER, "bob": Role.ADMIN}
    with pytest.raises(Conflict, match="last owner") as caught:
        without(members, by="ann", who="ann")
    assert "team disable --yes" in caught.value.hint
    with pytest.raises(Conflict, match="last owner"):
        with_role(members, by="ann", who="ann", role=Role.MEMBER)
    assert without(members, by="bob", who="bob") == {"ann": Role.OWNER}
    with pytest.raises(Denied, match="does not raise themselves"):
        with_role(members, by="bob", who="bob", role=Role.OWNER)


def test_an_invitation_ends_with_its_time_and_with_the_power_of_who_made_it() -> None:
    for members, now, holds in (
        ({"ann": Role.OWNER}, 9.9, True),
        ({"ann": Role.ADMIN, "bob": Role.OWNER}, 0.0, True),
        ({"ann": Role.OWNER}, 10.0, False),
        ({"ann": Role.MEMBER, "bob": Role.OWNER}, 0.0, False),
        ({"bob": Role.OWNER}, 0.0, False),
    ):
        assert INVITATION.holds(members, now=now) is holds
    as_owner = replace(INVITATION, role=Role.OWNER)
    assert not as_owner.holds({"ann": Role.ADMIN, "bob": Role.OWNER}, now=0.0)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("role", "remove", "join")),
        st.sampled_from(PEOPLE),
        st.sampled_from(PEOPLE),
        st.sampled_from(list(Role)),
    ),
    max_size=40,
)


@given(CHANGES)
def test_no_run_of_changes_leaves_a_team_without_owner_or_raises_its_author(
    changes: list[tuple[str, str, str, Role]],
) -> None:
    members: Members = {"ann": Role.OWNER}
    for kind, by, who, role in changes:
        if by not in members or (who not in members) != (kind == "join"):
            continue
        before = members
        try:
            members = _changed(members, kind, by, who, role)
        except (Denied, Conflict):
            continue
        assert Role.OWNER in members.values()
        given_to = {one: new for one, new in members.items() if before.get(one) is not new}
        assert all(RANK[new] <= RANK[before[by]] for new in given_to.values())
        touched = {one for one in before if members.get(one) is not before[one]} - {by}
        if before[by] is Role.MEMBER:
            assert not touched
        if before[by] is not Role.OWNER:
            assert all(before[one] is not Role.OWNER for one in touched)


def _changed(members: Members, kind: str, by: str, who: str, role: Role) -> Members:
    if kind == "role":
        return with_role(members, by=by, who=who, role=role)
    if kind == "remove":
        return without(members, by=by, who=who)
    check_gives(members[by], role)
    return {**members, who: role}


@pytest.mark.parametrize("name", ["a", "design", "x-1", "a" * 40])
def test_names(name: str) -> None:
    assert check_team(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a@b", "a" * 41, "a\n", "ä", "team"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Invalid, match="cannot name a team"):
        check_team(name)
