"""One Lasso solver of somebody else, in its own process and virtual environment, as convex_solvers.py asks for it.

    python benchmarks/speed/peer_convex.py SOLVER FOLDER SECONDS plain|centred

reads design.npy (bool), targets.npy and beta.npy from FOLDER, warms up (compilation) on a corner of them, then answers
each tolerance on its input by a line of JSON (CPU and wall seconds of one fit from nothing) with the weights in
weights.npy. The design is made float64, in the order the solvers like, and where asked centred, outside the timing. A
fit that needs more CPU seconds than SECONDS ends the process. It imports nothing of hardstep.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

Fit = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]
MANY = 1_000_000


def scikit_learn(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    from sklearn.linear_model import Lasso

    return Lasso(alpha=alpha, tol=tol, max_iter=MANY, fit_intercept=False).fit(x, y).coef_


def scikit_learn_gram(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    from sklearn.linear_model import Lasso

    return Lasso(alpha=alpha, tol=tol, max_iter=MANY, fit_intercept=False, precompute=True).fit(x, y).coef_


def celer(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    from celer import Lasso

    return Lasso(alpha=alpha, tol=tol, max_iter=1000, max_epochs=MANY, fit_intercept=False).fit(x, y).coef_


def skglm(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    from skglm import Lasso

    return Lasso(alpha=alpha, tol=tol, max_iter=1000, max_epochs=MANY, fit_intercept=False).fit(x, y).coef_


def adelie(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    import adelie as ad

    path = alpha * np.geomspace(np.abs(x.T @ y).max() / len(y) / alpha, 1.0, 20)
    options = {"tol": tol, "max_iters": MANY, "early_exit": False, "intercept": False, "progress_bar": False}
    state = ad.grpnet(X=x, glm=ad.glm.gaussian(y), lmda_path=path, n_threads=1, **options)
    return np.asarray(state.betas[-1].todense()).ravel()


def clarabel(x: np.ndarray, y: np.ndarray, alpha: float, tol: float) -> np.ndarray:
    import cvxpy as cp

    weights = cp.Variable(x.shape[1])
    loss = 0.5 * cp.sum_squares(x @ weights - y) + alpha * len(y) * cp.norm1(weights)
    cp.Problem(cp.Minimize(loss)).solve(solver=cp.CLARABEL, tol_gap_rel=tol, tol_gap_abs=tol, max_threads=1)
    return np.asarray(weights.value)


SOLVERS: dict[str, tuple[Fit, str]] = {
    "scikit-learn": (scikit_learn, "scikit-learn"),
    "scikit-learn gram": (scikit_learn_gram, "scikit-learn"),
    "celer": (celer, "celer"),
    "skglm": (skglm, "skglm"),
    "adelie": (adelie, "adelie"),
    "clarabel": (clarabel, "clarabel"),
}


def main() -> None:
    warnings.filterwarnings("ignore")  # that a tolerance was not reached is measured, not believed
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    fit, package = SOLVERS[name]
    x = np.asfortranarray(np.load(folder / "design.npy"), np.float64)
    y, beta = np.load(folder / "targets.npy"), float(np.load(folder / "beta.npy"))
    if sys.argv[4] == "centred":
        x -= x.mean(axis=0)
        y = y - y.mean()
    fit(np.asfortranarray(x[:300, :50]), y[:300], 0.1, 1e-2)
    print(json.dumps({"version": metadata.version(package)}), flush=True)
    for line in sys.stdin:
        limit = int(time.process_time() + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        cpu, wall = time.process_time(), time.perf_counter()
        weights = fit(x, y, beta / len(y), float(line))
        times = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        np.save(folder / "weights.npy", weights)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
