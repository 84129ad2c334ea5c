"""Run one fit of the contract list under torchrun and write its weights: script INDEX FILE."""

import os
import sys

import torch
from lightning_fabric import Fabric

import hardstep as hs
from tests.contracts.test_methods import METHODS, train

if __name__ == "__main__":
    # double precision: a sum in another order must not flip a bit
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy="ddp", precision="64-true")
    fabric.launch()
    net, report = train(METHODS[int(sys.argv[1])], hs.data.load("digits"), sweeps=2, fabric=fabric)
    assert report.ranks == fabric.world_size
    if fabric.is_global_zero:
        torch.save(net.state_dict(), sys.argv[2])
    fabric.barrier()
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends without
