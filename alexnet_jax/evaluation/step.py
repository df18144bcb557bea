"""The evaluation step: the predictions for a batch, with probabilities averaged over views."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec as P

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.evaluation.predictions import Predictions, predict, top_classes
from alexnet_jax.models import AlexNet
from alexnet_jax.models.activations import activations, stop_of
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.parallel.collectives import make_forward, wait_for
from alexnet_jax.parallel.mesh import Layout, one_at_a_time, parameter_specs
from alexnet_jax.preprocessing import crops
from alexnet_jax.preprocessing.augment import Augmentation


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model with its variables and all that turns uint8 images into its input.

    Attributes:
      model: the model on one device.
      layout: the devices and how they are used.
      augmentation, statistics: how images become its input.
      scales: for view dense: sides to resize images to, in pixels; (): `usual_scales`.
      variables: Flax's, {"params": ..., "batch_stats": ...}.
    """

    model: AlexNet
    layout: Layout
    augmentation: Augmentation
    scales: Sequence[int]
    variables: Any
    statistics: Any

    def log_probabilities(self, inputs: jax.Array, **options: Any) -> jax.Array:
        """Returns the logarithms of the class probabilities of float inputs."""
        forward = make_forward(self.model, self.layout, train=False)
        logits, _ = forward(self.variables, inputs, **options)
        return jax.nn.log_softmax(logits)


def _center(classifier: Classifier, images: jax.Array) -> jax.Array:
    """Evaluates the center crop only."""
    view = crops.center_view(images, classifier.statistics, classifier.augmentation)
    return classifier.log_probabilities(view)


def _ten_crops(classifier: Classifier, images: jax.Array) -> jax.Array:
    """Averages softmax probabilities over ten crops (paper 4.1; authors' layer.cu:1804-1837)."""

    def one(crop: crops.Crops) -> jax.Array:
        view = crops.crop_view(images, classifier.statistics, classifier.augmentation, crop)
        return classifier.log_probabilities(view)

    _, height, width, _ = images.shape
    offsets = crops.ten_crops(height, width, classifier.augmentation.crop_size)
    # One by one is no slower on a CPU than ten times the batch, in a ninth of its memory.
    return _log_mean(lax.map(one, offsets), 0)


def _dense(classifier: Classifier, images: jax.Array) -> jax.Array:
    """Evaluates every position of the whole image, and of its mirror image, at several sizes.

    Softmax probabilities are averaged over the positions of a size, then over mirror images and
    sizes, each size with the same weight.
    """
    augmentation, model = classifier.augmentation, classifier.model
    model = model.clone(spec=fully_convolutional(model.spec))
    classifier = dataclasses.replace(classifier, model=model)

    def one(size: int, mirrored: jax.Array) -> jax.Array:
        view = crops.whole_view(images, classifier.statistics, augmentation, size, mirrored)
        return _log_mean(classifier.log_probabilities(view, heat_map=True), (1, 2))

    scales = classifier.scales or usual_scales(augmentation.crop_size, images.shape[1])
    mirrored, maps = jnp.array([False, True]), []
    for size in scales:
        maps.append(lax.map(functools.partial(one, size), mirrored))
        mirrored = wait_for(maps[-1], mirrored)
    return _log_mean(jnp.concatenate(maps), 0)


