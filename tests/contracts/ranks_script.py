"""Run all fits of the contract list under torchrun and write their weights: script FOLDER."""

import os
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric

import hardstep as hs
from tests.contracts.test_methods import AUGMENTED, METHODS, train

if __name__ == "__main__":
    # double precision: a sum in another order must not flip a bit
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy="ddp", precision="64-true")
    fabric.launch()
    fits = [*((method, hs.data.load("digits")) for method in METHODS), AUGMENTED]
    for index, (method, data) in enumerate(fits):
        net, report = train(method, data, sweeps=2, fabric=fabric)
        assert report.ranks == fabric.world_size
        if fabric.is_global_zero:
            torch.save(net.state_dict(), Path(sys.argv[1]) / f"{index}.pt")
        fabric.barrier()
    torch.distributed.destroy_process_group()  # its threads may abort a process that ends without
