"""Run one fit of the contract list under torchrun and write its weights: script INDEX FILE."""

import sys

import torch

import hardstep as hs
from hardstep.ranks import launched_fabric
from tests.contracts.test_methods import METHODS, train

if __name__ == "__main__":
    fabric = launched_fabric()
    net, report = train(METHODS[int(sys.argv[1])], hs.data.load("digits"), sweeps=2, fabric=fabric)
    assert report.ranks == fabric.world_size
    if fabric.is_global_zero:
        torch.save(net.state_dict(), sys.argv[2])
    fabric.barrier()
