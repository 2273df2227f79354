"""The cloud that the API's bench asks is one whose VMs run, and it serves what is measured."""

from __future__ import annotations

from pathlib import Path

from bench.api import PAGES, Request
from bench.api_server import cloud_of, cookie_of


async def test_the_cloud_serves_what_is_measured(tmp_path: Path) -> None:
    async with cloud_of(tmp_path, 3) as (cloud, api):
        listed = (await api.data("ls"))["vms"]
        assert [(vm["vm_name"], vm["status"]) for vm in listed] == [
            (f"row-{number}x", "running") for number in range(3)
        ]
        for path, held in PAGES.values():
            page = await api.client.get(path, headers={"cookie": await cookie_of(cloud)})
            assert page.status_code == 200
            assert held.replace("499", "2") in page.text


def test_a_request_reads_the_same_for_wrk() -> None:
    asked = Request("http://x/", method="POST", headers={"A": 'b"c'}, body="ls")
    assert asked.script() == 'wrk.method="POST"\nwrk.body="ls"\nwrk.headers["A"]="b\\"c"\n'
