"""Test cases for comparing models: parameters, images and objective, drawn with numpy only."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.models import AlexNet, create_model, create_spec

BATCH, CLASSES = 2, 7
PROJECTIONS = 16
# The tests compile small programs without optimization; these run a hundred times faster with it.
OPTIMIZED = {"xla_backend_optimization_level": 3}

# Large models are compared on small images: fc6 still has several positions, and rounding rarely
# decides which of two values is larger. Small models keep their size.
SMALL = {224: 96, 227: 99}


def small_size(name: str) -> int:
    """Returns the input size on which a model is compared, in pixels."""
    size = create_spec(name).input_size
    return SMALL.get(size, size)


@dataclasses.dataclass
class Case:
    """A model with asymmetric parameters that preserve the scale of the signal, and its input.

    The objective is the sum of `weights` times the logits.
    """

    model: AlexNet
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    images: np.ndarray
    weights: np.ndarray


def make_case(name: str, seed: int = 0, dtype: str = "float64", **overrides: Any) -> Case:
    """Draws a case; the same seed gives the same numbers in every type, up to rounding."""
    rng = np.random.default_rng(seed)
    model = create_model(name, CLASSES, **overrides)
    size, channels = model.spec.input_size, model.spec.channels
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))

    def draw(path: Any, shape: Any) -> np.ndarray:
        layer, name, dimensions = path[-2].key, path[-1].key, shape.shape
        if name == "kernel":
            fan_in = np.prod(dimensions[2:-1] if layer.startswith("local") else dimensions[:-1])
            array = rng.standard_normal(dimensions, np.float32) / np.sqrt(fan_in) + 0.01 / fan_in
        elif name in ("scale", "var"):
            array = rng.uniform(0.5, 2.0, dimensions)
        else:
            array = rng.normal(0.1, 0.3, dimensions)
        return array.astype(np.float32).astype(dtype)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    images = rng.uniform(-120, 130, (BATCH, size, size, channels))
    weights = rng.normal(size=(BATCH, CLASSES))
    return Case(
        model,
        variables["params"],
        variables.get("batch_stats", {}),
        images.astype(np.float32).astype(dtype),
        weights.astype(np.float32).astype(dtype),
    )


def ours(case: Case) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the logits, and the gradients of the objective by {"images": ..., layer: {...}}."""

    def objective(params: Any, images: Any) -> Any:
        variables = {"params": params, "batch_stats": case.batch_stats}
        logits = case.model.apply(variables, images)
        return jnp.sum(logits * case.weights), logits

    gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
    optimized = jax.jit(gradient, compiler_options=OPTIMIZED)
    (_, logits), (gradients, images) = optimized(case.params, case.images)
    return np.asarray(logits), {**gradients, "images": {"pixels": images}}


def projections(gradient: np.ndarray, seed: int) -> np.ndarray:
    """Returns 16 numbers u.G.v of a gradient as a matrix, u and v standard normal.

    The mean square of such numbers estimates the squared Frobenius norm, also of a difference of
    two gradients. As outer products, the projections of fc6 take no memory.
    """
    rng = np.random.default_rng(seed)
    matrix = np.asarray(gradient, np.float64).reshape(-1, gradient.shape[-1])
    u = rng.normal(size=(PROJECTIONS, matrix.shape[0]))
    v = rng.normal(size=(PROJECTIONS, matrix.shape[1]))
    return np.einsum("pi,pi->p", u @ matrix, v)
