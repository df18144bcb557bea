"""A trained model to use: its parameters with the preprocessing and classes they belong to."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.experiment import Experiment
from alexnet_jax.models import AlexNet
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.preprocessing.crops import center_view, whole_view
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedModel:
    """A model that takes images as they are.

    Attributes:
      model: the Flax module.
      augmentation: how images become its input; only the center crop is used here.
      variables: its parameters and, where it has batch norms, their running statistics.
      statistics: what is subtracted from images.
      class_names: the unique name of each output, such as a WordNet id; "unused 10" and so on where
        the model has more outputs than the data have classes.
      class_labels: what to show people for each output.
      image_size: height and width of the images it was trained on, in pixels.
      step: number of training steps.
    """

    model: AlexNet
    augmentation: Augmentation
    variables: Mapping[str, Any]
    statistics: Mapping[str, Any]
    class_names: tuple[str, ...]
    class_labels: tuple[str, ...]
    image_size: int
    step: int

    def __repr__(self) -> str:
        count = sum(array.size for array in jax.tree.leaves(self.params))
        size, channels = self.image_size, self.model.spec.channels
        return (
            f"TrainedModel({count:,} parameters, {size}x{size}x{channels} images, "
            f"{len(self.class_names)} classes, step {self.step})"
        )

    @property
    def params(self) -> Any:
        """The parameters, by layer."""
        return self.variables["params"]

    def logits(self, images: Any) -> jax.Array:
        """Returns float32[batch, classes] logits of uint8[batch, height, width, channels] images.

        The images are squares of `image_size`, the run's config.data.image_size, with the shorter
        side resized to it and the center cropped; the model's own center crop is taken here.

        Raises:
          InputError: they are of another type, size or number of channels.
        """
        return self._apply(images, heat_map=False)

    def probabilities(self, images: Any) -> np.ndarray:
        """Returns float32[batch, classes] probabilities of images; see `logits`."""
        return np.asarray(jax.nn.softmax(self.logits(images)))

    def heat_map(self, images: Any) -> np.ndarray:
        """Returns float32[batch, rows, columns, classes] probabilities at each place of images.

        The dense layers run as convolutions with the same parameters. Images are preprocessed as in
        the `dense` evaluation: a mean image is subtracted whole, resized to images of another size.

        Args:
          images: uint8[batch, height, width, channels], at least as large as the model's input.

        Raises:
          InputError: they are of another type or number of channels, or smaller.
        """
        return np.asarray(jax.nn.softmax(self._apply(images, heat_map=True)))

    def _apply(self, images: Any, *, heat_map: bool) -> jax.Array:
        """Returns the logits of images, which must be at least a crop; see `_logits`."""
        dtype, shape = getattr(images, "dtype", type(images).__name__), np.shape(images)
        size, least = self.image_size, self.augmentation.crop_size
        channels = self.model.spec.channels
        fits = min(shape[1:3], default=0) >= least if heat_map else shape[1:3] == (size, size)
        if not fits or dtype != np.uint8 or len(shape) != 4 or shape[3] != channels:
            sides = f"height >= {least}, width >= {least}" if heat_map else f"{size}, {size}"
            raise InputError(
                f"This model takes images as uint8[batch, {sides}, {channels}], not as "
                f"{dtype}{list(shape)}."
            )
        arrays = (self.variables, self.statistics, images)
        return _logits(self.model, self.augmentation, heat_map, arrays)


@jax.jit(static_argnums=(0, 1, 2))
def _logits(model: AlexNet, augmentation: Augmentation, heat_map: bool, arrays: Any) -> jax.Array:
    """Returns the logits of whole images at each position for a heat map, else of center crops."""
    variables, statistics, images = arrays
    view = center_view
    if heat_map:
        model, view = model.clone(spec=fully_convolutional(model.spec)), whole_view
    logits: Any = model.apply(variables, view(images, statistics, augmentation), heat_map=heat_map)
    return logits


def load(path: str | Path, which: str | int = "best") -> TrainedModel:
    """Loads a trained model from the workdir of its run.

    The arrays can also be read with Orbax; see training/checkpoint.py.

    Args:
      path: the workdir, such as "runs/quickstart".
      which: "best" by validation top-1, "latest", or a step.

    Raises:
      InputError: there is no such folder or checkpoint, or it is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise InputError(f"There is no folder {path}: name the workdir of a run.")
    checkpoints = Checkpoints(path / "checkpoints", read_only=True)
    step = checkpoints.find(which)
    metadata = checkpoints.metadata(step)
    tree, _ = schema.merge(SCHEMA, schema.flatten(metadata["config"]))  # later keys at defaults
    config = ConfigDict(tree)
    config.parallel.update(strategy="single", devices=1)
    num_classes, num_examples = len(metadata["class_names"]), metadata["num_examples"]
    experiment = Experiment.from_config(config, num_classes, num_examples)
    arrays = checkpoints.restore_part(step, arrays_of(experiment.abstract_state()))
    checkpoints.close()
    return trained_model(experiment, arrays, metadata, step)


def arrays_of(state: TrainState) -> dict[str, Any]:
    """Returns the arrays of a state that a trained model needs."""
    return {**state.variables, "statistics": state.statistics}


def trained_model(
    experiment: Experiment, arrays: Mapping[str, Any], metadata: Mapping[str, Any], step: int
) -> TrainedModel:
    """Returns the model of a run from what `arrays_of` names and the metadata of a checkpoint."""
    return TrainedModel(
        model=experiment.model,
        augmentation=experiment.augmentation,
        variables={name: arrays[name] for name in arrays if name != "statistics"},
        statistics=arrays["statistics"],
        class_names=tuple(metadata["class_names"]),
        class_labels=tuple(metadata["class_labels"]),
        image_size=experiment.image_shape[0],
        step=step,
    )
