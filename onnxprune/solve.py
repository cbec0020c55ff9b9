"""Conjugate gradients over a free set: the one iterative solver, used by the joint surgeon and by the sweep.

Least squares restricted to the kept weights has a different matrix for every row; products with the whole
matrix, masked, serve all rows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Product = Callable[[Array], Array]


def conjugate_gradients(
    product: Product,
    right: Array,
    start: Array,
    free: Array,
    diagonal: Array,
    tolerance: float,
    iterations: int,
) -> Array:
    """Solve product(X) = right over the entries where `free`; X is 0 elsewhere. Jacobi preconditioner.

    Args:
        product: a symmetric positive definite map on arrays of the shape of `right`.
        right: the right-hand side, of any shape; float32 or float64.
        start: first guess, of the same shape and dtype; its entries outside `free` are ignored.
        free: bool, of the same shape, where X may differ from 0.
        diagonal: the map's diagonal, broadcastable to `right`.
        tolerance: stop when the preconditioned residual is below this, relative to that of X = 0.
        iterations: stop after so many.

    Returns:
        X, of the shape and dtype of `right`.
    """
    mask = free.astype(right.dtype)
    scale = mask / diagonal
    solution: Array = start * mask
    right = right * mask
    residual = right - mask * product(solution) if solution.any() else right.copy()
    goal = tolerance**2 * float(np.vdot(right, right * scale))
    direction = residual * scale
    norm = float(np.vdot(residual, direction))
    for _ in range(iterations):
        if norm <= goal or norm <= np.finfo(right.dtype).tiny:
            break
        image = product(direction)
        image *= mask
        step = right.dtype.type(norm / float(np.vdot(direction, image)))
        solution += step * direction
        image *= step
        residual -= image
        np.multiply(residual, scale, out=image)
        before, norm = norm, float(np.vdot(residual, image))
        direction *= right.dtype.type(norm / before)
        direction += image
    return solution
