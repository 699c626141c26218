"""Dense linear systems by LU decomposition with partial pivoting: bound by arithmetic, in a matrix of 0.4 MB.

A step factors another 224 x 224 matrix (the same random one with another diagonal) and solves one
right-hand side. Every residual is checked against the backward error that a stable solver leaves; the last
system is solved again by QR.

Run: `python lu.py --scale 1 --threads 2`. Limits: the factorisation alone uses more than one thread.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg.lapack as lapack
from application import Application, launch

SIDE = 224
STANDARD_STEPS = 10000


def run(app: Application) -> str:
    app.phase("load")
    rng = np.random.default_rng(1)
    base = np.asfortranarray(rng.standard_normal((SIDE, SIDE)))
    right = rng.standard_normal(SIDE)
    matrix, x, worst = base.copy(order="F"), right, 0.0
    allowed = 100 * SIDE * float(np.finfo(float).eps)

    app.phase("solve")
    total = app.amount(STANDARD_STEPS)
    for step in app.steps(total):
        shift = 1 + step / total
        matrix[:] = base
        matrix.flat[:: SIDE + 1] += shift
        factors, pivots, _ = lapack.dgetrf(matrix, overwrite_a=1)
        x, _ = lapack.dgetrs(factors, pivots, right)
        if app.spoiled and step == total:
            x[SIDE // 2] *= 1 + 1e-6
        residual = base @ x + shift * x - right
        backward = np.linalg.norm(residual) / (np.linalg.norm(x) * 2 * SIDE**0.5)
        worst = max(worst, float(backward))
        app.note(backward_error=worst)

    app.phase("check")
    app.require(worst < allowed, f"a backward error is {worst:.1e} (allowed {allowed:.1e})")
    q, r = np.linalg.qr(base + 2 * np.eye(SIDE))
    again = np.linalg.solve(r, q.T @ right)
    off = float(np.linalg.norm(x - again) / np.linalg.norm(again))
    app.require(off < 1e-8, f"LU and QR differ by {off:.1e} of the solution (allowed 1e-8)")
    return f"{total} systems of {SIDE} unknowns, largest backward error {worst:.1e}"


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__))
