"""Comparing the answers of two programs with the same random weights."""

import numpy as np


def spread(kernel: np.ndarray, bias: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns another last layer, after which images differ and some probabilities are large.

    With random weights all images have nearly the same logits, and those are close together.

    Args:
      kernel: float32[classes, inputs].
      bias: float32[classes].
      logits: [images, classes] that they give.
    """
    mean = logits.mean(axis=0)
    factor = 4 / (logits - mean).std()
    return (kernel * factor).astype(np.float32), ((bias - mean) * factor).astype(np.float32)


def assert_same_answers(found: np.ndarray, logits: np.ndarray, different: int) -> None:
    """Top-5 equal and probabilities to 1e-3.

    Args:
      found: probabilities, [images, classes].
      logits: of the reference.
      different: how many classes must be the most probable of some image, so that it matters.
    """
    odds = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    expected = odds / odds.sum(axis=1, keepdims=True)
    top, expected_top = (np.argsort(-each, axis=1)[:, :5] for each in (found, expected))
    assert len(np.unique(expected_top[:, 0])) >= different
    np.testing.assert_array_equal(top, expected_top)
    np.testing.assert_allclose(found, expected, atol=1e-3)
