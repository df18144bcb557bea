"""The evaluation step: what a net says of a batch, its probabilities averaged over views."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.evaluation.predictions import Predictions, predict
from alexnet_jax.models import AlexNet
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.parallel.collectives import make_forward
from alexnet_jax.parallel.mesh import Layout, one_at_a_time, parameter_specs
from alexnet_jax.preprocessing import crops
from alexnet_jax.preprocessing.augment import Augmentation

# (variables, statistics, images) -> (batch, classes) log-probabilities
Score = Callable[[Any, Any, jax.Array], jax.Array]


def jit_eval_step(
    model: AlexNet,
    augmentation: Augmentation,
    layout: Layout,
    *,
    view: str = "center",
    scales: Sequence[int] = (),
) -> Callable[[Any, Any, Batch], Predictions]:
    """Returns (variables, statistics, batch) -> Predictions, whole on every device.

    `variables` are Flax's, {"params": ..., "batch_stats": ...}. It is pure, and compiled when it is
    first called. Views are run one after the other: the memory is that of the largest.

    Args:
      model: the net on one device.
      augmentation: how pictures become its input.
      layout: the devices and how they are used.
      view: a key of VIEWS, what is seen of each picture.
      scales: dense: sides to resize the pictures to, in pixels; (): `usual_scales`.
    """
    score = VIEWS[view](model, layout, augmentation, scales)

    def local(variables: Any, statistics: Any, batch: Batch) -> Predictions:
        log_probabilities = score(variables, statistics, batch.images)
        return predict(lax.pmean(log_probabilities, "tower"), batch)  # towers agree

    def eval_step(variables: Any, statistics: Any, batch: Batch) -> Predictions:
        return jax.shard_map(
            local,
            mesh=layout.mesh,
            in_specs=(parameter_specs(variables, layout), P(), P("data")),
            out_specs=P("data"),
        )(variables, statistics, batch)

    return one_at_a_time(jax.jit(eval_step, out_shardings=NamedSharding(layout.mesh, P())))


def usual_scales(input_size: int, image_size: int) -> tuple[int, ...]:
    """Returns the net's input, the pictures' own side, and as much larger again: 224, 256, 288."""
    return tuple(sorted({input_size, image_size, 2 * image_size - input_size}))


def _center(
    model: AlexNet, layout: Layout, augmentation: Augmentation, scales: Sequence[int]
) -> Score:
    """The center crop alone."""
    del scales
    forward = make_forward(model, layout, train=False)

    def score(variables: Any, statistics: Any, images: jax.Array) -> jax.Array:
        view = crops.center_view(images, statistics, augmentation)
        logits, _ = forward(variables, view)
        return jax.nn.log_softmax(logits)

    return score


def _ten_crops(
    model: AlexNet, layout: Layout, augmentation: Augmentation, scales: Sequence[int]
) -> Score:
    """Softmax probabilities averaged over ten crops (paper 4.1; authors' layer.cu:1804-1837)."""
    del scales
    forward = make_forward(model, layout, train=False)

    def score(variables: Any, statistics: Any, images: jax.Array) -> jax.Array:
        def one(crop: crops.Crops) -> jax.Array:
            view = crops.crop_view(images, statistics, augmentation, crop)
            logits, _ = forward(variables, view)
            return jax.nn.log_softmax(logits)

        _, height, width, _ = images.shape
        offsets = crops.ten_crops(height, width, augmentation.crop_size)
        # One by one is no slower on a CPU than ten times the batch, in a ninth of its memory.
        return _log_mean(lax.map(one, offsets), 0)

    return score


def _dense(
    model: AlexNet, layout: Layout, augmentation: Augmentation, scales: Sequence[int]
) -> Score:
    """Every place of the whole picture, and of its mirror image, at several sizes.

    Softmax probabilities are averaged over a size's places, then over mirror images and sizes, each
    size weighing the same.
    """
    wide = model.clone(spec=fully_convolutional(model.spec))
    forward = make_forward(wide, layout, train=False)

    def score(variables: Any, statistics: Any, images: jax.Array) -> jax.Array:
        def at(size: int) -> jax.Array:
            def one(mirrored: jax.Array) -> jax.Array:
                view = crops.whole_view(images, statistics, augmentation, size, mirrored)
                logits, _ = forward(variables, view, heat_map=True)
                return _log_mean(jax.nn.log_softmax(logits), (1, 2))

            return lax.map(one, jnp.array([False, True]))

        sizes = scales or usual_scales(augmentation.crop_size, images.shape[1])
        return _log_mean(jnp.concatenate([at(size) for size in sizes]), 0)

    return score


def _log_mean(log_probabilities: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
    """Returns the logarithm of the mean of probabilities given by their logarithms."""
    listed = (axes,) if isinstance(axes, int) else axes
    count = math.prod(log_probabilities.shape[axis] for axis in listed)
    return jax.nn.logsumexp(log_probabilities, axis=axes) - math.log(count)


VIEWS: dict[str, Callable[[AlexNet, Layout, Augmentation, Sequence[int]], Score]] = {
    "center": _center,
    "ten_crops": _ten_crops,
    "dense": _dense,
}
