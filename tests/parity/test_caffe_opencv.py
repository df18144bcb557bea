"""Caffe's files against OpenCV, whose releases before 5 read and run them."""

from pathlib import Path

import caffe_numpy
import imported
import numpy as np
import pytest
from caffe_numpy import Style

cv2 = pytest.importorskip("cv2", reason="needs the parity extra: make parity")

from alexnet_jax import weights  # noqa: E402
from alexnet_jax.weights import ReadOptions  # noqa: E402

STYLES = [Style(1, legacy_dims=True), Style(2)]


@pytest.mark.parametrize("style", STYLES, ids=["v1-legacy", "v2-shape"])
@pytest.mark.parametrize("kind", ["alexnet", "caffenet"])
def test_logits(kind: str, style: Style, tmp_path: Path) -> None:
    layers = caffe_numpy.network(kind)
    content = caffe_numpy.encode(layers, caffe_numpy.make_arrays(layers), style)
    text = caffe_numpy.prototxt(layers).encode()
    peer = cv2.dnn.readNetFromCaffe(np.frombuffer(text, "u1"), np.frombuffer(content, "u1"))
    peer.setInput(imported.planes(227)[None])
    (expected,) = peer.forward()

    file = tmp_path / "a.caffemodel"
    file.write_bytes(content)
    found = weights.read(file, ReadOptions())
    assert imported.difference(found, expected, 227, "bgr") < 1e-4
