"""Compile the C runtime into the wheel where there is a compiler; without one the package is pure Python."""

import sysconfig
from importlib import util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

EXPORT = Path(__file__).parent / "src" / "hardstep" / "export"


class RuntimeHook(BuildHookInterface):
    """Build hook of the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        spec = util.spec_from_file_location("compiler", EXPORT / "compiler.py")
        compiler = util.module_from_spec(spec)
        spec.loader.exec_module(compiler)
        try:
            library = compiler.compile_runtime()
        except RuntimeError as error:
            self.app.display_warning(f"hardstep without its C runtime: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(str(library.relative_to(Path(__file__).parent)))
