"""Algebra: products with large dense matrices, and their Cholesky factors; on a GPU where there is one.

Inside `on(provider)` a matrix of `_LARGE` rows or more goes to the GPU: if onnxruntime may use one, torch is
installed and has it too, and some copies of the matrix fit in its memory. Smaller ones are not worth the way.
Results are arrays here, of the dtype that was given: torch multiplies float32 without TF32 unless asked to.

Here, what layers side by side need is numpy's: it lets other threads run meanwhile, scipy's LAPACK does not
(two threads, 900 columns: 237 Cholesky factors a second, and 129, where one makes 119 and 132).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg

from onnxprune.errors import StatisticsError
from onnxprune.session import Provider, on_gpu
from onnxprune.threads import ONE_THREAD

Array = npt.NDArray[Any]

_LARGE = 1024
_BLOCK = 128  # rows of a triangle that is as well inverted as a whole
_COPIES = 4  # of a matrix, which its factor, its inverse and what they are made in take at most
_INDEFINITE = "a damped factor is not positive definite; raise --damping"

_device: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def on(provider: Provider) -> Iterator[None]:
    """Inside, large matrices go where `provider` is.

    Raises:
        RuntimeUnavailableError: onnxruntime is missing, or has no CUDA where that was asked for.
    """
    token = _device.set(_found(provider))
    try:
        yield
    finally:
        _device.reset(token)


def _found(provider: Provider) -> str | None:
    if not on_gpu(provider) or find_spec("torch") is None:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def _place(matrix: Array) -> str | None:
    """The device for a matrix, or for several; None: it stays here."""
    device = _device.get()
    if device is None or matrix.shape[-1] < _LARGE:
        return None
    return device if _COPIES * matrix.nbytes <= _free(device) else None


def _free(device: str) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


class Product(Protocol):
    """Multiplies rows by matrices [groups, d, d] that are held somewhere."""

    def __call__(self, rows: Array) -> Array:
        """`rows` [groups, m, d] times the matrices."""
        ...

    def within(self, columns: Array) -> Product:
        """The same of some rows and columns of each matrix."""
        ...


def times(matrices: Array) -> Product:
    """What multiplies rows by `matrices` [groups, d, d], which must not change meanwhile."""
    device = _place(matrices)
    return _TimesHere(matrices) if device is None else _TimesThere.of(matrices, device)


@dataclass(frozen=True)
class _TimesHere:
    matrices: Array

    def __call__(self, rows: Array) -> Array:
        product: Array = rows @ self.matrices
        return product

    def within(self, columns: Array) -> Product:
        return _TimesHere(self.matrices[:, columns[:, None], columns])


@dataclass(frozen=True)
class _TimesThere:
    held: Any  # a torch.Tensor

    @classmethod
    def of(cls, matrices: Array, device: str) -> _TimesThere:
        import torch

        return cls(torch.as_tensor(matrices, device=device))

    def __call__(self, rows: Array) -> Array:
        import torch

        product: Array = (torch.as_tensor(rows, device=self.held.device) @ self.held).cpu().numpy()
        return product

    def within(self, columns: Array) -> Product:
        import torch

        places = torch.as_tensor(columns, device=self.held.device)
        return _TimesThere(self.held[:, places][:, :, places])


class Factored(Protocol):
    """A symmetric positive definite matrix M [d, d], factored."""

    def inverse_diagonal(self) -> Array:
        """[M⁻¹]_jj, [d]."""
        ...

    def solve(self, rows: Array) -> Array:
        """`rows` [m, d] times M⁻¹."""
        ...


def factored(matrix: Array) -> Factored:
    """The Cholesky factor of a symmetric `matrix`, which may be overwritten.

    Raises:
        StatisticsError: it is not positive definite.
    """
    device = _place(matrix)
    return _Here(cholesky(matrix)) if device is None else _There(matrix, device)


def cholesky(matrix: Array) -> Array:
    """The lower factor of a symmetric `matrix`, in its place if that is large.

    Raises:
        StatisticsError: it is not positive definite.
    """
    try:
        if len(matrix) <= ONE_THREAD:
            return np.linalg.cholesky(matrix)
        # LAPACK's order is the other one; of a symmetric matrix it is the same, and nothing is copied
        upper: Array = scipy.linalg.cholesky(matrix.T, lower=False, overwrite_a=True, check_finite=False)
        return upper.T
    except np.linalg.LinAlgError as error:
        raise StatisticsError(_INDEFINITE) from error


def solved(factor: Array, rows: Array) -> Array:
    """`rows` [m, d] times the inverse of the matrix that `cholesky` made `factor` of."""
    transposed: Array = scipy.linalg.cho_solve((factor.T, False), rows.T, check_finite=False).T
    return transposed


def _inverse_of_lower(factor: Array) -> Array:
    """The inverse of a lower triangular matrix: [[A, 0], [B, C]]⁻¹ = [[A⁻¹, 0], [−C⁻¹BA⁻¹, C⁻¹]]."""
    if len(factor) <= _BLOCK:
        return np.linalg.inv(factor)
    half, inverse = len(factor) // 2, np.zeros_like(factor)
    first = inverse[:half, :half] = _inverse_of_lower(factor[:half, :half])
    last = inverse[half:, half:] = _inverse_of_lower(factor[half:, half:])
    inverse[half:, :half] = -(last @ factor[half:, :half]) @ first
    return inverse


class _Here:
    def __init__(self, factor: Array) -> None:
        self._factor = factor

    def inverse_diagonal(self) -> Array:
        if len(self._factor) > ONE_THREAD:
            return np.diag(scipy.linalg.lapack.dpotri(self._factor.T, lower=0)[0])
        half = _inverse_of_lower(self._factor)
        diagonal: Array = np.einsum("ij,ij->j", half, half)
        return diagonal

    def solve(self, rows: Array) -> Array:
        return solved(self._factor, rows)


class _There:
    def __init__(self, matrix: Array, device: str) -> None:
        import torch

        self._torch, self._device = torch, device
        self._factor, failed = torch.linalg.cholesky_ex(torch.as_tensor(matrix, device=device))
        if failed.any():
            raise StatisticsError(_INDEFINITE)

    def inverse_diagonal(self) -> Array:
        diagonal: Array = self._torch.cholesky_inverse(self._factor).diagonal().cpu().numpy()
        return diagonal

    def solve(self, rows: Array) -> Array:
        right = self._torch.as_tensor(rows, device=self._device).T
        transposed: Array = self._torch.cholesky_solve(right, self._factor).T.cpu().numpy()
        return transposed
