"""The outputs of layers, against what Flax's `sow` stores in one run of the whole model."""

import jax
import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.models import create_model, create_spec
from alexnet_jax.models.activations import activations, default_layer, layer_names, stop_of
from alexnet_jax.models.variants import VARIANTS


@pytest.mark.parametrize("name", ["digits", "cifar_19"])
def test_layers_are_those_of_one_run_after_the_activation_that_follows(name: str) -> None:
    """The last layer of both has none; conv1 of both is followed by another layer."""
    model = create_model(name, num_classes=5)
    spec, names = model.spec, layer_names(model.spec)
    shape = (3, spec.input_size, spec.input_size, spec.channels)
    x = np.random.default_rng(0).normal(0, 40, shape).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    @jax.jit
    def both(variables: object, x: jax.Array) -> tuple[dict, dict]:
        _, stored = model.apply(variables, x, mutable=["intermediates"])
        return activations(model, variables, x, names[::-1]), stored["intermediates"]

    found, stored = jax.device_get(both(variables, x))
    assert found.keys() == set(names)
    layers = [type(layer).__name__ for layer in spec.layers]
    followed = 0
    for layer in names:
        (linear,) = stored[f"{layer}_output"]
        index = [one.name for one in spec.layers].index(layer)
        if layers[index + 1 : index + 2] == ["Activation"]:
            linear, followed = np.maximum(linear, 0), followed + 1
        np.testing.assert_allclose(found[layer], linear, rtol=1e-5, atol=1e-5, err_msg=layer)
        assert np.ptp(found[layer]) > 0
    assert 2 < followed < len(names)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_last_layer_is_all_of_the_model(name: str) -> None:
    spec = create_spec(name)
    last = spec.output_layer.name
    assert stop_of(spec, last) == [layer.name for layer in spec.layers].index(last) + 1
    stops = [stop_of(spec, layer) for layer in layer_names(spec)]
    assert stops == sorted(set(stops))
    assert stops[-1] == len(spec.layers)


def test_an_unknown_layer_is_refused_with_those_there_are() -> None:
    spec = create_spec("paper")
    with pytest.raises(InputError, match=r"'fc9'.* conv1, norm1, .*Did you mean 'fc8'"):
        stop_of(spec, "fc9")
    with pytest.raises(InputError, match="''"):
        stop_of(spec, "")


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        *((name, "fc7") for name in ("paper", "caffe", "torchvision")),
        *(("cifar_26", "fc64"), ("cifar_19", "conv3"), ("cifar_11", "local4")),
    ],
)
def test_the_default_layer_is_the_last_one_before_the_output(model: str, layer: str) -> None:
    assert default_layer(create_spec(model)) == layer
