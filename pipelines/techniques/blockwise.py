"""Blockwise integer weights in the layout of onnxruntime's MatMulNBits: [N, K / block] blocks along the input axis, low nibble first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """A matrix [K, N] as integers: codes [N, K padded to blocks] uint8, scales [N, blocks] and zero points [N, blocks], or None for the middle."""

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    bits: int
    block: int

    def packed(self) -> np.ndarray:
        """[N, blocks, block * bits / 8] bytes."""
        rows = self.codes.reshape(self.codes.shape[0], -1, self.block)
        return rows if self.bits == 8 else (rows[..., ::2] | (rows[..., 1::2] << 4)).astype(np.uint8)

    def packed_zeros(self) -> np.ndarray | None:
        """[N, ceil(blocks * bits / 8)] bytes, or None."""
        if self.zeros is None or self.bits == 8:
            return self.zeros
        even = np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2)), constant_values=8)
        packed: np.ndarray = (even[:, ::2] | (even[:, 1::2] << 4)).astype(np.uint8)
        return packed

    def restored(self, length: int) -> np.ndarray:
        """The matrix [K, N] that a reader computes with."""
        middle = 2 ** (self.bits - 1)
        zeros = np.full(self.scales.shape, middle) if self.zeros is None else self.zeros.astype(np.int64)
        values = self.codes.reshape(*self.scales.shape, self.block).astype(np.int64) - zeros[..., None]
        restored: np.ndarray = (values * self.scales[..., None]).reshape(len(self.codes), -1)[:, :length].T
        return restored.astype(np.float32)


def grid(groups: np.ndarray, bits: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales and zero points of groups [..., block]: the range from least to greatest, zero always exact.

    Symmetric: the value of the largest magnitude lands on the lowest code, which has one step more than the highest.
    """
    low, high = np.minimum(groups.min(axis=-1), 0), np.maximum(groups.max(axis=-1), 0)
    if symmetric:
        largest = np.where(np.abs(low) > np.abs(high), low, high)
        return (largest / -(2 ** (bits - 1))).astype(np.float32), None
    scales = ((high - low) / (2**bits - 1)).astype(np.float32)
    zeros = np.rint(np.divide(-low, scales, out=np.zeros_like(scales), where=scales > 0))
    return scales, np.clip(zeros, 0, 2**bits - 1).astype(np.uint8)


def codes_on(values: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int) -> np.ndarray:
    """The nearest codes of values, each on the grid of the same shape or broadcast."""
    middle = 2 ** (bits - 1) if zeros is None else zeros.astype(np.float32)
    steps = np.divide(values, scales, out=np.zeros(values.shape, np.float32), where=scales != 0)
    codes: np.ndarray = np.clip(np.rint(steps + middle), 0, 2**bits - 1).astype(np.uint8)
    return codes


def round_to_nearest(weight: np.ndarray, bits: int, block: int, symmetric: bool) -> Blocks:
    """Every value of weight [K, N] to the nearest code of its block."""
    rows = np.pad(weight.T.astype(np.float32), ((0, 0), (0, -weight.shape[0] % block)))
    groups = rows.reshape(len(rows), -1, block)
    scales, zeros = grid(groups, bits, symmetric)
    codes = codes_on(groups, scales[..., None], None if zeros is None else zeros[..., None], bits)
    return Blocks(codes.reshape(rows.shape), scales, zeros, bits, block)


def compensated(
    weight: np.ndarray, moments: np.ndarray, bits: int, block: int, symmetric: bool, damping: float
) -> Blocks:
    """GPTQ (Frantar et al. 2023): inputs are rounded one by one, and each one's error is made good by those still to come.

    `moments` [K, K] is the sum of x xT over calibration inputs; `damping` is the share of its mean diagonal added to it.
    The grid of a block is set when its turn comes, on the weights as corrected by then.
    """
    length = weight.shape[0]
    rows = weight.T.astype(np.float64).copy()
    hessian = moments.astype(np.float64).copy()
    silent = np.diag(hessian) == 0
    hessian[silent, silent] = 1.0
    hessian[np.diag_indices(length)] += damping * np.diag(hessian).mean()
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    padded = length + -length % block
    codes = np.full((len(rows), padded), 2 ** (bits - 1), np.uint8)
    all_scales, all_zeros = [], []
    for start in range(0, length, block):
        stop = min(start + block, length)
        scales, zeros = grid(rows[:, start:stop].astype(np.float32), bits, symmetric)
        middle = 2.0 ** (bits - 1) if zeros is None else zeros.astype(np.float64)
        for column in range(start, stop):
            codes[:, column] = codes_on(rows[:, column].astype(np.float32), scales, zeros, bits)
            error = (rows[:, column] - (codes[:, column] - middle) * scales) / upper[column, column]
            rows[:, column:] -= np.outer(error, upper[column, column:])
        if zeros is not None:
            codes[:, stop : start + block] = zeros[:, None]
        all_scales.append(scales)
        all_zeros.append(zeros)
    stacked = None if symmetric else np.stack([item for item in all_zeros if item is not None], axis=1)
    return Blocks(codes, np.stack(all_scales, axis=1), stacked, bits, block)
