"""Recipes: a network, a method and a number of sweeps that were published together."""

from __future__ import annotations

from dataclasses import dataclass, field

from hardstep.augment import Augment
from hardstep.losses import CrossEntropy
from hardstep.methods.gradient import SGD, Adam, Cosine, Drops, GradientDescent, Line
from hardstep.nets import (
    AlexNet,
    ConvNet4,
    ConvNet8,
    HardTanh,
    RealSums,
    ResNet18,
    ResNet20,
    ResNet34,
    VGGSmall,
)
from hardstep.rules import Apart, ApproxSign, BackwardRule, Clipped, Sech2, published_rules
from hardstep.step import Sign, Staircase
from hardstep.weights import Binary, Libra, PerChannel, PerLayer

__all__ = ["Recipe", "friesen2018", "liu2018", "qin2020", "wu2023"]

CIFAR = Augment(crop=4, mirror=True)

Net = ConvNet4 | ConvNet8 | AlexNet | VGGSmall | ResNet18 | ResNet20 | ResNet34


@dataclass(frozen=True)
class Recipe:
    """What to train and how.

    Parameters
    ----------
    net
        The network.
    method
        The method, whose schedule is in shares of the training.
    sweeps
        Sweeps over the data.
    augment
        What is done with training images: `dataclasses.replace(data, augment=recipe.augment)`.
    """

    net: Net
    method: GradientDescent
    sweeps: int
    augment: Augment = field(default_factory=Augment)


def friesen2018(*, staircase: bool = False, rule: BackwardRule = Sech2()) -> dict[str, Recipe]:  # noqa: B008 (frozen)
    """Return the settings under which the target-propagation paper trained its four networks, by name.

    | net | batch | optimiser | sweeps; rate a tenth from | decay, signs / staircases | stairs |
    |---|---|---|---|---|---|
    | convnet4 | 64 | Adam 2.5e-4 | 300; 200, 250 | 5e-4 / 5e-4 | 3 |
    | convnet8 | 64 | Adam 1e-3 | 300; 200, 250 | 5e-4 / 5e-4 | 3 |
    | alexnet | 128 | Adam 1e-4 | 80; 56, 64 | 5e-6 / 5e-5 | 3 |
    | resnet18 | 256 | SGD 0.1, momentum 0.9 | 90; 30, 60 | 5e-7 / 1e-5 | 5 |

    The decay is coupled and of all parameters; sweeps count from 1, and the rate falls at the start of the named ones.

    Parameters
    ----------
    staircase
        Staircases, the paper's quantised ReLUs, instead of signs.
    rule
        Backward rule: `Sech2()` is the paper's soft hinge, `Clipped()` its saturated straight-through estimator.

    References
    ----------
    Friesen and Domingos 2018, appendix, and the authors' settings [friesen2018]. Differs: `fit` keeps the best sweep
    of the validation part, not of the test part; each stair of a staircase follows the rule; whether images are
    standardised, cropped and mirrored is up to the data; for the networks see their own pages.

    Examples
    --------
    >>> recipe = friesen2018()["convnet8"]
    >>> recipe.sweeps, recipe.method.batch_size, recipe.method.optimiser.lr
    (300, 64, 0.001)
    """

    def decay(signs: float, staircases: float) -> float:
        return staircases if staircase else signs

    def recipe(
        net: Net,
        batch_size: int,
        optimiser: Adam | SGD,
        sweeps: int,
        falls: tuple[int, int],
    ) -> Recipe:
        schedule = Drops(at=tuple((sweep - 1) / sweeps for sweep in falls))
        method = GradientDescent(
            rule=rule, loss=CrossEntropy(), optimiser=optimiser, schedule=schedule, batch_size=batch_size
        )
        return Recipe(net, method, sweeps)

    activation, finer = (Staircase(3, rule), Staircase(5, rule)) if staircase else (Sign(rule), Sign(rule))
    first, second = (Adam(lr, weight_decay=5e-4, coupled=True) for lr in (2.5e-4, 1e-3))
    third = Adam(1e-4, weight_decay=decay(5e-6, 5e-5), coupled=True)
    fourth = SGD(0.1, weight_decay=decay(5e-7, 1e-5))
    return {
        "convnet4": recipe(ConvNet4(norm=False, activation=activation), 64, first, 300, (200, 250)),
        "convnet8": recipe(ConvNet8(activation=activation), 64, second, 300, (200, 250)),
        "alexnet": recipe(AlexNet(activation=activation), 128, third, 80, (56, 64)),
        "resnet18": recipe(ResNet18(activation=finer), 256, fourth, 90, (30, 60)),
    }


