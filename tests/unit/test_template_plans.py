"""What to build and what to remove, decided from facts alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.template_plans import (
    FIRST_RETRY_S,
    LAST_RETRY_S,
    REMEMBERED,
    WAITING,
    Backlog,
    Held,
    Size,
    plan_images,
    plan_templates,
)

GIB = 1 << 30
NEW, OLD = "d" * 20, "e" * 20


def size(number: int = 1) -> Size:
    return Size(image="debian", cpus=1, memory_bytes=number * GIB, disk_bytes=8 * GIB)


def held(
    name: str, *, key: str = "", digest: str = NEW, used_at: float = 0, made: float = 0
) -> Held:
    return Held(
        id=name, key=key or name, digest=digest, disk_bytes=GIB, created_at=made, used_at=used_at
    )


def plan(
    *templates: Held, default: str | None = None, needed: tuple[str, ...] = (), keep: int = 1
) -> tuple[str, ...]:
    return plan_templates(templates, default=default, images={NEW}, needed=needed, keep=keep)


# --- what to build


def test_sizes_are_built_once_each_in_the_order_they_were_missed() -> None:
    backlog = Backlog()
    assert all(backlog.ask(size(number), 0) for number in (2, 1, 2, 2))
    assert backlog.waiting == (size(2), size(1))
    assert backlog.next(0, None) == size(2)
    backlog.done(size(2))
    assert backlog.next(0, None) == size(1)
    backlog.done(size(1))
    assert backlog.next(0, None) is None


def test_the_default_size_is_built_before_all_others() -> None:
    backlog = Backlog()
    backlog.ask(size(2), 0)
    assert backlog.next(0, size(1)) == size(1)
    backlog.failed(size(1), "it does not boot", 0)
    assert backlog.next(0, size(1)) == size(2), "the others do not wait for one that fails"
    assert backlog.next(FIRST_RETRY_S, size(1)) == size(1)


def test_what_failed_is_left_alone_longer_each_time() -> None:
    backlog, now, waits = Backlog(), 0.0, []
    for times in range(1, 10):
        assert backlog.ask(size(), now)
        backlog.failed(size(), f"failure {times}", now)
        assert not backlog.ask(size(), now)
        assert backlog.next(now, None) is None
        failure = backlog.failures[size()]
        assert (failure.times, failure.reason) == (times, f"failure {times}")
        waits.append(failure.again_at - now)
        now = failure.again_at
    assert waits[:3] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert waits[-1] == LAST_RETRY_S
    backlog.done(size())
    assert not backlog.failures


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "fail", "done"]), st.integers(1, 60), st.floats(0, 9e3))
    )
)
def test_the_backlog_is_bounded_and_never_offers_what_may_not_be_tried(
    acts: list[tuple[str, int, float]],
) -> None:
    backlog = Backlog()
    for act, number, now in acts:
        if act == "ask":
            asked = backlog.ask(size(number), now)
            assert asked == (size(number) in backlog.waiting)
        elif act == "fail":
            backlog.failed(size(number), "no", now)
            assert size(number) not in backlog.waiting
        else:
            backlog.done(size(number))
            assert size(number) not in backlog.failures
        assert len(backlog.waiting) == len(set(backlog.waiting)) <= WAITING
        assert len(backlog.failures) <= REMEMBERED
        first = backlog.next(now, size(number))
        failure = backlog.failures.get(size(number))
        if failure is None or failure.again_at <= now:
            assert first == size(number)
        else:
            assert first == (backlog.waiting[0] if backlog.waiting else None)


# --- what to remove


def test_the_least_recently_used_beyond_the_kept_go() -> None:
    templates = [held(f"t{used}", used_at=used) for used in (3, 1, 4, 2)]
    assert set(plan(*templates, keep=2)) == {"t1", "t2"}
    assert set(plan(*templates, keep=2, needed=("t1",))) == {"t2"}
    assert set(plan(*templates, keep=2, default="t1")) == {"t2"}
    assert set(plan(*templates, keep=1, needed=("t4",))) == {"t1", "t2"}, "only idle ones count"
    assert set(plan(*templates, keep=0, default="t1", needed=("t4",))) == {"t2", "t3"}


def test_of_interchangeable_ones_the_newest_stays() -> None:
    twins = [held("before", key="k", made=1, used_at=9), held("after", key="k", made=2)]
    assert plan(*twins, keep=5) == ("before",)
    assert plan(*twins, keep=5, needed=("before",)) == ()
    assert plan(*twins, keep=5, default="after") == ("before",)


def test_those_of_an_image_before_go_unless_a_vm_stands_on_them() -> None:
    templates = [held("old", digest=OLD, used_at=9), held("stood-on", digest=OLD), held("new")]
    assert plan(*templates, keep=5, needed=("stood-on",)) == ("old",)


_HELD = st.builds(
    held,
    st.uuids().map(str),
    key=st.sampled_from("abcdefgh"),
    digest=st.sampled_from([NEW, OLD]),
    used_at=st.integers(0, 5),
    made=st.integers(0, 5),
)


@given(st.lists(_HELD, max_size=12), st.integers(0, 4), st.data())
def test_whatever_there_is_what_is_needed_stays_and_no_more_than_asked(
    templates: list[Held], keep: int, data: st.DataObject
) -> None:
    names = [each.id for each in templates]
    some = st.sampled_from(names) if names else st.nothing()
    default = data.draw(st.none() | some)
    needed = tuple(data.draw(st.sets(some)))
    gone = plan(*templates, default=default, needed=needed, keep=keep)
    stay = [each for each in templates if each.id not in gone]
    assert len(gone) == len(set(gone))
    assert not {default, *needed} & set(gone)
    free = [each for each in stay if each.id not in {default, *needed}]
    assert len(free) <= keep
    assert all(each.digest == NEW for each in free)
    assert not plan(*stay, default=default, needed=needed, keep=keep), "one pass is enough"
    # One by one, planned anew for each, comes to the same.
    left = list(templates)
    while step := plan(*left, default=default, needed=needed, keep=keep):
        left = [each for each in left if each.id != step[0]]
    assert left == stay


@given(*(st.sets(st.sampled_from("abcdef")) for _ in range(3)))
def test_images_go_when_neither_new_nor_old_vms_need_them(
    there: set[str], current: set[str], needed: set[str]
) -> None:
    gone = set(plan_images(there, current=current, needed=needed))
    assert gone == there - current - needed
