"""Ops that move, cut, join or repeat elements."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from .common import (
    IMAGE,
    A,
    B,
    Case,
    i,
    row,
    x,
)


def _depth_to_space_dcr(a: torch.Tensor, b: int = 2) -> torch.Tensor:
    n, c, h, w = a.shape
    blocks = a.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(a: torch.Tensor, b: int = 2) -> torch.Tensor:
    n, c, h, w = a.shape
    return (
        a.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)
    )


def _scatter_nd(a: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    return a.index_put((torch.tensor([0, 2]),), updates)


SHAPE: dict[str, list[Case]] = {
    "Concat": [
        row(lambda a, b: torch.cat([a, b], 1), A, x(2, 5, 4), axis=1),
        row(lambda a, b, c: torch.cat([a, b, c], -2), A, x(2, 5, 4), x(2, 1, 4), axis=-2),
        row(lambda a, b: torch.cat([a, b], -1), A, x(2, 3, 2), axis=-1),
        row(lambda a: a, A, axis=0),
    ],
    "DepthToSpace": [
        row(_depth_to_space_dcr, x(2, 8, 3, 2), blocksize=2),
        row(lambda a: F.pixel_shuffle(a, 2), x(2, 8, 3, 2), blocksize=2, mode="CRD"),
    ],
    "Expand": [
        row(lambda a: a.expand(2, 3, 4), B, i(2, 3, 4)),
        row(lambda a: a + torch.zeros(2, 1, 1), x(3, 4), i(2, 1, 1)),
    ],
    "Flatten": [
        row(lambda a: a.flatten(1), A),
        row(lambda a: a.reshape(6, 4), A, axis=2),
        row(lambda a: a.reshape(1, 24), A, axis=0),
    ],
    "Gather": [
        row(lambda a: a[:, [0, 2, 0]], A, i(0, 2, 0), axis=1),
        row(lambda a: a[1], A, np.array(1)),
        row(lambda a: a[..., -1], A, np.array(-1), axis=-1),
        row(lambda a: a[:, :, torch.tensor([[0, 1], [1, -1]])], A, np.array([[0, 1], [1, -1]]), axis=2),
        row(lambda a: a[[1, 1, 0]], x(2, 5), np.int32([1, 1, 0])),
    ],
    "GatherElements": [
        row(
            lambda a: torch.gather(a, 1, torch.tensor([[0, 0, 2], [1, 1, 1]])),
            x(2, 3),
            np.array([[0, 0, 2], [1, 1, 1]]),
            axis=1,
        ),
        row(lambda a: torch.gather(a, 0, torch.tensor([[0, 1, 1]])), x(2, 3), np.array([[0, 1, 1]])),
    ],
    "GatherND": [row(lambda a: a[[0, 1, 0], [2, 0, 2]], A, np.array([[0, 2], [1, 0], [0, 2]]))],
    "Pad": [
        row(lambda a: F.pad(a, [1, 2, 0, 1]), A, i(0, 0, 1, 0, 1, 2)),
        row(lambda a: F.pad(a, [-1, 2]), A, i(0, 0, -1, 0, 0, 2)),
        row(
            lambda a, c: torch.cat([c.expand(2, 2, 4), a[:, :2]], 1), A, i(0, 2, 0, 0, -1, 0), np.float64(0.7)
        ),
        row(lambda a: F.pad(a, [2, 1], mode="reflect"), A, i(0, 0, 2, 0, 0, 1), mode="reflect"),
        row(
            lambda a: F.pad(a, [3, 1, 1, 2], mode="replicate"), IMAGE, i(0, 0, 1, 3, 0, 0, 2, 1), mode="edge"
        ),
        row(lambda a: F.pad(a, [2, 1], mode="reflect"), A, i(2, 1), None, i(-1), mode="reflect"),
        row(lambda a: F.pad(a, [0, 0, 1, 2]), A, i(1, 2), None, i(1)),
    ],
    "Reshape": [row(lambda a: a.reshape(6, 4), A, i(-1, 4)), row(lambda a: a.reshape(2, 12), A, i(0, -1))],
    "ScatterElements": [
        row(
            lambda a, u: a.scatter(1, torch.tensor([[0, 2], [1, 0]]), u),
            x(2, 3),
            np.array([[0, 2], [1, 0]]),
            x(2, 2),
            axis=1,
        ),
        row(
            lambda a, u: a.scatter_add(0, torch.tensor([[0, 0], [0, 1]]), u),
            x(3, 2),
            np.array([[0, 0], [0, 1]]),
            x(2, 2),
            reduction="add",
        ),
    ],
    "ScatterND": [
        row(_scatter_nd, x(3, 4), np.array([[0], [2]]), x(2, 4)),
        row(
            lambda a, u: a.index_put((torch.tensor([0, 0]),), u, accumulate=True),
            x(3, 4),
            np.array([[0], [0]]),
            x(2, 4),
            reduction="add",
        ),
    ],
    "Slice": [
        row(lambda a: a[:, 1:3], A, i(1), i(3), i(1)),
        row(lambda a: a[1:, :-1], A, i(1, 0), i(99, -1)),
        row(lambda a: a[:, -2:, 1:2], A, i(-2, 1), i(2**62, 2), i(1, -1), i(1, 1)),
        row(lambda a: a[:, :, ::2], A, i(0), i(9), i(2), i(2)),
        row(lambda a: a[:, ::2, 1::2], A, i(0, 1), i(3, 4), i(-2, 2), i(2, 2)),
        row(lambda a: a.flip(2), A, i(-1), i(-(2**62)), i(2), i(-1)),
        row(lambda a: a[:, :, [3, 1]], A, i(3), i(0), i(2), i(-2)),
        row(lambda a: a[:, 1:], A, np.int32([1]), np.int32([3]), np.int32([1]), np.int32([1])),
        row(lambda a: a[:, :, ::3], A, np.int32([0]), np.int32([4]), np.int32([2]), np.int32([3])),
    ],
    "SpaceToDepth": [row(_space_to_depth, x(2, 3, 4, 6), blocksize=2)],
    "Split": [
        row(lambda a: torch.split(a, [1, 2], 1), A, i(1, 2), axis=1, outputs=2),
        row(lambda a: torch.split(a, 2, 2), A, axis=-1, outputs=2, num_outputs=2),
    ],
    "Squeeze": [row(lambda a: a.squeeze(1), B, i(1)), row(torch.squeeze, x(1, 3, 1))],
    "Tile": [row(lambda a: a.repeat(1, 3, 2), A, i(1, 3, 2))],
    "Transpose": [row(lambda a: a.permute(2, 0, 1), A, perm=[2, 0, 1]), row(lambda a: a.permute(2, 1, 0), A)],
    "Trilu": [row(torch.triu, A), row(lambda a: torch.tril(a, 1), A, np.array(1), upper=0)],
    "Unsqueeze": [row(lambda a: a[:, None, ..., None], A, i(1, -1))],
}
