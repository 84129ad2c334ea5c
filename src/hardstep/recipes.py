"""Recipes: a network, a method and a number of sweeps that were published together."""

from __future__ import annotations

from dataclasses import dataclass

from hardstep.losses import CrossEntropy
from hardstep.methods.gradient import SGD, Adam, Drops, GradientDescent
from hardstep.nets import AlexNet, ConvNet4, ConvNet8, ResNet18
from hardstep.rules import BackwardRule, Sech2
from hardstep.step import Sign, Staircase

__all__ = ["Recipe", "friesen2018"]


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
    """

    net: ConvNet4 | ConvNet8 | AlexNet | ResNet18
    method: GradientDescent
    sweeps: int


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
        net: ConvNet4 | ConvNet8 | AlexNet | ResNet18,
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
