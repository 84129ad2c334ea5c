"""What a forward pass keeps: the same gradients, bit for bit, from less."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import hardstep as hs
from hardstep.blocks import ResidualBlock

from .contracts.test_rules import DTYPES, RULES, every_rule

WAYS = [hs.Packed(), hs.Recomputed()]
every_way = pytest.mark.parametrize("way", WAYS, ids=repr)
Way = hs.Whole | hs.Packed | hs.Recomputed
Run = Callable[[nn.Module, Way], Tensor]


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def once(*x: Tensor, retain: int = 0) -> Run:
    """Run batches forwards, one after another, and then all of them backwards, some more often."""

    def run(net: nn.Module, way: Way) -> Tensor:
        outs = []
        for batch in x:
            with way.saving(net):
                outs.append(net(batch))
        loss = sum((out.float() ** 2).sum() * (i + 1) for i, out in enumerate(outs))
        for _ in range(retain):
            loss.backward(retain_graph=True)
        loss.backward()
        return loss.detach()

    return run


def result(net: nn.Module, way: Way, run: Run) -> list[Tensor]:
    """Return loss, gradients and buffers."""
    net = copy.deepcopy(net).train()
    torch.manual_seed(1)
    loss = run(net, way)
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [loss, torch.get_rng_state(), *gradients, *net.buffers()]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) for x, y in zip(a, b, strict=True))


def held(net: nn.Module, way: Way, x: Tensor) -> int:
    """Return the bytes that a forward pass allocates and does not free, by torch's own record; its output included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as allocations, way.saving(net):
        out = net(x)
    del out
    return sum(event.self_cpu_memory_usage for event in allocations.events())


MLP = hs.nets.MLP(hidden=(37, 19))
NETS: dict[str, tuple[nn.Module, Tensor]] = {
    "mlp": (MLP((13,), 5), noise(11, 13)),
    "mlp, sign, no norm": (hs.nets.MLP(hidden=(37, 19), norm=False, activation=hs.Sign())((13,), 5), noise(11, 13)),
    "mlp, stairs": (hs.nets.MLP(hidden=(37, 19), activation=hs.Staircase(3))((13,), 5), noise(11, 13)),
    "mlp, stairs, no norm": (
        hs.nets.MLP(hidden=(37, 19), norm=False, activation=hs.Staircase(6))((13,), 5),
        noise(11, 13),
    ),
    "mlp, dropout": (hs.nets.MLP(hidden=(37, 19), dropout=0.4)((13,), 5), noise(11, 13)),
    "mlp, dropout, no norm": (hs.nets.MLP(hidden=(37, 19), norm=False, dropout=0.4)((13,), 5), noise(11, 13)),
    "convnet4": (hs.nets.ConvNet4(channels=(4, 6), units=17)((1, 13, 13), 5), noise(3, 1, 13, 13)),
    "convnet4, sign": (
        hs.nets.ConvNet4(channels=(4, 6), units=17, norm=False, activation=hs.Sign(hs.Sech2()))((1, 13, 13), 5),
        noise(3, 1, 13, 13),
    ),
    "convnet8": (hs.nets.ConvNet8(channels=(3, 4, 5, 6))((1, 20, 20), 5), noise(3, 1, 20, 20)),
    "resnet18": (hs.nets.ResNet18(channels=(3, 3, 4, 5), small=True)((3, 9, 9), 5), noise(3, 3, 9, 9)),
    "resnet18, whole stem": (hs.nets.ResNet18(channels=(2, 2, 3, 3))((1, 32, 32), 5), noise(2, 1, 32, 32)),
    "binary weights": (
        hs.nets.MLP(hidden=(37, 19), activation=hs.Sign(), weights=hs.Binary(hs.PerLayer()))((13,), 5),
        noise(11, 13),
    ),
    "Bi-Real sums": (
        hs.nets.ResNet20(channels=(3, 4, 5), activation=hs.Sign(), weights=hs.Libra(), sums=hs.nets.RealSums(1))(
            (3, 12, 12), 5
        ),
        noise(3, 3, 12, 12),
    ),
    "nested, pool over bits": (
        nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
            nn.Sequential(hs.Step(hs.ReSTE()), nn.MaxPool2d(2), nn.Dropout2d(0.5)),
            nn.Flatten(),
            nn.Sequential(nn.Linear(36, 7), nn.Sequential(nn.LayerNorm(7), hs.Sign()), nn.Linear(7, 2)),
        ),
        noise(3, 1, 9, 9),
    ),
    "channels last": (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), hs.Sign(), nn.Conv2d(5, 3, 3), hs.Step()).to(
            memory_format=torch.channels_last
        ),
        noise(3, 3, 7, 7).to(memory_format=torch.channels_last),
    ),
    "16 bits": (MLP((13,), 5).bfloat16(), noise(11, 13, dtype=torch.bfloat16)),
    "half precision": (hs.nets.MLP(hidden=(37,), activation=hs.Staircase(2))((13,), 5).half(), noise(11, 13).half()),
}
every_net = pytest.mark.parametrize("name", NETS)


