"""The kernels of the first layer as images."""

import numpy as np
import pytest

from alexnet_jax.plots.training import kernel_mosaic, kernels

RNG = np.random.default_rng(0)


def framed(kernel: np.ndarray, columns: int, scales: list[float]) -> np.ndarray:
    """Builds one tower's mosaic from its images by joining, not by reshaping."""
    tiles = []
    for index in range(kernel.shape[3]):
        tile = 0.5 + kernel[:, :, :, index] / scales[index] / 2
        tile = np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
        tiles.append(np.pad(tile, ((1, 0), (1, 0), (0, 0)), constant_values=1.0))
    while len(tiles) % columns:
        tiles.append(np.ones_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.pad(np.vstack(rows), ((0, 1), (0, 1), (0, 0)), constant_values=1.0)


@pytest.mark.parametrize(
    ("shape", "towers", "columns"),
    [
        ((11, 11, 3, 96), 2, 16),  # the paper's figure: three rows of sixteen for each tower
        ((11, 11, 3, 96), 1, 16),
        ((11, 11, 3, 64), 1, 16),
        ((5, 5, 1, 32), 1, 8),
        ((5, 4, 3, 48), 2, 12),
        ((3, 3, 3, 97), 1, 14),  # a prime number leaves the last row short
        ((2, 3, 1, 1), 1, 1),
    ],
)
def test_mosaic_holds_every_kernel_in_order(
    shape: tuple[int, ...], towers: int, columns: int
) -> None:
    kernel = RNG.normal(size=shape)
    largest = [np.abs(kernel[..., i]).max() for i in range(shape[3])]
    half = shape[3] // towers
    expected = [
        framed(kernel[..., t * half : (t + 1) * half], columns, largest[t * half :])
        for t in range(towers)
    ]
    mosaic = kernel_mosaic(kernel, towers)
    np.testing.assert_allclose(mosaic, np.stack(expected), atol=1e-12)


def test_mosaic_is_upright_and_red_is_the_first_channel() -> None:
    kernel = np.zeros((4, 5, 3, 2))
    kernel[0, 4, 0, 0] = 2.0  # top right, red
    kernel[3, 0, 2, 0] = -1.0  # bottom left, less blue
    mosaic = kernel_mosaic(kernel)[0]
    np.testing.assert_allclose(mosaic[1, 5], [1.0, 0.5, 0.5])
    np.testing.assert_allclose(mosaic[4, 1], [0.5, 0.5, 0.25])
    np.testing.assert_allclose(mosaic[1:5, 7:12], 0.5)  # the dead kernel is mid-gray


@pytest.mark.parametrize("towers", [1, 2])
def test_a_figure_has_one_image_per_tower(towers: int) -> None:
    kernel = RNG.normal(size=(5, 5, 3, 4))
    figure = kernels(kernel, towers)
    names = [axes.get_ylabel() for axes in figure.axes]
    assert names == (["tower 1", "tower 2"] if towers > 1 else [""])
    for axes, mosaic in zip(figure.axes, kernel_mosaic(kernel, towers), strict=True):
        drawn = np.asarray(axes.images[0].get_array())
        zoom = drawn.shape[0] // mosaic.shape[0]
        np.testing.assert_array_equal(drawn[zoom // 2 :: zoom, zoom // 2 :: zoom], mosaic)
    assert "4 of 5x5x3" in figure.get_suptitle()
