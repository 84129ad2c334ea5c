from . import data as data
from . import nets as nets
from . import recipes as recipes
from .augment import Augment
from .cardinality import Cardinality
from .compare import Comparison, compare
from .convex.corrections import Correction, GroupLasso, Ridge
from .convex.oracle_ascent import BatchedAscent
from .convex.sliding import Sliding
from .diagnostics import DeadRates, dead_rates
from .engine import Engine
from .estimator import Holdout, StepClassifier, StepRegressor
from .export.c import to_c, write_c
from .fit import Batch, Method, Sweep, Work, fit, score
from .fold import fold_constants
from .frames import Filters, Morlet, Wavelets, biorthogonal, haar, user_frame
from .freeze import freeze
from .grid import Grid
from .group_penalties import Columns, Grouped, Layout, Rows, SparseGroupL0, Words
from .hardnet import HardNet
from .indicators import StepReading, estimating_error, gradient_stability, read_steps, read_weights
from .layers import Shift, permanent, quantise, quantise_hidden, rprelu, rsign
from .losses import CrossEntropy, Loss, Squared, SquaredHinge
from .memory import Packed, Recomputed, Whole
from .methods.activate import Activate, Negative, TwoSided
from .methods.aims import Aim, Flips, Ramp
from .methods.bcd import BCD
from .methods.convex import ConvexTraining
from .methods.gradient import SGD, Adam, Constant, Cosine, Drops, GradientDescent, Line
from .methods.layer_targets import FlipSearch, TargetProp
from .methods.magnitude import Global, LayerWise, MagnitudePruning
from .methods.margin_bcd import Fits, MarginBCD
from .methods.random_features import RandomFeatures
from .methods.splitting import Splitting
from .methods.target_prop import ExactTargetProp
from .methods.target_search import Alternate, Descents, Flip, GradientSign, LinearPrograms, Proposal, Refit, SplitCredit
from .penalties import L0, L1, L2, NoPenalty, Penalty, Separable, TransformedL1
from .pruning import BackwardElimination, ColumnNorm, ColumnsL20, RowsL20, UnitChoice, prune_units
from .report import Record, Report
from .rules import (
    DSQ,
    EDE,
    RBNN,
    Annealed,
    Apart,
    ApproxSign,
    ArcTan,
    BackwardRule,
    Clipped,
    CosinePath,
    Fourier,
    Gaussian,
    GeometricPath,
    Identity,
    Laplace,
    LeakyBox,
    LinearPath,
    LogTail,
    PseudoSpike,
    Rectified,
    ReSTE,
    Scaled,
    Sech2,
    Surrogate,
    SwishSign,
    Trapezoid,
    UnitArea,
    UnitPeak,
    published_rules,
)
from .scattering import Scattering
from .scattering_features import ScatteringFeatures
from .scattering_layers import (
    LOGISTIC,
    MODULUS,
    RECTIFIED,
    TANH,
    HardStep,
    MaxPool,
    MeanPool,
    Pointwise,
    ScatteringLayer,
    Subsample,
)
from .selection import orthogonal_least_squares, select_per_class
from .shrink import shrink
from .simplify import simplify
from .step import Sign, Staircase, Step, step
from .target_diagnostics import CallTargets, Targets, diagnose_targets
from .target_rule import (
    HingeLoss,
    LayerLoss,
    LinearLoss,
    LogLoss,
    PerceptronLoss,
    QuadraticLoss,
    SaturatedHingeLoss,
    SoftHingeLoss,
    SquaredHingeLoss,
    TargetRule,
)
from .teachers import FrozenTeacher, NoTeacher
from .verify import verify
from .version import __version__
from .weights import Binary, Learned, Libra, PerChannel, PerLayer, Real, Ternary, Unscaled, Weights

__all__ = [
    "BCD",
    "DSQ",
    "EDE",
    "L0",
    "L1",
    "L2",
    "LOGISTIC",
    "MODULUS",
    "RBNN",
    "RECTIFIED",
    "SGD",
    "TANH",
    "Activate",
    "Adam",
    "Aim",
    "Alternate",
    "Annealed",
    "Apart",
    "ApproxSign",
    "ArcTan",
    "Augment",
    "BackwardElimination",
    "BackwardRule",
    "Batch",
    "BatchedAscent",
    "Binary",
    "CallTargets",
    "Cardinality",
    "Clipped",
    "ColumnNorm",
    "Columns",
    "ColumnsL20",
    "Comparison",
    "Constant",
    "ConvexTraining",
    "Correction",
    "Cosine",
    "CosinePath",
    "CrossEntropy",
    "DeadRates",
    "Descents",
    "Drops",
    "Engine",
    "ExactTargetProp",
    "Filters",
    "Fits",
    "Flip",
    "FlipSearch",
    "Flips",
    "Fourier",
    "FrozenTeacher",
    "Gaussian",
    "GeometricPath",
    "Global",
    "GradientDescent",
    "GradientSign",
    "Grid",
    "GroupLasso",
    "Grouped",
    "HardNet",
    "HardStep",
    "HingeLoss",
    "Holdout",
    "Identity",
    "Laplace",
    "LayerLoss",
    "LayerWise",
    "Layout",
    "LeakyBox",
    "Learned",
    "Libra",
    "Line",
    "LinearLoss",
    "LinearPath",
    "LinearPrograms",
    "LogLoss",
    "LogTail",
    "Loss",
    "MagnitudePruning",
    "MarginBCD",
    "MaxPool",
    "MeanPool",
    "Method",
    "Morlet",
    "Negative",
    "NoPenalty",
    "NoTeacher",
    "Packed",
    "Penalty",
    "PerChannel",
    "PerLayer",
    "PerceptronLoss",
    "Pointwise",
    "Proposal",
    "PseudoSpike",
    "QuadraticLoss",
    "Ramp",
    "RandomFeatures",
    "ReSTE",
    "Real",
    "Recomputed",
    "Record",
    "Rectified",
    "Refit",
    "Report",
    "Ridge",
    "Rows",
    "RowsL20",
    "SaturatedHingeLoss",
    "Scaled",
    "Scattering",
    "ScatteringFeatures",
    "ScatteringLayer",
    "Sech2",
    "Separable",
    "Shift",
    "Sign",
    "Sliding",
    "SoftHingeLoss",
    "SparseGroupL0",
    "SplitCredit",
    "Splitting",
    "Squared",
    "SquaredHinge",
    "SquaredHingeLoss",
    "Staircase",
    "Step",
    "StepClassifier",
    "StepReading",
    "StepRegressor",
    "Subsample",
    "Surrogate",
    "Sweep",
    "SwishSign",
    "TargetProp",
    "TargetRule",
    "Targets",
    "Ternary",
    "TransformedL1",
    "Trapezoid",
    "TwoSided",
    "UnitArea",
    "UnitChoice",
    "UnitPeak",
    "Unscaled",
    "Wavelets",
    "Weights",
    "Whole",
    "Words",
    "Work",
    "__version__",
    "biorthogonal",
    "compare",
    "data",
    "dead_rates",
    "diagnose_targets",
    "estimating_error",
    "fit",
    "fold_constants",
    "freeze",
    "gradient_stability",
    "haar",
    "nets",
    "orthogonal_least_squares",
    "permanent",
    "prune_units",
    "published_rules",
    "quantise",
    "quantise_hidden",
    "read_steps",
    "read_weights",
    "recipes",
    "rprelu",
    "rsign",
    "score",
    "select_per_class",
    "shrink",
    "simplify",
    "step",
    "to_c",
    "user_frame",
    "verify",
    "write_c",
]
