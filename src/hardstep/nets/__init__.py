"""Networks: plain `nn.Sequential`s of linear maps, normalisation, steps and residual blocks. There is no base class."""

from hardstep.nets.convnets import AlexNet, ConvNet4, ConvNet8, VGGSmall, convnet4
from hardstep.nets.dense import MLP, mlp
from hardstep.nets.resnets import ResNet18, ResNet20, ResNet34
from hardstep.nets.sums import HardSums, HardTanh, RealBlock, RealSums, RPReLU, Unbounded

__all__ = [
    "MLP",
    "AlexNet",
    "ConvNet4",
    "ConvNet8",
    "HardSums",
    "HardTanh",
    "RPReLU",
    "RealBlock",
    "RealSums",
    "ResNet18",
    "ResNet20",
    "ResNet34",
    "Unbounded",
    "VGGSmall",
    "convnet4",
    "mlp",
]
