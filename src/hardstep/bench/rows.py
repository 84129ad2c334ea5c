"""The short table of `hardstep bench`: layers and whole networks that stand for many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardstep.bench.cases import Draw, binary, eight_bit, made, ternary
from hardstep.bench.contest import Contest, contest
from hardstep.bench.networks import Network, made_network
from hardstep.bench.our_layer import Hardstep
from hardstep.bench.peer_networks import Exported, OurEngine, network_peers
from hardstep.bench.peers import peers

__all__ = ["LayerRow", "NetworkRow", "Row", "short_table"]


@dataclass(frozen=True)
class LayerRow:
    """One layer, drawn at random: input shape of a sample, units, how weights are drawn, the largest code."""

    name: str
    shape: tuple[int, ...]
    units: int
    draw: Draw
    top: int = 1
    readout: bool = False

    def play(self, batch: int, *, threads: int, rounds: int) -> Contest:
        """Time it."""
        task = made((batch, *self.shape), self.units, draw=self.draw, top=self.top)
        density = self.top.bit_length() / 2  # half of the bits of uniform codes are set
        ours = Hardstep("", density, readout=self.readout, threads=threads)
        return contest(self.name, task, ours, peers(threads), batch=batch, rounds=rounds)


@dataclass(frozen=True)
class NetworkRow:
    """A network, drawn at random, on random 8-bit codes: sample shape, channels of convolutions, dense widths."""

    name: str
    shape: tuple[int, ...]
    convs: tuple[int, ...]
    denses: tuple[int, ...]
    draw: Draw

    def play(self, batch: int, *, threads: int, rounds: int) -> Contest:
        """Time it."""
        hard = made_network(self.shape, self.convs, self.denses, draw=self.draw)
        x = np.random.default_rng(1).integers(0, 256, (batch, *self.shape)).astype(np.uint8)
        several = [*network_peers(threads), Exported("", threads)]
        return contest(self.name, Network(hard, x), OurEngine("", threads), several, batch=batch, rounds=rounds)


Row = LayerRow | NetworkRow


def short_table() -> tuple[Row, ...]:
    """Return the rows: dense layers, a read-out, convolutions, whole networks; binary, ternary, 8-bit weights."""
    dense, image, mlp = (1024,), (64, 8, 8), (1024, 1024, 10)
    picture, convs, denses = (1, 16, 16), (32, 32, 64, 64), (128, 10)
    return (
        LayerRow("dense 1024 -> 1024, binary", dense, 1024, binary),
        LayerRow("dense 1024 -> 1024, ternary", dense, 1024, ternary),
        LayerRow("dense 1024 -> 1024, 8-bit", dense, 1024, eight_bit),
        LayerRow("first 784 -> 1024, 8-bit", (784,), 1024, eight_bit, top=255),
        LayerRow("read-out 1024 -> 10, 8-bit", dense, 10, eight_bit, readout=True),
        LayerRow("conv 64 -> 64 on 8x8, binary", image, 64, binary),
        LayerRow("conv 64 -> 64 on 8x8, 8-bit", image, 64, eight_bit),
        NetworkRow("MLP 784-1024-1024-10, binary", (784,), (), mlp, binary),
        NetworkRow("MLP 784-1024-1024-10, ternary", (784,), (), mlp, ternary),
        NetworkRow("MLP 784-1024-1024-10, 8-bit", (784,), (), mlp, eight_bit),
        NetworkRow("convnet on 16x16, binary", picture, convs, denses, binary),
        NetworkRow("convnet on 16x16, 8-bit", picture, convs, denses, eight_bit),
    )
