"""Magnitude pruning: exact counts, what stays 0, what is gone back to; removals that keep units alive."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hardstep as hs
from hardstep.diagnostics import select
from hardstep.fit import Sweep, Work
from hardstep.methods.activate import Pruned
from hardstep.methods.gradient import Descent, GradientDescent
from hardstep.ranks import launched_fabric
from hardstep.units import hidden_layers

BASE = hs.GradientDescent(optimiser=hs.SGD(lr=0.05, momentum=0.9, weight_decay=1e-3), batch_size=200)
NET = hs.nets.MLP(hidden=(40, 20))
ENTRIES = {"1.weight": 40 * 64, "4.weight": 20 * 40}


def work(data: hs.data.Data, sweeps: int) -> Work:
    return Work(data, launched_fabric(), 0, sweeps)


def run(method: hs.Method[Any], data: hs.data.Data, sweeps: int, net: nn.Module) -> list[Sweep]:
    lent = work(data, sweeps)
    state = method.init(net, lent)
    found = []
    for sweep in range(sweeps):
        lent.sweep = sweep
        found.append(method.sweep(state, lent))
    return found


def matrices(net: nn.Module) -> list[Tensor]:
    return [weight.detach() for weight in net.parameters() if weight.ndim > 1]


class Spy:
    """Keeps what each training of the base method starts from."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts: list[dict[str, Tensor]] = []
        self.progress: list[float] = []
        self.optimiser: list[int] = []
        plain = GradientDescent.sweep

        def sweep(base: GradientDescent, state: Descent, lent: Work, around: Any) -> Sweep:
            self.starts.append({name: value.clone() for name, value in state.net.state_dict().items()})
            self.progress.append(lent.progress)
            self.optimiser.append(len(state.optimiser.optimizer.state))
            return plain(base, state, lent, around)

        monkeypatch.setattr(GradientDescent, "sweep", sweep)


@pytest.mark.parametrize("rewind", [False, True])
@pytest.mark.parametrize("scope", [hs.Global(), hs.LayerWise()])
def test_alive_weights_are_counted_exactly_in_every_round(
    scope: hs.Global | hs.LayerWise, rewind: bool, digits: hs.data.Data
) -> None:
    method = hs.MagnitudePruning(0.93, rounds=3, scope=scope, rewind=rewind, base=BASE)
    found = run(method, digits, 8, NET(digits.shape, 10))
    rounds = [0, 0, 1, 1, 2, 2, 3, 3]
    assert [sweep.admissible for sweep in found] == [current == 3 for current in rounds]
    for sweep, current in zip(found, rounds, strict=True):
        share = 0.07 ** (current / 3)
        zeros = {
            name: round(sweep.extra[f"sparsity {name.removesuffix('.weight')}"] * n) for name, n in ENTRIES.items()
        }
        assert sum(zeros.values()) == round(sweep.extra["sparsity"] * sum(ENTRIES.values()))
        if scope == hs.Global():
            assert sum(zeros.values()) == sum(ENTRIES.values()) - round(sum(ENTRIES.values()) * share)
        else:
            assert zeros == {name: n - round(n * share) for name, n in ENTRIES.items()}


def test_pruned_weights_are_zero_after_every_step_with_momentum_and_decay(digits: hs.data.Data) -> None:
    net, lent = NET(digits.shape, 10), work(digits, 6)
    method = hs.MagnitudePruning(0.9, rounds=2, base=BASE)
    state = method.init(net, lent)
    counts: list[int] = []
    forward = net.forward

    def counted(x: Tensor) -> Tensor:
        counts.append(sum(int((weight != 0).sum()) for weight in matrices(net)[:2]))
        return forward(x)

    net.forward = counted
    for sweep in range(6):
        lent.sweep = sweep
        method.sweep(state, lent)
    steps = len(counts) // 3
    total = sum(ENTRIES.values())
    assert set(counts[steps : 2 * steps]) == {round(total * 0.1**0.5)}
    assert set(counts[2 * steps :]) == {round(total * 0.1)}
    for one in state.pruned.values():
        assert int(torch.count_nonzero(one.weight[~one.alive])) == 0


def test_read_out_biases_and_normalisation_are_not_pruned_unless_asked_for(digits: hs.data.Data) -> None:
    net = NET(digits.shape, 10)
    hs.fit(net, digits, hs.MagnitudePruning(0.9, base=BASE), sweeps=2, progress=False)
    assert all(bool((value != 0).all()) for value in net.parameters() if value.ndim == 1)
    assert bool((net[-1].weight != 0).all())
    net = NET(digits.shape, 10)
    hs.fit(net, digits, hs.MagnitudePruning(0.9, layers=("1", "4", "7"), base=BASE), sweeps=2, progress=False)
    assert sum(int((weight != 0).sum()) for weight in matrices(net)) == round(0.1 * (sum(ENTRIES.values()) + 200))
    assert not bool((net[-1].weight != 0).all())


