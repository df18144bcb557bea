"""The nets of the AlexNet family."""

from typing import Any

from alexnet_jax import schema
from alexnet_jax.models.alexnet import AlexNet, Towers
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.models.options import MODEL_OPTIONS
from alexnet_jax.models.overrides import override
from alexnet_jax.models.parameters import list_parameter_paths, parameter_paths
from alexnet_jax.models.summary import layer_table
from alexnet_jax.models.variants import VARIANTS

__all__ = [
    "AlexNet",
    "Towers",
    "create_model",
    "create_spec",
    "list_parameter_paths",
    "parameter_paths",
]


def create_spec(name: str, **overrides: Any) -> ModelSpec:
    """Returns a row of the family with overrides applied; see `create_model`.

    Raises:
      ValueError: there is no such row or override, or one has a wrong value; its arguments are a
        sentence for each mistake.
    """
    if name not in VARIANTS:
        hint = schema.did_you_mean(str(name), list(VARIANTS))
        raise ValueError(f"{name!r} is not one of {', '.join(VARIANTS)}.{hint}")
    tree, mistakes = schema.merge(MODEL_OPTIONS, schema.flatten(overrides))
    if mistakes:
        raise ValueError(*mistakes)
    return override(VARIANTS[name], **{key: tree[key] for key in overrides})


def create_model(
    name: str, num_classes: int = 1000, dtype: str | None = None, **overrides: Any
) -> AlexNet:
    """Returns a net of the family.

    Args:
      name: a row of `variants.VARIANTS`.
      num_classes: outputs of the last layer.
      dtype: type to compute in, such as "bfloat16"; None: that of the parameters, float32.
      **overrides: the other keys of `model` in config.py, such as `init="kaiming"`,
        `without="conv4"`, `response_norm="none"`, `layers={"conv1": {"features": 48}}` or
        `fully_convolutional=True`, with which the net gives a heat map.

    Raises:
      ValueError: there is no such row or override, one has a wrong value, or the layers do not fit
        together; a line for each mistake.
    """
    given = {"num_classes": num_classes, "dtype": dtype}
    mistakes = [
        f"{name}: {mistake}"
        for name, value in given.items()
        if (mistake := schema.check(MODEL_OPTIONS[name], value)[1])
    ]
    if num_classes is None:  # in a config: as many as the data have
        mistakes.append("num_classes: None is not a whole number.")
    try:
        spec = create_spec(name, **overrides)
        layer_table(spec, 2)
    except ValueError as error:
        mistakes += error.args
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return AlexNet(spec, num_classes, dtype=dtype)
