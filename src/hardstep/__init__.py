"""Train, compress, prove and ship deep networks whose activations are hard steps.

The public names are listed in `__init__.pyi` and imported at first use, so that what stands right of `freeze`
loads without torch.
"""

import sys
from types import ModuleType

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(ModuleType):
    """Keep `hardstep.fit` the function: importing the file of the same name would put the module in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (
            isinstance(value, ModuleType)
            and name in ("compare", "fit", "freeze", "shrink", "simplify", "step", "verify")
        ):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