def _log_mean(log_probabilities: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
    """Returns the logarithm of the mean of probabilities given by their logarithms."""
    total = jax.nn.logsumexp(log_probabilities, axis=axes)
    return total - math.log(log_probabilities.size // total.size)


# What an evaluation shows the model of each image (test-time augmentation): functions of a
# classifier and uint8[batch, height, width, channels] to float32[batch, classes] log-probabilities.
VIEWS: dict[str, Callable[[Classifier, jax.Array], jax.Array]] = {
    "center": _center,
    "ten_crops": _ten_crops,
    "dense": _dense,
}


def usual_scales(input_size: int, image_size: int) -> tuple[int, ...]:
    """Returns the model's input size, the images' size, and one as much larger: 224, 256, 288."""
    return tuple(sorted({input_size, image_size, 2 * image_size - input_size}))


def jit_step(
    model: AlexNet,
    augmentation: Augmentation,
    layout: Layout,
    outputs: Callable[[Classifier, Batch], Any],
    scales: Sequence[int] = (),
) -> Callable[[Any, Any, Batch], Any]:
    """Returns (variables, statistics, batch) -> outputs for each example, on every device.

    It is pure, and compiled on its first call.

    Args:
      model: the model on one device.
      augmentation: how images become its input.
      layout: the devices.
      outputs: what is computed of a device's part of a batch, arrays with a row for each example;
        its name is that of the program in profiles.
      scales: see `Classifier`.
    """

    def local(variables: Any, statistics: Any, batch: Batch) -> Any:
        return outputs(
            Classifier(model, layout, augmentation, scales, variables, statistics), batch
        )

    def step(variables: Any, statistics: Any, batch: Batch) -> Any:
        return jax.shard_map(
            local,
            mesh=layout.mesh,
            in_specs=(parameter_specs(variables, model.spec, layout), P(), P("data")),
            out_specs=P("data"),
        )(variables, statistics, batch)

    step.__name__ = outputs.__name__
    return one_at_a_time(jax.jit(step, out_shardings=NamedSharding(layout.mesh, P())))


def jit_eval_step(
    model: AlexNet,
    augmentation: Augmentation,
    layout: Layout,
    view: str = "center",
    scales: Sequence[int] = (),
) -> Callable[[Any, Any, Batch], Predictions]:
    """Returns (variables, statistics, batch) -> Predictions, see `jit_step`.

    Views are evaluated one after the other: the memory is that of the largest.

    Args:
      model: the model on one device.
      augmentation: how images become its input.
      layout: the devices and how they are used.
      view: a key of VIEWS.
      scales: see `Classifier`.
    """

    def eval_step(classifier: Classifier, batch: Batch) -> Predictions:
        log_probabilities = _of_view(view, classifier, batch)
        return predict(log_probabilities, wait_for(log_probabilities, batch))

    return jit_step(model, augmentation, layout, eval_step, scales)


def jit_top_step(
    model: AlexNet, augmentation: Augmentation, layout: Layout, view: str, most: int
) -> Callable[[Any, Any, Batch], tuple[jax.Array, jax.Array]]:
    """Returns (variables, statistics, batch) -> (classes, probabilities), see `top_classes`.

    Args:
      model: the model on one device.
      augmentation: how images become its input.
      layout: the devices and how they are used.
      view: a key of VIEWS, one without scales.
      most: number of classes.
    """

    def top_step(classifier: Classifier, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return top_classes(_of_view(view, classifier, batch), most)

    return jit_step(model, augmentation, layout, top_step)


def jit_features_step(
    model: AlexNet, augmentation: Augmentation, layout: Layout, layers: Sequence[str]
) -> Callable[[Any, Any, Batch], dict[str, jax.Array]]:
    """Returns (variables, statistics, batch) -> the outputs of layers for center crops.

    Args:
      model: the model on one device.
      augmentation: how images become its input.
      layout: the devices, under a strategy that keeps layers whole.
      layers: their names, see `activations`.

    Raises:
      InputError: there is no layer of a name.
    """
    for name in layers:
        stop_of(model.spec, name)

    def features_step(classifier: Classifier, batch: Batch) -> dict[str, jax.Array]:
        view = crops.center_view(batch.images, classifier.statistics, augmentation)
        return activations(model, classifier.variables, view, layers)

    return jit_step(model, augmentation, layout, features_step)


def _of_view(view: str, classifier: Classifier, batch: Batch) -> jax.Array:
    """Returns the log-probabilities of a batch, equal on all towers."""
    return lax.pmean(VIEWS[view](classifier, batch.images), "tower")
