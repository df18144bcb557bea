"""Local response normalization against onnxruntime, whose alpha is divided by the window."""

import jax.numpy as jnp
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the parity extra: make parity")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the parity extra: make parity")

from alexnet_jax import ops  # noqa: E402


def peer(x: np.ndarray, size: int, k: float, alpha: float) -> np.ndarray:
    """Runs one LRN node on NHWC input."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    shape = [x.shape[0], x.shape[3], x.shape[1], x.shape[2]]
    node = helper.make_node("LRN", ["x"], ["y"], size=size, bias=k, alpha=alpha, beta=0.75)
    graph = helper.make_graph(
        [node],
        "lrn",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    return y.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("size", "k"), [(5, 1.0), (5, 2.0), (3, 2.0)])
def test_local_response_norm(size: int, k: float) -> None:
    x = np.random.default_rng(0).normal(0, 40, (2, 3, 4, 11)).astype(np.float32)
    ours = ops.local_response_norm(jnp.asarray(x), size, k, ops.alpha_of_sum(1e-4, size, "onnx"))
    np.testing.assert_allclose(ours, peer(x, size, k, 1e-4), rtol=1e-5)