def wu2023() -> dict[str, Recipe]:
    """Return the settings under which the authors of ReSTE trained networks of signs with binary weights, by name.

    | net | data | batch | sweeps |
    |---|---|---|---|
    | vgg-small, resnet20, bi-real resnet20 | CIFAR | 256 | 1000 |
    | resnet18 | CIFAR | 96 | 2000 |
    | imagenet resnet18, imagenet resnet34 | ImageNet | 750 | 250 |

    SGD 0.1 with momentum 0.9 and decay 1e-4, along a cosine, on CIFAR after 5 sweeps in which the rate rises; ReSTE
    with a power from 1 to 3 in activations and weights; one scale a layer, attached; a ReLU before each normalisation.
    Images of CIFAR are framed by 4 pixels, cropped and mirrored, those of ImageNet zoomed and mirrored; for their test
    side use `data.load(folder, size=(224, 224), margin=32)`.

    References
    ----------
    Wu et al. 2023, authors' code [wu2023]. Differs: the rate moves from batch to batch and reaches 0 at the end, not
    four sweeps before; `fit` keeps the best sweep of the validation part; initial weights are those of our networks,
    and shortcuts with a convolution take means of 2x2 places first; images are not standardised.

    Examples
    --------
    >>> wu2023()["resnet20"].method.rule.at(0.5).power.__round__(4)
    1.5858
    """
    weights, sign, plain, bireal = Binary(PerLayer()), Sign(), RealSums(2, rectified=True), RealSums(1, rectified=True)

    def recipe(net: Net, batch_size: int, sweeps: int, warmup: int, augment: Augment = CIFAR) -> Recipe:
        method = GradientDescent(
            rule=published_rules()["ReSTE"],
            loss=CrossEntropy(),
            optimiser=SGD(0.1, weight_decay=1e-4),
            schedule=Cosine(warmup / sweeps),
            batch_size=batch_size,
        )
        return Recipe(net, method, sweeps, augment)

    def resnet20(sums: RealSums) -> ResNet20:
        return ResNet20(readout_norm=True, activation=sign, weights=weights, sums=sums)

    small = ResNet18(small=True, readout_norm=True, activation=sign, weights=weights, sums=plain)
    large = ResNet18(readout_norm=True, activation=sign, weights=weights, sums=bireal)
    larger = ResNet34(readout_norm=True, activation=sign, weights=weights, sums=bireal)
    return {
        "vgg-small": recipe(VGGSmall(rectified=True, activation=sign, weights=weights), 256, 1000, 5),
        "resnet20": recipe(resnet20(plain), 256, 1000, 5),
        "bi-real resnet20": recipe(resnet20(bireal), 256, 1000, 5),
        "resnet18": recipe(small, 96, 2000, 5),
        "imagenet resnet18": recipe(large, 750, 250, 0, Augment(mirror=True, zoom=(0.08, 1.25))),
        "imagenet resnet34": recipe(larger, 750, 250, 0, Augment(mirror=True, zoom=(0.08, 1.25))),
    }


def liu2018() -> dict[str, Recipe]:
    """Return the settings under which Bi-Real nets are trained in their authors' PyTorch code: ImageNet, by name.

    256 sweeps in batches of 512 with Adam 1e-3 along a straight line, labels smoothed by 0.1; ApproxSign in
    activations, the clipped rule in weights, one detached scale a channel; a shortcut around each convolution. Images
    are zoomed and mirrored; for the test side use `data.load(folder, size=(224, 224), margin=32)`.

    References
    ----------
    Liu et al. 2018, authors' code [liu2018]. Differs: the gradient of a weight has the scale as a factor, which Adam
    all but divides out; the rate moves from batch to batch; initial weights of all layers as in `ResNet18`; images are
    not standardised, colours do not change.

    Examples
    --------
    >>> liu2018()["resnet18"].sweeps
    256
    """
    method = GradientDescent(
        rule=Apart(ApproxSign(), Clipped()),
        loss=CrossEntropy(smoothing=0.1),
        optimiser=Adam(1e-3),
        schedule=Line(),
        batch_size=512,
    )
    weights, sign = Binary(PerChannel(detach=True)), Sign()
    augment = Augment(mirror=True, zoom=(0.08, 1.0))
    return {
        "resnet18": Recipe(ResNet18(activation=sign, weights=weights, sums=RealSums()), method, 256, augment),
        "resnet34": Recipe(ResNet34(activation=sign, weights=weights, sums=RealSums()), method, 256, augment),
    }


def qin2020() -> dict[str, Recipe]:
    """Return the settings under which the authors of IR-Net trained ResNet-20 on CIFAR-10, by name.

    400 sweeps in batches of 128 with SGD 0.1, momentum 0.9 and decay 1e-4, along a cosine; EDE with t from 1e-3 to 10
    in activations and Libra weights; a shortcut around each convolution, sums clipped to [-1, 1].
    Images are framed by 4 pixels, cropped and mirrored.

    References
    ----------
    Qin et al. 2020, authors' code [qin2020]. Differs: the rate moves from batch to batch; initial weights of variance
    2/(k² outputs), there 2/(k² inputs); images are not standardised.

    Examples
    --------
    >>> qin2020()["resnet20"].method.rule.at(1.0)
    EDE(temperature=10.0)
    """
    method = GradientDescent(
        rule=published_rules()["EDE"],
        loss=CrossEntropy(),
        optimiser=SGD(0.1, weight_decay=1e-4),
        schedule=Cosine(),
        batch_size=128,
    )
    net = ResNet20(readout_norm=True, activation=Sign(), weights=Libra(), sums=RealSums(after=HardTanh()))
    return {"resnet20": Recipe(net, method, 400, CIFAR)}