def test_layer_that_is_not_there_is_named_with_those_that_are(digits: hs.data.Data) -> None:
    with pytest.raises(ValueError, match=r"no layer 'hidden' with weights; it has 1, 4, 7"):
        hs.fit(NET(digits.shape, 10), digits, hs.MagnitudePruning(layers=("hidden",)), sweeps=2, progress=False)


def test_network_that_is_kept_is_sparse_though_a_dense_one_scored_better(digits: hs.data.Data) -> None:
    net = NET(digits.shape, 10)
    report = hs.fit(net, digits, hs.MagnitudePruning(0.97), sweeps=6, progress=False)
    scores = [record.score or 0.0 for record in report.records]
    assert max(scores[:3]) > max(scores[3:])
    assert report.best >= 3
    assert sum(int((weight != 0).sum()) for weight in matrices(net)[:2]) == round(0.03 * sum(ENTRIES.values()))


@pytest.mark.parametrize("activate", [None, hs.Activate(share=0.3)])
def test_rewinding_restores_the_survivors_to_the_bit_and_all_else(
    activate: hs.Activate | None, digits: hs.data.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    net = NET(digits.shape, 10)
    run(hs.MagnitudePruning(0.8, rounds=2, rewind=True, activate=activate, base=BASE), digits, 6, net)
    initial = spy.starts[0]
    for start in (spy.starts[2], spy.starts[4]):
        for name, value in start.items():
            if name in ENTRIES:
                assert torch.equal(value, torch.where(value != 0, initial[name], 0.0))
            else:
                assert torch.equal(value, initial[name])
    assert spy.progress == [0.0, 0.5] * 3
    assert [count == 0 for count in spy.optimiser] == [True, False] * 3


def test_without_rewinding_training_goes_on_from_the_survivors(
    digits: hs.data.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    lent = work(digits, 4)
    net, method = NET(digits.shape, 10), hs.MagnitudePruning(0.8, base=BASE)
    state = method.init(net, lent)
    for lent.sweep in (0, 1):
        method.sweep(state, lent)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    size = torch.cat([before[name].abs().flatten() for name in ENTRIES])
    least = size.sort(descending=True).values[round(0.2 * len(size)) - 1]
    lent.sweep = 2
    method.sweep(state, lent)
    for name, value in spy.starts[2].items():
        kept = before[name].abs() >= least if name in ENTRIES else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(value, torch.where(kept, before[name], torch.zeros_like(value)))
    assert spy.optimiser[2] == 0


def test_share_of_nothing_is_the_base_pruner_to_the_bit(digits: hs.data.Data) -> None:
    nets = []
    for activate in (None, hs.Activate(share=0.0)):
        nets.append(NET(digits.shape, 10))
        run(hs.MagnitudePruning(0.9, rounds=2, rewind=True, activate=activate, base=BASE), digits, 3, nets[-1])
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rewind", [False, True])
def test_state_goes_through_a_checkpoint_inside_a_round(rewind: bool, digits: hs.data.Data) -> None:
    activate = hs.Activate(0.3, sides=hs.TwoSided(2))
    method = hs.MagnitudePruning(0.9, rounds=2, rewind=rewind, activate=activate, base=BASE)
    whole, lent = NET(digits.shape, 10), work(digits, 6)
    state = method.init(whole, lent)
    for lent.sweep in range(3):
        method.sweep(state, lent)
    resumed, again = NET(digits.shape, 10, seed=9), work(digits, 6)
    other = method.init(resumed, again)
    resumed.load_state_dict(whole.state_dict())
    other.load_state_dict(deepcopy(state.state_dict()))
    for sweep in (3, 4, 5):
        lent.sweep = again.sweep = sweep
        assert method.sweep(state, lent).objective == method.sweep(other, again).objective
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_removals_of_a_round_are_the_smallest_and_then_the_negative_that_moved_least(digits: hs.data.Data) -> None:
    net, lent = NET(digits.shape, 10), work(digits, 4)
    method = hs.MagnitudePruning(0.8, activate=hs.Activate(share=0.25), base=BASE)
    state = method.init(net, lent)
    initial = torch.cat([weight.clone().flatten() for weight in matrices(net)[:2]])
    for lent.sweep in (0, 1):
        method.sweep(state, lent)
    trained = torch.cat([weight.clone().flatten() for weight in matrices(net)[:2]])
    gains = torch.cat([net[2].weight.sign().repeat_interleave(64), net[5].weight.sign().repeat_interleave(40)])
    lent.sweep = 2
    found = method.sweep(state, lent)
    removed = len(trained) - round(0.2 * len(trained))
    stage = removed // 4
    everything = torch.ones(len(trained), dtype=torch.bool)
    alive = select(everything, everything, trained.abs(), removed - stage)
    expected = select(alive, gains.detach() * trained < 0, (trained - initial).abs(), stage)
    assert torch.equal(torch.cat([one.alive.flatten() for one in state.pruned.values()]), expected)
    assert int(expected.sum()) == len(trained) - removed
    assert 0 <= found.extra["never"] <= 1
    assert 0 <= found.extra["always"] <= 1


def removal(net: nn.Sequential, x: Tensor, stage: hs.Activate, count: int, seed: int = 0) -> list[Tensor]:
    """Remove weights from the hidden layers of a network; return what is alive, by layer."""
    generator = torch.Generator().manual_seed(seed)
    data = hs.data.from_parts(torch.utils.data.TensorDataset(x, torch.arange(len(x)) % 2), outputs=2)
    pruned = [
        Pruned(
            w.affine.weight,
            torch.ones_like(w.affine.weight, dtype=torch.bool),
            torch.randn(w.affine.weight.shape, generator=generator),
        )
        for w in hidden_layers(net)
    ]
    stage.remove(net, pruned, [(range(len(pruned)), count)], work(data, 2), rewind=False)
    return [one.alive for one in pruned]


def rates(net: nn.Sequential, x: Tensor) -> Tensor:
    """Firing rate of each unit, or channel, of the only hidden layer."""
    net.eval()
    with torch.no_grad():
        return (net[:3](x) > 0).double().transpose(0, 1).flatten(1).mean(dim=1)


@pytest.mark.parametrize("activation", [hs.Step(), nn.ReLU()], ids=["step", "relu"])
@pytest.mark.parametrize("seed", range(4))
def test_two_sided_removal_moves_every_unit_towards_half_and_stops_it_there(seed: int, activation: nn.Module) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(200, 10, generator=generator)
    net = nn.Sequential(nn.Linear(10, 30), nn.BatchNorm1d(30), activation, nn.Linear(30, 2))
    with torch.no_grad():
        net[0].weight.normal_(generator=generator)
        net[1].weight.copy_(torch.where(torch.rand(30, generator=generator) < 0.5, -1.0, 1.0))
    before = rates(net, x)
    weight, gains = net[0].weight.detach().clone(), net[1].weight.detach()
    (alive,) = removal(net, x, hs.Activate(sides=hs.TwoSided(passes=6)), 60, seed)
    after = rates(net, x)
    low, high = before < 0.5, before > 0.5
    assert bool((after[low] >= before[low]).all())
    assert bool((after[high] <= before[high]).all())
    gone = ~alive
    assert bool((weight * gains[:, None])[low][gone[low]].lt(0).all())
    assert bool((weight * gains[:, None])[high][gone[high]].gt(0).all())
    assert int(gone.sum()) <= 60
    assert float((after - 0.5).abs().mean()) < float((before - 0.5).abs().mean())


def test_one_pass_removes_the_exact_count_or_all_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 10, generator=generator)
    for count in (17, 10_000):
        net = hs.nets.mlp(10, 30, 2, norm=False)[1:]
        negative = int((net[0].weight < 0).sum())
        (alive,) = removal(net, x, hs.Activate(), count)
        assert int((~alive).sum()) == min(count, negative)
        assert int((net[0].weight == 0).sum()) == min(count, negative)


def signs(seed: int, activation: nn.Module) -> tuple[nn.Sequential, Tensor]:
    """A second layer of whole weights that reads signs, and all of its 256 inputs."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 8), hs.Sign(), nn.Linear(8, 12), activation, nn.Linear(12, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(8))
        net[0].bias.fill_(-0.5)
        net[2].weight.copy_(torch.randint(-3, 4, (12, 8), generator=generator))
        net[2].bias.copy_(torch.randint(-3, 4, (12,), generator=generator))
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 8)
    return net, x


@pytest.mark.parametrize("seed", range(5))
def test_compensated_removal_of_negative_weights_never_lowers_a_sum_that_reads_signs(seed: int) -> None:
    net, x = signs(seed, hs.Step())
    with torch.no_grad():
        sums = net[:3](x)
        negative = net[2].weight < 0
        removal(net, x, hs.Activate(), 10_000, seed)
        after = net[:3](x)
    assert bool(((net[2].weight == 0) | ~negative).all())
    assert torch.equal(after, after.round())
    assert bool((after >= sums).all())
    assert bool((after > sums).any())


def test_without_compensation_a_negative_weight_less_can_silence_a_unit_that_reads_signs() -> None:
    for compensate, fires in ((False, 0), (True, 2)):
        net = nn.Sequential(nn.Linear(1, 1), hs.Sign(), nn.Linear(1, 1), hs.Step(), nn.Linear(1, 2))
        x = torch.tensor([[0.0], [1.0]])
        with torch.no_grad():
            net[0].weight.fill_(1.0)
            net[0].bias.fill_(-0.5)
            net[2].weight.fill_(-1.0)
            net[2].bias.fill_(-0.5)  # fires where the sign is -1: -1 * -1 - 0.5 > 0
            assert int(net[:4](x).sum()) == 1
            pruned = Pruned(net[2].weight, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1))
            data = hs.data.from_parts(torch.utils.data.TensorDataset(x, torch.arange(2)), outputs=2)
            stage = hs.Activate(compensate_bias=compensate)
            stage.remove(net, [pruned], [(range(1), 1)], work(data, 1), rewind=False)
            assert int(net[:4](x).sum()) == fires


def test_compensation_behind_a_normalisation_goes_into_its_mean() -> None:
    net, x = signs(3, hs.Step())
    norm = nn.BatchNorm1d(12)
    linear = nn.Linear(8, 12, bias=False)
    linear.weight = net[2].weight
    net = nn.Sequential(net[0], net[1], linear, norm, net[3], net[4]).eval()
    with torch.no_grad():
        before = net[:4](x)
        removal(net, x, hs.Activate(), 10_000)
        after = net[:4](x)
    assert bool((after >= before - 1e-5).all())
    assert float((after - before).max()) > 0.1


def test_convolutions_are_watched_by_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 6, 6, generator=generator)
    net = nn.Sequential(nn.Conv2d(1, 10, 3, padding=1), nn.MaxPool2d(2), hs.Step(), nn.Flatten(), nn.Linear(90, 2))
    with torch.no_grad():
        net[0].weight.normal_(generator=generator)
        before = rates(net, x)
        removal(net, x, hs.Activate(sides=hs.TwoSided(3)), 20)
        after = rates(net, x)
    assert bool((after[before < 0.5] >= before[before < 0.5]).all())
    assert bool((after[before > 0.5] <= before[before > 0.5]).all())
    assert int((net[0].weight == 0).sum()) == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hs.MagnitudePruning(1.0), r"sparsity is the share of zeros at the end, in \(0, 1\), got 1.0"),
        (lambda: hs.MagnitudePruning(0.0), "sparsity is the share of zeros"),
        (lambda: hs.MagnitudePruning(rounds=0), "rounds must be at least 1"),
        (lambda: hs.Activate(share=1.5), r"share is the share of the removals, in \[0, 1\], got 1.5"),
        (lambda: hs.TwoSided(passes=0), "passes must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_be_pruned_so_far_is_named_with_a_remedy(digits: hs.data.Data) -> None:
    net = NET(digits.shape, 10)
    with pytest.raises(ValueError, match=r"3 rounds .* need at least 4 sweeps, got sweeps=3; give more sweeps"):
        hs.fit(net, digits, hs.MagnitudePruning(rounds=3), sweeps=3, progress=False)
    layerwise = hs.MagnitudePruning(0.9999, scope=hs.LayerWise(), base=BASE)
    with pytest.raises(ValueError, match=r"leaves 0 of 2560 weights, so that layer '1' would lose its last"):
        hs.fit(net, digits, layerwise, sweeps=2, progress=False)
    with torch.no_grad():
        net[4].weight.mul_(1e-6)
    still = replace(BASE, optimiser=hs.SGD(lr=1e-9))
    with pytest.raises(ValueError, match=r"sparsity=0.9 leaves 0 of 800 weights, so that layer '4' .* LayerWise"):
        hs.fit(net, digits, hs.MagnitudePruning(0.9, base=still), sweeps=2, progress=False)
    branched = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 9), hs.Step(), nn.Linear(9, 10))
    with pytest.raises(ValueError, match=r"layer '2' is Tanh\(\)"):
        hs.fit(branched, digits, hs.MagnitudePruning(0.5, activate=hs.Activate()), sweeps=2, progress=False)
    bare = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), hs.Sign(), nn.Linear(9, 9, bias=False), hs.Sign(), nn.Linear(9, 10)
    )
    with pytest.raises(ValueError, match="layer '3' reads signs and has no bias that compensates a weight"):
        hs.fit(bare, digits, hs.MagnitudePruning(0.5, activate=hs.Activate()), sweeps=2, progress=False)