@every_net
@every_way
def test_loss_gradients_buffers_and_generator_are_those_of_the_plain_run(name: str, way: Way) -> None:
    net, x = NETS[name]
    assert same_bits(result(net, hs.Whole(), once(x)), result(net, way, once(x)))


@pytest.mark.parametrize("name", ["mlp", "mlp, dropout, no norm", "convnet4", "resnet18"])
@every_way
def test_double_precision_too(name: str, way: Way) -> None:
    net, x = copy.deepcopy(NETS[name][0]).double(), NETS[name][1].double()
    assert same_bits(result(net, hs.Whole(), once(x)), result(net, way, once(x)))


@pytest.mark.parametrize("name", ["mlp, dropout", "mlp, sign, no norm", "convnet4", "nested, pool over bits"])
@every_way
def test_graph_that_is_retained_gives_the_same_twice_and_more(name: str, way: Way) -> None:
    net, x = NETS[name]
    assert same_bits(result(net, hs.Whole(), once(x, retain=2)), result(net, way, once(x, retain=2)))


@pytest.mark.parametrize("name", ["mlp, dropout", "mlp, stairs, no norm", "resnet18"])
@every_way
def test_gradients_of_several_batches_add_up_alike(name: str, way: Way) -> None:
    net, x = NETS[name]
    run = once(x, 2 * x[:2], x.flip(0))
    assert same_bits(result(net, hs.Whole(), run), result(net, way, run))


@every_way
def test_autocast_is_reproduced(way: Way) -> None:
    net, x = NETS["convnet4"]

    def run(net: nn.Module, way: Way) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16), way.saving(net):
            out = net(x)
        loss = out.float().square().sum()
        loss.backward()
        return loss.detach()

    assert same_bits(result(net, hs.Whole(), run), result(net, way, run))


@every_way
def test_evaluation_mode_leaves_statistics_alone(way: Way) -> None:
    net, x = copy.deepcopy(NETS["convnet4"])
    net.eval()
    before = [buffer.clone() for buffer in net.buffers()]
    with way.saving(net):
        out = net(x)
    out.sum().backward()
    assert same_bits(before, list(net.buffers()))


@every_rule
@every_way
@pytest.mark.parametrize("norm", [True, False])
def test_every_rule_gives_the_same_gradients(rule: hs.BackwardRule, way: Way, norm: bool) -> None:
    net = hs.nets.MLP(hidden=(9, 11), norm=norm, activation=hs.Step(rule))((7,), 3)
    x = noise(13, 7)
    assert same_bits(result(net, hs.Whole(), once(x)), result(net, way, once(x)))


def inputs(rule: hs.BackwardRule, dtype: torch.dtype) -> list[Tensor]:
    """Inputs of every shape and in every order in memory, with values on the edges of windows."""
    most = torch.finfo(dtype).max
    edges = [most, -most, 0.0, -0.0, 1.0, -1.0, 0.25, -0.25, 0.5, 1.5, -1.5, 2.0, 1e-3, -0.3, 7.0, -0.7, 0.9, 3.0]
    flat = torch.tensor(edges * 4, dtype=dtype)
    near = torch.cat([flat, flat.nextafter(flat + 1), flat.nextafter(flat - 1)]) if dtype.itemsize > 2 else flat
    return [
        near,
        near[:0],
        near[4],
        near[:56].view(2, 4, 7).transpose(0, 2),
        near[::3],
        near[:5].expand(3, 5),
        near[:48].view(2, 3, 4, 2).to(memory_format=torch.channels_last),
    ]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.stand_ins], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_stand_ins_pass_back_what_every_input_does(rule: hs.BackwardRule, dtype: torch.dtype) -> None:
    step = hs.Step(rule)
    for x in inputs(rule, dtype):
        special = torch.tensor([inf, -inf, nan, 0.0, -0.0], dtype=dtype)
        choice = torch.randint(10, x.shape, generator=torch.Generator().manual_seed(1))
        grads = torch.where(choice < 5, special[choice.clamp(max=4)], noise(*x.shape, dtype=dtype))
        backs = []
        for way in (hs.Whole(), hs.Packed()):
            leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
            with way.saving(step):
                out = step(leaf)
            backs += torch.autograd.grad(out, leaf, grads)
        assert torch.equal(*(back.nan_to_num(7.0) for back in backs))
        assert torch.equal(*(back.signbit() for back in backs))


def test_box_rules_have_stand_ins_and_smooth_ones_do_not() -> None:
    assert hs.Clipped().stand_ins and hs.ReSTE(power=1.0).stand_ins and hs.UnitArea(hs.Clipped()).stand_ins
    assert hs.Annealed().stand_ins and not hs.Annealed().at(0.5).stand_ins
    assert not hs.Sech2().stand_ins and not hs.ReSTE().stand_ins
    assert hs.TargetRule(hs.HingeLoss()).stand_ins and not hs.TargetRule(hs.HingeLoss(), relative="layer").stand_ins


