"""What the steps of a network do in training: bits that flip, units that carry nothing, gradients that vanish.

Those of activations are means over units and rows; those of hard weights are sums over layers, as their authors have
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hardstep.layers import latents
from hardstep.rules import BackwardRule, Surrogate, widened
from hardstep.step import Step

__all__ = [
    "StepReading",
    "estimating_error",
    "gradient_stability",
    "indicators",
    "read_gradients",
    "read_steps",
    "read_weights",
]


@dataclass(frozen=True, eq=False)
class StepReading:
    """What one step of a network does on a probe; a staircase is one step, called once a stair.

    Parameters
    ----------
    bits
        Its outputs, by row and stair; one stair but for a staircase.
    saturated
        Share of its inputs for which its rule passes nothing back.
    error
        Estimating error of its rule a value, e/sqrt(n); NaN for a rule without a curve.
    """

    bits: Bool[Tensor, "n s ..."]
    saturated: float
    error: float

    @property
    def constant(self) -> tuple[float, float]:
        """Shares of the units that are 0, and that are 1, on every row."""
        return float((~self.bits).all(dim=0).float().mean()), float(self.bits.all(dim=0).float().mean())

    def flipped(self, before: StepReading) -> float:
        """Return the share of bits that differ from an earlier reading."""
        return float((self.bits != before.bits).float().mean())


@torch.no_grad()
def read_steps(net: nn.Module, x: Float[Tensor, "n ..."], *, batch_size: int = 128) -> dict[str, StepReading]:
    """Read every step of any network on some rows, in evaluation mode, by the name of its module.

    Examples
    --------
    >>> import hardstep as hs
    >>> read = read_steps(hs.nets.mlp(4, 3, 2, 5), torch.zeros(6, 4))
    >>> [(name, tuple(step.bits.shape)) for name, step in read.items()]
    [('3', (6, 1, 3)), ('6', (6, 1, 2))]
    """
    seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    steps = {name: module for name, module in net.named_modules() if isinstance(module, Step)}

    def reader(name: str, step: Step) -> torch.utils.hooks.RemovableHandle:
        def read(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            flat = args[0].flatten()
            blocked = step.rule.pullback(flat, torch.ones_like(flat)) == 0
            seen.setdefault(name, []).append((out > 0, blocked.double().mean(), _squared_error(step.rule, flat)))

        return step.register_forward_hook(read)

    handles = [reader(name, step) for name, step in steps.items()]
    was_training = net.training
    net.eval()
    try:
        chunks = x.tensor_split(math.ceil(len(x) / batch_size))
        for rows in chunks:
            net(rows)
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    return {name: _reading(calls, len(chunks)) for name, calls in seen.items()}


def indicators(before: Mapping[str, StepReading], after: Mapping[str, StepReading]) -> dict[str, float]:
    """Return what changed between two readings of the same rows, for all steps together and for each.

    `flip_rate`, the share of bits that flipped; `silent` and `always`, units that are 0 or 1 on every row;
    `saturated`, inputs for which the rule passes nothing back; `estimating_error`, e/sqrt(n) where
    the rules have a curve. Those of one step have its name behind a slash.

    References
    ----------
    Wu et al. 2023, Sec. 3 [wu2023], the estimating error. Differs: a value, not a layer, so that layers compare.
    """
    rows = {name: _row(before[name], step) for name, step in after.items()}
    sizes = [step.bits.numel() for step in after.values()]
    whole: dict[str, float] = {}
    for key in next(iter(rows.values()), {}):
        weighted = sum(size * row[key] for size, row in zip(sizes, rows.values(), strict=True))
        whole[key] = weighted / max(sum(sizes), 1)
    each = {f"{key}/{name}": value for name, row in rows.items() for key, value in row.items()}
    return {key: value for key, value in (whole | each).items() if math.isfinite(value)}


def estimating_error(rule: Surrogate, z: Float[Tensor, "*n"]) -> float:
    """Return e = ||sign(z) - F(z)||_2, how far the stand-in F = 2C - 1 of the sign is from it.

    With `ReSTE(power=o, inner=1e-30, outer=1e30)`, the power function without its truncations, it is the indicator as
    published; on latent weights and with the power of the end of the training, that of the authors' code.

    References
    ----------
    Wu et al. 2023, Sec. 3 [wu2023].

    Examples
    --------
    >>> from hardstep.rules import Clipped
    >>> estimating_error(Clipped(), torch.tensor([0.5, -2.0]))
    0.5
    """
    return float(_squared_error(rule, z.flatten()).sqrt())


def gradient_stability(gradients: Iterable[Float[Tensor, "..."]], *, unbiased: bool = False) -> float:
    """Return s = Var(|g|) over all entries of some gradients; `unbiased` divides by their number less one.

    References
    ----------
    Wu et al. 2023, Sec. 3 [wu2023]; their code sums the unbiased one over the layers with binary weights.

    Examples
    --------
    >>> gradient_stability([torch.tensor([1.0, -1.0]), torch.tensor([3.0, 3.0])])
    1.0
    """
    sizes = torch.cat([gradient.flatten().double().abs() for gradient in gradients])
    return float(sizes.var(correction=int(unbiased)))


@torch.no_grad()
def read_weights(net: nn.Module) -> dict[str, float]:
    """Return the `weight_error` of all layers with hard weights, and of each with its name behind a slash.

    That of a layer is e = ||sign(z) - F(z)||_2 with z the numbers of which its weights take steps (of binary ones the
    latent weights) and F = 2C - 1 the stand-in of its present rule; that of the network is the sum over layers. None
    is reported for a rule without a curve.

    References
    ----------
    Wu et al. 2023, authors' code [wu2023]. Differs: the power as it is now, not at the end of the training, truncated.

    Examples
    --------
    >>> import hardstep as hs
    >>> layer = hs.quantise(nn.Linear(2, 1, bias=False), hs.Binary())
    >>> layer.parametrizations.weight.original.data = torch.tensor([[0.4, -2.0]])
    >>> {name: round(error, 3) for name, error in read_weights(nn.Sequential(layer)).items()}
    {'weight_error': 0.6, 'weight_error/0': 0.6}
    """
    found = latents(net)
    return _summed(
        "weight_error",
        {name: float(_squared_error(form.rule, form.weights.inputs(w).flatten()).sqrt()) for name, form, w in found},
    )


def read_gradients(net: nn.Module) -> dict[str, float]:
    """Return what the gradients that a network holds say of its training.

    `gradient_stability`, of all its parameters together; and of layers with hard weights `weight_stability`, the
    unbiased one of the gradient of the latent weights, for each with its name behind a slash and summed over layers.

    References
    ----------
    Wu et al. 2023, Sec. 3, and authors' code [wu2023].
    """
    whole = gradient_stability([p.grad for p in net.parameters() if p.grad is not None])
    layers = {name: gradient_stability([w.grad], unbiased=True) for name, _, w in latents(net) if w.grad is not None}
    return {"gradient_stability": whole} | _summed("weight_stability", layers)


def _summed(key: str, layers: Mapping[str, float]) -> dict[str, float]:
    """Return a measure of each layer, and in front their sum, where there are layers and their measures are numbers."""
    each = {f"{key}/{name}": value for name, value in layers.items() if math.isfinite(value)}
    return {key: sum(each.values()), **each} if each else {}


def _reading(calls: list[tuple[Tensor, Tensor, Tensor]], chunks: int) -> StepReading:
    """Put the calls of one step together: every chunk of rows calls it once, or once a stair."""
    stairs = len(calls) // chunks
    rows = [torch.stack([call[0] for call in calls[i * stairs : (i + 1) * stairs]], dim=1) for i in range(chunks)]
    count = sum(call[0].numel() for call in calls)
    saturated = sum(float(call[1]) * call[0].numel() for call in calls) / max(count, 1)
    error = sum(float(call[2]) for call in calls)
    return StepReading(torch.cat(rows), saturated, math.sqrt(error / max(count, 1)))


def _row(before: StepReading, after: StepReading) -> dict[str, float]:
    silent, always = after.constant
    return {
        "flip_rate": after.flipped(before),
        "silent": silent,
        "always": always,
        "saturated": after.saturated,
        "estimating_error": after.error,
    }


def _squared_error(rule: BackwardRule, z: Tensor) -> Tensor:
    """Return ||sign(z) - F(z)||² in double precision, NaN without a curve; sign(0) = -1, as everywhere here."""
    if not isinstance(rule, Surrogate):
        return torch.tensor(math.nan, dtype=torch.float64)
    sign = 2 * (z > 0).double() - 1
    return (sign - (2 * rule.curve(widened(z)).double() - 1)).square().sum()
