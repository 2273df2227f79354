"""The same random lives as in tests/unit/test_layers_property.py, on qcow2 files and real tools.

A crash is a stop between two steps; the pool is then opened anew from its headers. Every reachable
layer is read back by qemu-io, and checked by `qemu-img check`: clean, or with leaks at worst.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from atoll.domain.layer_graph import LayerGraph
from atoll.domain.layers import LayerId, Merge, Step
from atoll.engine.disk.blockdev import BlockOptions
from atoll.engine.disk.merge import merge_layers
from atoll.engine.disk.pool import Pool
from framework.layer_machine import BASE, BLOCKS, SIZE, Content, LayerMachine

# Around the borders of sub-clusters (4K), clusters (128K) and the disk's end.
_OFFSETS = [0, 4096, 65536, 126976, 131072, 135168, 196608, 258048, 262144, 1 << 20]
OFFSETS = [*_OFFSETS, SIZE // 2, SIZE - 4096]
OPTIONS = BlockOptions()
assert len(OFFSETS) == BLOCKS


def tool(*argv: str, codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in codes, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


class RealPool:
    """A pool in a temporary folder."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="atoll-layers-")
        root = Path(self.folder.name)
        image = root / "image.qcow2"
        options = "cluster_size=128k,extended_l2=on"
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(image), str(SIZE))
        self.pool = Pool.open(root / "pool")
        self.pool.add_base(image, BASE.removeprefix("base-"))

    def graph(self) -> LayerGraph:
        return self.pool.graph

    def apply(self, step: Step) -> None:
        if isinstance(step, Merge):
            asyncio.run(merge_layers(self.pool, step, options=OPTIONS, seconds=30))
        else:
            self.pool.apply(step)

    def allocated(self) -> dict[LayerId, int]:
        return self.pool.allocated()

    def write(self, layer: LayerId, block: int, value: int) -> None:
        """One block; every third value also overwrites it by a discard first."""
        at = OFFSETS[block]
        commands = ["-c", f"write -P {value} {at} 4096"]
        if value == 0:
            commands = ["-c", f"write -z -u {at} 4096"]
        elif value % 3 == 0:
            commands = ["-c", f"discard {at} 4096", *commands]
        tool("qemu-io", "-d", "unmap", "-f", "qcow2", *commands, str(self.pool.path(layer)))

    def verify(self, truth: dict[LayerId, Content]) -> None:
        for layer, content in truth.items():
            path = str(self.pool.path(layer))
            reads = [
                f"read -P {value} {offset} 4096"
                for offset, value in zip(OFFSETS, content, strict=True)
            ]
            commands = [word for read in reads for word in ("-c", read)]
            said = tool("qemu-io", "-r", "-U", "-f", "qcow2", *commands, path)
            assert "verification failed" not in said, f"{layer} is not {content}: {said}"
            tool("qemu-img", "check", "-q", "-U", "-f", "qcow2", path, codes=(0, 3))

    def reopen(self) -> None:
        root = self.pool.root
        self.pool.close()
        self.pool = Pool.open(root)
        assert not self.pool.damaged

    def close(self) -> None:
        self.pool.close()
        self.folder.cleanup()


class RealLayers(LayerMachine):
    make_pool = RealPool
    verify_always = False  # 20 ms of processes per layer: at the end, and after each merge

    def perform(self, step: Step) -> None:
        super().perform(step)
        if isinstance(step, Merge):
            graph = self.pool.graph()
            self.pool.verify({layer: self.truth[layer] for layer in graph.reachable()})


TestRealLayers = RealLayers.TestCase
TestRealLayers.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
