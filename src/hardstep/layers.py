"""Layers that compute with binary or ternary weights, and learned thresholds in front of steps."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hardstep.rules import BackwardRule, Clipped
from hardstep.step import Sign
from hardstep.weights import Real, Weights

__all__ = ["HardWeights", "Shift", "latents", "permanent", "quantise", "quantise_hidden", "rprelu", "rsign"]

M = TypeVar("M", bound=nn.Module)


class HardWeights(nn.Module):
    """The parametrisation behind `quantise`: computes a layer's weights whenever they are read.

    Parameters
    ----------
    weights
        What they are.
    rule
        Rule of the steps in them; a method may replace it for the time of a fit.
    learned
        First value of a parameter of their own.
    """

    learned: nn.Parameter | None

    def __init__(self, weights: Weights, rule: BackwardRule, learned: Tensor | None) -> None:
        super().__init__()
        self.weights, self.rule = weights, rule
        self.register_parameter("learned", None if learned is None else nn.Parameter(learned))

    def forward(self, latent: Float[Tensor, "h ..."]) -> Float[Tensor, "h ..."]:
        """Return the weights."""
        return self.weights.values(latent, self.rule, self.learned)

    def extra_repr(self) -> str:
        """Show form and rule."""
        return f"{self.weights}, rule={self.rule}"


def quantise(layer: M, weights: Weights, *, rule: BackwardRule = Clipped()) -> M:  # noqa: B008 (frozen)
    """Make a layer compute with hard weights, in place, and return it.

    Its parameter becomes the latent weights, `layer.parametrizations.weight.original`; `layer.weight` are the computed
    ones, for `freeze` and whatever else reads them. Initialise before.

    Parameters
    ----------
    layer
        An `nn.Linear` or a convolution.
    weights
        What its weights become.
    rule
        Rule of their steps; `GradientDescent` puts its own in place.

    Raises
    ------
    ValueError
        If the weights are computed already.

    Examples
    --------
    >>> from hardstep.weights import Binary, Unscaled
    >>> quantise(nn.Linear(3, 2), Binary(Unscaled())).weight.abs().detach()
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    if parametrize.is_parametrized(layer):
        raise ValueError(f"{layer} computes its weights already; build it anew to give it {weights}")
    if weights != Real():
        form = HardWeights(weights, rule, weights.start(layer.weight))  # type: ignore[arg-type]
        parametrize.register_parametrization(layer, "weight", form)
    return layer


def quantise_hidden(net: M, weights: Weights, *, spare: Iterable[nn.Module] = ()) -> M:
    """Make all linear maps and convolutions of a network but the first and the last compute with hard weights.

    Parameters
    ----------
    spare
        Further layers that stay real.

    Examples
    --------
    >>> import hardstep as hs
    >>> net = quantise_hidden(hs.nets.mlp(4, 3, 3, 2, norm=False), hs.Binary(hs.Unscaled()))
    >>> [bool((layer.weight.abs() == 1).all()) for layer in net if isinstance(layer, nn.Linear)]
    [False, True, False]
    """
    maps = [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    spared = {id(module) for module in (maps[0], maps[-1], *spare)}
    for module in maps:
        if id(module) not in spared:
            quantise(module, weights)
    return net


def latents(net: nn.Module) -> Iterator[tuple[str, HardWeights, Tensor]]:
    """Yield name, parametrisation and latent weights of each layer that computes with hard ones.

    Examples
    --------
    >>> from hardstep.weights import Libra
    >>> [(name, form.weights) for name, form, _ in latents(nn.Sequential(quantise(nn.Linear(3, 2), Libra())))]
    [('0', Libra())]
    """
    for name, module in net.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            forms: Any = module.parametrizations.weight
            yield from ((name, form, forms.original) for form in forms if isinstance(form, HardWeights))


def permanent(net: M) -> M:
    """Return a copy of a network whose computed weights are plain parameters, as they are now.

    Examples
    --------
    >>> from hardstep.weights import Binary
    >>> permanent(quantise(nn.Linear(3, 2), Binary()))
    Linear(in_features=3, out_features=2, bias=True)
    """
    plain = copy.deepcopy(net)
    for module in plain.modules():
        if parametrize.is_parametrized(module):
            # not by remove_parametrizations: it takes the weights' property off the class, which copies share
            names = list(module.parametrizations)  # type: ignore[arg-type]
            values = {name: getattr(module, name).detach() for name in names}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return plain


class Shift(nn.Module):
    """Subtract a learned number of each unit or channel: y = x - a_c, a = 0 at first.

    Parameters
    ----------
    channels
        Size of the second dimension of x.

    Examples
    --------
    >>> Shift(2)(torch.ones(1, 2))
    tensor([[1., 1.]], grad_fn=<SubBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        """Return x - a."""
        return x - self.threshold.reshape(-1, *[1] * (x.ndim - 2))


def rsign(channels: int, rule: BackwardRule = Clipped()) -> nn.Sequential:  # noqa: B008 (frozen)
    """Make sign(x - a_c), a learned threshold for each channel; `freeze` adds it to the integer threshold.

    References
    ----------
    Liu et al. 2020 [liu2020].

    Examples
    --------
    >>> rsign(2)(torch.tensor([[-1.0, 1.0]])).detach()
    tensor([[-1.,  1.]])
    """
    return nn.Sequential(Shift(channels), Sign(rule))


def rprelu(channels: int) -> nn.Sequential:
    """Make x - u_c + v_c where x > u_c, else b_c (x - u_c) + v_c, all three learned, from 0, 0 and 1/4.

    The second shift holds -v. The output is real: it belongs between residual sums (`RealSums`).

    References
    ----------
    Liu et al. 2020 [liu2020].

    Examples
    --------
    >>> rprelu(1)(torch.tensor([[2.0], [-2.0]])).detach()
    tensor([[ 2.0000],
            [-0.5000]])
    """
    return nn.Sequential(Shift(channels), nn.PReLU(channels), Shift(channels))
