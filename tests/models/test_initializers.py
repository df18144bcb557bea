"""Initial weights and biases of every model: distribution and values of each layer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import AlexNet, ModelSpec, create_model, create_spec
from alexnet_jax.models.initializers import Initializer
from alexnet_jax.models.layers import Norm, WeightLayer
from alexnet_jax.models.variants import VARIANTS

# Copied by hand from layers-145.cfg, the paper's section 5, layers-imagenet-1gpu.cfg of
# cuda-convnet2 and Caffe's train_val.prototxt: standard deviation of the weights, value of the
# biases.
AS_CODED = {
    "conv1": (0.01, 0.0),
    "conv2": (0.01, 1.0),
    "conv3": (0.03, 0.0),
    "conv4": (0.03, 1.0),
    "conv5": (0.03, 1.0),
    "fc6": (0.01, 1.0),
    "fc7": (0.01, 1.0),
    "fc8": (0.01, 0.0),
}
AS_TEXT = {layer: (0.01, bias) for layer, (_, bias) in AS_CODED.items()}
CAFFENET = AS_TEXT | {"fc6": (0.005, 1.0), "fc7": (0.005, 1.0)}
CAFFE = {layer: (std, 0.1 * bias) for layer, (std, bias) in CAFFENET.items()}
CIFAR = {"conv1": (1e-4, 0.0), "conv2": (0.01, 0.0), "conv3": (0.01, 0.0), "fc10": (0.01, 0.0)}
LOCAL = {"local3": (0.04, 0.0), "local4": (0.04, 0.0)}

GAUSSIAN = {
    "paper": AS_CODED,
    "paper_text": AS_TEXT,
    "one_tower": AS_CODED | {"fc8": (0.01, -7.0)},
    "half": AS_CODED,
    "six_conv": AS_CODED | {"conv6": (0.03, 1.0)},
    "no_communication": AS_CODED,
    "caffe": CAFFE,
    "caffenet": CAFFENET,
    "ungrouped": CAFFE,
    "zfnet": dict.fromkeys(AS_CODED, (0.01, 0.0)),
    "cifar_26": CIFAR | {"fc64": (0.1, 0.0), "fc10": (0.1, 0.0)},
    "cifar_19": CIFAR,
    "cifar_18": CIFAR,
    "cifar_13": {name: CIFAR[name] for name in ("conv1", "conv2", "fc10")} | LOCAL,
    "cifar_11": {name: CIFAR[name] for name in ("conv1", "conv2", "fc10")} | LOCAL,
}
BY_FAN = {
    "torchvision": "torch",
    "half_tower": "he_normal",
    "batchnorm": "he_normal",
    "groupnorm": "he_normal",
}


def initial_params(name: str, size: int) -> dict:
    has_fc6 = any(layer.name == "fc6" for layer in VARIANTS[name].layers)
    narrow = {layer: {"features": 512} for layer in ("fc6", "fc7")} if has_fc6 else {}
    spec = create_model(name, 1000, input_size=size, layers=narrow).spec
    plain = spec.map(Norm, lambda layer: None)  # compiles faster
    images = jnp.zeros((1, size, size, spec.channels))
    return jax.jit(AlexNet(plain, 1000).init)(jax.random.key(0), images)["params"]


def initializers(name: str) -> dict[str, Initializer]:
    weighted = (x for x in VARIANTS[name].layers if isinstance(x, WeightLayer))
    return {layer.name: layer.initializer for layer in weighted}


def test_initializers_of_every_model() -> None:
    for name, expected in GAUSSIAN.items():
        assert initializers(name) == {
            layer: Initializer("normal", std, bias) for layer, (std, bias) in expected.items()
        }, name
    # PyTorch's default and that of He et al. (2015) need no numbers
    by_fan = {name: {x.kernel for x in initializers(name).values()} for name in BY_FAN}
    assert by_fan == {name: {kernel} for name, kernel in BY_FAN.items()}
    assert GAUSSIAN.keys() | BY_FAN.keys() | {"digits"} == VARIANTS.keys()


# One model of each kind of layer with weights; the others differ in numbers only.
@pytest.mark.parametrize("name", ["paper", "cifar_13"])
def test_gaussian_weights_and_constant_biases(name: str) -> None:
    params = initial_params(name, {"paper": 67, "cifar_13": 24}[name])  # a small fc6
    assert params.keys() == GAUSSIAN[name].keys()
    for layer, (std, bias) in GAUSSIAN[name].items():
        kernel = np.asarray(params[layer]["kernel"], np.float64).ravel()
        np.testing.assert_array_equal(params[layer]["bias"], np.float32(bias), err_msg=layer)
        share = np.sqrt(kernel.size)
        assert abs(kernel.mean()) < 5 * std / share, layer
        assert kernel.std() == pytest.approx(std, rel=5 / np.sqrt(2) / share), layer
        assert np.abs(kernel).mean() == pytest.approx(0.798 * std, rel=4 / share + 1e-3), layer
        assert np.abs(kernel).max() > 3 * std, layer  # not cut off


@pytest.mark.parametrize("initializer", ["torch", "kaiming", "xavier"])
def test_weights_by_fan(initializer: str) -> None:
    """Fans of a grouped convolution count the channels of one group."""
    narrow = {"fc6": {"features": 512}}
    weighted = create_spec("paper", initializer=initializer, layers=narrow).of_kind(WeightLayer)
    chosen = tuple(layer for layer in weighted if layer.name in ("conv1", "conv2", "fc6"))
    model = AlexNet(ModelSpec(11, 3, chosen), 2)  # one position, of 256 features before fc6
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 11, 11, 3)))["params"]
    fans = {"conv1": (363, 11 * 11 * 96), "conv2": (1200, 25 * 128), "fc6": (256, 512)}
    for layer, (fan_in, fan_out) in fans.items():
        kernel, bias = (np.asarray(params[layer][role]) for role in ("kernel", "bias"))
        if initializer == "kaiming":
            assert kernel.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02), layer
            assert np.abs(kernel).max() > 3 * math.sqrt(2 / fan_in)
            assert not bias.any()
            continue
        limit = {"torch": 1 / math.sqrt(fan_in), "xavier": math.sqrt(6 / (fan_in + fan_out))}[
            initializer
        ]
        for array in (kernel, bias) if initializer == "torch" else (kernel,):
            assert np.abs(array).max() <= limit
            assert np.abs(array).max() == pytest.approx(limit, rel=0.1), layer
            assert np.abs(array).mean() == pytest.approx(limit / 2, rel=0.2), layer
        assert bias.any() == (initializer == "torch")
