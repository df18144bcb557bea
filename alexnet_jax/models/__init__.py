"""The models of the AlexNet family."""

from typing import Any

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layers import FeatureSharding, ModelSpec
from alexnet_jax.models.overrides import OVERRIDES
from alexnet_jax.models.summary import list_parameter_paths, parameter_paths, parameter_shapes
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.schema import Schema, choice, flatten, integer, merge

# The config's section `model`. After dtype come the overrides; None leaves the model as it is.
MODEL_OPTIONS: Schema = {
    "name": choice("paper", "Name of a model in models/variants.py.", VARIANTS),
    "num_classes": integer(None, "Number of outputs; None: one per class of the data.", 2, 2**20),
    "dtype": choice(None, "Type to compute in; None: float32, like the parameters.", ("bfloat16",)),
    **{name: key for name, (key, _) in OVERRIDES.items()},
}


def list_models() -> list[str]:
    """Returns the names that `create_model` takes."""
    return list(VARIANTS)


def create_spec(name: str, **overrides: Any) -> ModelSpec:
    """Returns the spec of a model with overrides applied; see `create_model`.

    Raises:
      ValueError: there is no such model or override, or a value is wrong or does not fit; its
        arguments are a sentence for each error.
    """
    tree, errors = merge(MODEL_OPTIONS, flatten({"name": name, **overrides}))
    if errors:
        raise ValueError(*errors)
    spec = VARIANTS[name]
    for option, (_, change) in OVERRIDES.items():
        try:
            if tree[option] is not None:
                spec = change(spec, tree[option])
        except ValueError as error:
            errors += error.args
    if errors:
        raise ValueError(*errors)
    return spec


def create_model(
    name: str, num_classes: int = 1000, dtype: str | None = None, **overrides: Any
) -> AlexNet:
    """Returns a model of the family.

    Args:
      name: one of `list_models()`.
      num_classes: outputs of the last layer.
      dtype: type to compute in, such as "bfloat16"; None: that of the parameters, float32.
      **overrides: the other keys of the config's `model` section, such as `initializer="kaiming"`,
        `remove_layer="conv4"`, `lrn="none"`, `layers={"conv1": {"features": 48}}` or
        `fully_convolutional=True`, which makes the model take larger images.

    Raises:
      ValueError: there is no such model or override, a value is wrong, or the layers do not fit
        together; a line for each error.
    """
    try:
        spec = create_spec(name, num_classes=num_classes, dtype=dtype, **overrides)
        if num_classes is None:  # in a config: the number of classes of the data
            raise ValueError("num_classes: None is not a whole number.")
        list(spec.trace(num_classes))
    except ValueError as error:
        raise ValueError("\n".join(error.args)) from None
    return AlexNet(spec, num_classes, dtype=dtype)
