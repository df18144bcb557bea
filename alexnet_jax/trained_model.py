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
        size = self.image_size
        self._check(images, (size, size))
        return _logits(self.model, self.augmentation, self.variables, self.statistics, images)

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
        self._check(images, None)
        model = self.model.clone(spec=fully_convolutional(self.model.spec))
        logits = _heat_map(model, self.augmentation, self.variables, self.statistics, images)
        return np.asarray(jax.nn.softmax(logits))

    def _check(self, images: Any, size: tuple[int, int] | None) -> None:
        """Raises InputError unless images are uint8 of a size; None: large enough."""
        dtype = getattr(images, "dtype", type(images).__name__)
        shape, least = np.shape(images), self.augmentation.crop_size
        channels = self.model.spec.channels
        fitting = dtype == np.uint8 and len(shape) == 4 and shape[3] == channels
        if fitting and (shape[1:3] == size if size else min(shape[1:3]) >= least):
            return
        sides = f"{size[0]}, {size[1]}" if size else "height, width"
        larger = "" if size else f" with sides of {least} pixels or more"
        raise InputError(
            f"This model takes images as uint8[batch, {sides}, {channels}]{larger}, not as "
            f"{dtype}{list(shape)}."
        )


@jax.jit(static_argnums=(0, 1))
def _heat_map(
    model: AlexNet, augmentation: Augmentation, variables: Any, statistics: Any, images: jax.Array
) -> jax.Array:
    pixels = whole_view(images, statistics, augmentation)
    logits: Any = model.apply(variables, pixels, heat_map=True)
    return logits


@jax.jit(static_argnums=(0, 1))
def _logits(
    model: AlexNet, augmentation: Augmentation, variables: Any, statistics: Any, images: jax.Array
) -> jax.Array:
    logits: Any = model.apply(variables, center_view(images, statistics, augmentation))
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
