"""Narrow models in ONNX, written with onnx.helper from arrays of `caffe_numpy`."""

from typing import Any

import caffe_numpy
import numpy as np
import onnx
from caffe_numpy import Arrays, Layer
from onnx import TensorProto, helper, numpy_helper


class Nodes:
    """Nodes one after the other, and the initializers they use."""

    def __init__(self, features: str):
        self.features = features
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, op_type: str, arrays: dict[str, np.ndarray] | None = None, **fields: Any) -> None:
        """Adds a node after the last one."""
        arrays = arrays or {}
        self.arrays |= arrays
        output = f"{op_type.lower()}_{len(self.nodes)}"
        outputs = [output, f"{output}_mask"] if op_type == "Dropout" else [output]
        self.nodes.append(helper.make_node(op_type, [self.features, *arrays], outputs, **fields))
        self.features = output

    def model(self, size: int, classes: int, opset: int, ir_version: int) -> onnx.ModelProto:
        """Returns the model; in version 3, initializers are inputs too."""
        initializers = [numpy_helper.from_array(x, name) for name, x in self.arrays.items()]
        inputs = [helper.make_tensor_value_info("data_0", TensorProto.FLOAT, [1, 3, size, size])]
        if ir_version == 3:
            inputs += [
                helper.make_tensor_value_info(x.name, x.data_type, x.dims) for x in initializers
            ]
        output = helper.make_tensor_value_info(self.features, TensorProto.FLOAT, [1, classes])
        graph = helper.make_graph(self.nodes, "bvlc_alexnet", inputs, [output], initializers)
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version, producer_name="onnx-caffe2"
        )


def bvlc_layers() -> list[Layer]:
    """Returns the layers of bvlcalexnet: the first two pools round down, the last one up."""
    return [
        x._replace(fields={**x.fields, "round_mode": 1}) if x.name in ("pool1", "pool2") else x
        for x in caffe_numpy.network()
    ]


def bvlc_alexnet(arrays: Arrays, softmax: bool = True) -> onnx.ModelProto:
    """Returns the zoo's bvlcalexnet: for 224 pixels, its last pool padded at the end.

    Args:
      arrays: weights and biases by layer.
      softmax: whether it gives probabilities.
    """
    nodes = Nodes("data_0")
    groups = {"conv2": 2, "conv4": 2, "conv5": 2}
    for name, (kernel, bias) in arrays.items():
        parameters = {f"{name}_w_0": kernel, f"{name}_b_0": bias}
        if name.startswith("conv"):
            pads = [{"conv1": 0, "conv2": 2}.get(name, 1)] * 4
            stride, group = [4 if name == "conv1" else 1] * 2, groups.get(name, 1)
            window = list(kernel.shape[2:])
            nodes.add(
                "Conv", parameters, kernel_shape=window, pads=pads, strides=stride, group=group
            )
        else:
            nodes.add("Gemm", parameters, transB=1)
        if name != "fc8":
            nodes.add("Relu")
        if name in ("conv1", "conv2"):
            nodes.add("LRN", size=5, alpha=1e-4, beta=0.75, bias=1.0)
        if name in ("conv1", "conv2", "conv5"):
            pads = [0, 0, 1, 1] if name == "conv5" else [0] * 4
            nodes.add("MaxPool", kernel_shape=[3, 3], pads=pads, strides=[2, 2])
        if name == "conv5":
            nodes.add(
                "Reshape", {"OC2_DUMMY_1": np.array([1, arrays["fc6"][0].shape[1]], np.int64)}
            )
        if name in ("fc6", "fc7"):
            nodes.add("Dropout", ratio=0.5)
    if softmax:
        nodes.add("Softmax", axis=1)
    return nodes.model(224, len(arrays["fc8"][1]), opset=9, ir_version=3)
