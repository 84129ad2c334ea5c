"""Arguments that make an example quick, for the gallery and for the tests; the order is that of the gallery."""

__all__ = ["SMALL"]

SMALL = {
    "plot_whole_path": ["--sweeps", "2"],
    "plot_estimator": ["--sweeps", "2", "--folds", "2"],
    "plot_deploy": ["--sweeps", "2", "--repeats", "2"],
    "plot_rules": ["--sweeps", "2", "--seeds", "1"],
    "plot_block_descent": ["--sweeps", "2"],
    "plot_targets": ["--sweeps", "2", "--seeds", "1"],
    "plot_convex_training": ["--sweeps", "2"],
    "plot_sparse": ["--sweeps", "6", "--seeds", "1"],
    "plot_no_overlap": ["--steps", "20"],
    "plot_scattering": ["--sweeps", "1", "--seeds", "1"],
}
