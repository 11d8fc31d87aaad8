from __future__ import annotations

import numpy as np
import pytest

from pipelines.techniques.blockwise import compensated, round_to_nearest


def weights(length: int = 96, width: int = 24) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(length, width)).astype(np.float32)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "length"), [(4, 96), (4, 80), (8, 96), (8, 80)])
def test_the_bytes_are_those_of_onnxruntime(bits: int, length: int, symmetric: bool) -> None:
    """onnxruntime's own quantizer, in C++, as the second implementation; codes may differ by one where a value lies half-way."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, bits=bits)
    packed, scales, zeros = DefaultWeightOnlyQuantizer(config).qbits_block_quant(weights(length))
    ours = round_to_nearest(weights(length), bits, 32, symmetric)
    assert ours.packed().shape == packed.shape
    assert (ours.packed() != packed)[:, : length // 32].mean() < 0.02
    np.testing.assert_allclose(ours.scales, scales, rtol=1e-5)
    if not symmetric:
        packed_zeros = ours.packed_zeros()
        assert packed_zeros is not None
        assert (packed_zeros == zeros).mean() > 0.95


@pytest.mark.parametrize("symmetric", [True, False])
def test_half_a_step_is_the_largest_error(symmetric: bool) -> None:
    blocks = round_to_nearest(weights(), 4, 32, symmetric)
    error = np.abs(blocks.restored(96) - weights()).T.reshape(24, 3, 32).max(axis=-1)
    assert (error <= np.abs(blocks.scales) * (1.001 if symmetric else 0.501)).all()


@pytest.mark.parametrize("length", [96, 80])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compensated_rounding_loses_less_of_the_product(symmetric: bool, length: int) -> None:
    """Inputs that lean on each other, as activations do: the error of x W falls, though that of W grows."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=(500, 8)) @ random.normal(size=(8, length)) + 0.1 * random.normal(size=(500, length))
    weight = weights(length)
    moments = inputs.T @ inputs
    nearest = round_to_nearest(weight, 4, 32, symmetric).restored(length)
    better = compensated(weight, moments, 4, 32, symmetric, 0.01).restored(length)
    lost = [float(np.square(inputs @ (item - weight)).mean()) for item in (nearest, better)]
    assert lost[1] < 0.5 * lost[0]
    assert np.square(better - weight).mean() > np.square(nearest - weight).mean()


def test_without_correlation_it_rounds_to_the_nearest() -> None:
    blocks = compensated(weights(), np.eye(96), 4, 32, False, 0.01)
    assert (blocks.codes == round_to_nearest(weights(), 4, 32, False).codes).all()


def test_a_block_of_zeros_stays_zero() -> None:
    blocks = round_to_nearest(np.zeros((32, 4), np.float32), 4, 32, True)
    assert (blocks.restored(32) == 0).all()
    assert (compensated(np.zeros((32, 4), np.float32), np.zeros((32, 32)), 4, 32, False, 0.01).restored(32) == 0).all()
