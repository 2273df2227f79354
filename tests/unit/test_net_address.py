"""Slot numbers and what follows from them: round trips, limits, blocks that cannot work."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.base.errors import Exhausted, Invalid
from atoll.engine.net.address import Layout

ATOLL = Layout(instance="atoll", block=IPv4Network("10.213.0.0/16"))
LARGEST = Layout(instance="longname", block=IPv4Network("11.0.0.0/8"))


def test_first_slot_comes_after_the_services() -> None:
    slot = ATOLL.slot(0)
    assert (slot.netns, slot.veth) == ("atoll-0", "atollh0")
    assert str(slot.gateway) == "10.213.1.1/30"
    assert str(slot.outer) == "10.213.1.2/30"
    assert slot.address == IPv4Address("10.213.1.2")
    assert (str(ATOLL.service), ATOLL.service_link) == ("10.213.0.1", "atoll0")


def test_capacity_is_the_block_without_the_services() -> None:
    assert ATOLL.capacity == (65536 - 256) // 4
    assert ATOLL.slot(ATOLL.capacity - 1).outer.network.broadcast_address == IPv4Address(
        "10.213.255.255"
    )
    assert LARGEST.capacity == 100_000
    with pytest.raises(Exhausted):
        ATOLL.slot(ATOLL.capacity)
    with pytest.raises(Exhausted):
        ATOLL.slot(-1)


@given(st.sampled_from([ATOLL, LARGEST]), st.data())
def test_every_name_and_address_leads_back_to_its_slot(layout: Layout, data: st.DataObject) -> None:
    slot = layout.slot(data.draw(st.integers(0, layout.capacity - 1)))
    assert layout.number_of_netns(slot.netns) == slot.number
    assert layout.number_of_veth(slot.veth) == slot.number
    assert layout.number_of_address(slot.address) == slot.number
    assert layout.number_of_address(slot.gateway.ip) is None
    assert len(slot.veth) <= 15  # IFNAMSIZ - 1
    assert slot.gateway.network == slot.outer.network
    assert slot.address in layout.block
    assert layout.service not in slot.outer.network


@pytest.mark.parametrize(
    "name",
    [
        "atoll-",
        "atoll-01",
        "atoll-1x",
        "atoll-99999",
        "atoll--1",
        "atollh1",
        "tatoll-1",
        "atoll-1 ",
    ],
)
def test_names_of_others_are_not_ours(name: str) -> None:
    assert ATOLL.number_of_netns(name) is None


@pytest.mark.parametrize("address", ["10.213.0.2", "10.213.1.1", "10.213.1.3", "10.214.1.2"])
def test_addresses_of_no_vm(address: str) -> None:
    assert ATOLL.number_of_address(IPv4Address(address)) is None


@pytest.mark.parametrize(
    ("instance", "block"),
    [
        ("atoll", "10.213.0.0/24"),  # services only
        ("atoll", "10.0.0.0/16"),  # holds the addresses inside
        ("atoll", "169.254.0.0/16"),
        ("atoll", "239.0.0.0/16"),
        ("Atoll", "10.213.0.0/16"),
        ("toolonglabel", "10.213.0.0/16"),
        ('a" drop', "10.213.0.0/16"),
    ],
)
def test_settings_that_cannot_work(instance: str, block: str) -> None:
    with pytest.raises(Invalid):
        Layout(instance=instance, block=IPv4Network(block))