@pytest.mark.parametrize("kind", [hs.Step, hs.Sign, *(lambda k=k: hs.Staircase(k) for k in (1, 2, 3, 6, 15, 16, 255))])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_give_every_output_back(kind: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    activation = kind()
    out = activation(torch.linspace(-1, 2, 1001, dtype=dtype))
    codes, levels = activation.coded(out)
    assert torch.equal(levels[codes.long()], out)


def test_more_levels_than_a_byte_tells_apart_are_kept_whole() -> None:
    net = nn.Sequential(nn.Linear(3, 4), hs.Staircase(300), nn.Linear(4, 2))
    x = noise(5, 3)
    assert same_bits(result(net, hs.Whole(), once(x)), result(net, hs.Packed(), once(x)))


GENERATOR = torch.get_rng_state().numel()


@pytest.mark.parametrize("rule", [hs.Clipped(0.5), hs.ReSTE()], ids=repr)
def test_bytes_are_those_of_the_formulas(rule: hs.BackwardRule) -> None:
    rows, units, layers = 64, 256, 3
    out, statistics = 4 * rows * 10, 2 * 4 * units * layers
    net = hs.nets.MLP(hidden=(units,) * layers, activation=hs.Step(rule))((100,), 10)
    x = noise(rows, 100)
    count = rows * units * layers
    held(net, hs.Whole(), x)
    assert abs(held(net, hs.Whole(), x) - (12 * count + statistics + out)) <= 64
    assert abs(held(net, hs.Packed(), x) - (count * 33 // 8 + out)) <= 64
    assert abs(held(net, hs.Recomputed(), x) - (count // 8 + out)) <= 64


@pytest.mark.parametrize(
    ("rule", "bits"),
    [(hs.Identity(), 1), (hs.Clipped(), 2), (hs.TargetRule(hs.HingeLoss()), 3), (hs.Sech2(), 33)],
    ids=str,
)
def test_without_normalisation_a_rule_keeps_what_it_needs(rule: hs.BackwardRule, bits: int) -> None:
    rows, units, layers = 64, 256, 3
    net = hs.nets.MLP(hidden=(units,) * layers, norm=False, activation=hs.Step(rule))((100,), 10)
    held(net, hs.Packed(), noise(rows, 100))
    assert abs(held(net, hs.Packed(), noise(rows, 100)) - (rows * units * layers * bits // 8 + 40 * rows)) <= 128


def test_residual_block_keeps_its_input_once_as_bits() -> None:
    block = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), hs.Step(), ResidualBlock(8, 8, stride=2))
    x = noise(4, 3, 16, 16)
    held(block, hs.Recomputed(), x)
    inner, out = 4 * 8 * 16 * 16, 4 * 4 * 8 * 8 * 8
    assert abs(held(block, hs.Recomputed(), x) - (inner // 8 + out)) <= 128


class Parallel(nn.Module):
    """No Sequential: two ways, one of which writes over a step's output."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.first, self.step, self.last = nn.Linear(6, 9), hs.Step(), nn.Linear(9, 2)
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        bits = self.step(self.first(x))
        if self.writes:
            bits = bits.mul_(0.3)
        out: Tensor = self.last(bits) + self.last(1 - bits)
        return out


@pytest.mark.parametrize("writes", [False, True])
def test_any_network_can_be_packed_and_what_is_no_step_output_any_more_is_kept(writes: bool) -> None:
    net, x = Parallel(writes), noise(5, 6)
    assert same_bits(result(net, hs.Whole(), once(x)), result(net, hs.Packed(), once(x)))


def test_network_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cuts an nn\.Sequential.*the network is a Parallel; .*memory=Packed\(\)"):
        hs.Recomputed().saving(Parallel(False))


def test_target_propagation_keeps_calls_itself() -> None:
    with pytest.raises(ValueError, match=r"leave base\.memory at Whole\(\), got Packed\(\)"):
        hs.TargetProp(base=hs.GradientDescent(rule=hs.TargetRule(), memory=hs.Packed()))


@every_way
def test_tensor_changed_in_place_before_the_backward_pass_is_named(way: Way) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), hs.Step(), nn.Linear(3, 2), nn.Tanh())
    with way.saving(net):
        out = net(noise(5, 4))
    with torch.no_grad():
        net[3].weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


@every_way
def test_modules_are_as_they_were_afterwards(way: Way) -> None:
    net, x = copy.deepcopy(NETS["resnet18"])
    with pytest.raises(RuntimeError), way.saving(net):
        net(x[:, :1])
    for module in net.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks


@pytest.mark.parametrize(
    "wrap",
    [
        lambda base: base,
        lambda base: hs.Splitting(base=base),
        lambda base: hs.MagnitudePruning(0.5, base=base),
    ],
    ids=["plain", "splitting", "pruning"],
)
def test_whole_fit_ends_in_the_same_bits(wrap: Callable[[hs.GradientDescent], hs.Method], digits: hs.data.Data) -> None:
    ends = []
    for way in (hs.Whole(), *WAYS):
        net = hs.nets.MLP(hidden=(64, 32), dropout=0.1)(digits.shape, 10)
        report = hs.fit(net, digits, wrap(hs.GradientDescent(memory=way)), sweeps=3, progress=False)
        ends.append([*net.state_dict().values(), torch.tensor([r.objective for r in report.records])])
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])
