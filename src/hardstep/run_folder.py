"""A run folder: everything a training run leaves behind, each file whole or not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hardstep.report import Report
from hardstep.storage import FORMAT, read_arrays, read_json, write_arrays, write_json
from hardstep.version import __version__

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The files of one run: config, checkpoint, report, metrics, the float network and the frozen one."""

    path: Path

    @property
    def hardnet(self) -> Path:
        """The frozen network."""
        return self.path / "hardnet.safetensors"

    @property
    def model(self) -> Path:
        """The float network's weights."""
        return self.path / "model.safetensors"

    def begin(self, arguments: list[str]) -> None:
        """Write what command the run is of.

        Raises
        ------
        ValueError
            If the folder holds the run of another command.
        """
        if (self.path / "config.json").exists() and (before := self.arguments()) != arguments:
            raise ValueError(
                f"{self.path} holds the run of another command ({' '.join(before)}); give this one another --name"
            )
        write_json(self.path / "config.json", {"format": FORMAT, "hardstep": __version__, "arguments": arguments})

    def arguments(self) -> list[str]:
        """Return the command line of the run.

        Raises
        ------
        FileNotFoundError
            If this is no run folder.
        ValueError
            If another version wrote it.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path} is no run folder: it has no config.json; make one by `hardstep train`"
            )
        config = read_json(path)
        if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("hardstep") != __version__:
            found = config.get("hardstep", "?") if isinstance(config, dict) else "?"
            raise ValueError(
                f"{self.path} was written by hardstep {found}, this is {__version__}; "
                f"install hardstep=={found}, or train again into another folder"
            )
        return [str(argument) for argument in config["arguments"]]

    def keep(self, net: nn.Module, report: Report) -> None:
        """Write the float network and the report."""
        weights = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
        write_arrays(self.model, weights, {}, "model")
        report.to_csv(self.path / "metrics.csv")
        report.to_json(self.path / "report.json")

    def load_into(self, net: nn.Module) -> None:
        """Load the float network's weights."""
        arrays, _ = read_arrays(self.model, "model")
        net.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
