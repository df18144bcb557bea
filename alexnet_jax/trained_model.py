"""A trained net to use: its weights with the preprocessing and the class names they belong to."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.preprocessing.crops import center_view


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A net that takes pictures as they are.

    Attributes:
      model: the Flax module.
      augmentation: how pictures become its input; only the center crop is used here.
      variables: its parameters and, where it has batch norms, their running statistics.
      statistics: what is subtracted from pictures.
      class_names: the unique name of each output, such as a WordNet id.
      class_labels: what to show people for each output.
      image_size: height and width of the pictures it was trained on, in pixels.
      step: training steps behind them.
    """

    model: AlexNet
    augmentation: Augmentation
    variables: Mapping[str, Any]
    statistics: Mapping[str, Any]
    class_names: tuple[str, ...]
    class_labels: tuple[str, ...]
    image_size: int
    step: int

    @property
    def params(self) -> Any:
        """The parameters, by layer."""
        return self.variables["params"]

    def logits(self, images: Any) -> jax.Array:
        """Returns (batch, classes) logits of uint8 (batch, height, width, channels) pictures.

        The pictures are squares of `image_size`, the run's config.data.image_size, with the shorter
        side resized to it and the center cropped; the net's own center crop is taken here.

        Raises:
          InputError: they are of another type, size or number of channels.
        """
        size = self.image_size
        self._check(images, (size, size))
        return _logits(self.model, self.augmentation, self.variables, self.statistics, images)

    def probabilities(self, images: Any) -> np.ndarray:
        """Returns (batch, classes) probabilities of pictures; see `logits`."""
        return np.asarray(jax.nn.softmax(self.logits(images)))

    def heat_map(self, images: Any) -> np.ndarray:
        """Returns (batch, rows, columns, classes) probabilities at every place of larger pictures.

        The dense layers run as convolutions with the same parameters. The pictures are uint8
        (batch, height, width, channels) of any size from the net's input on; the training split's
        mean color is subtracted, since its mean image has one size only.

        Raises:
          InputError: they are of another type or number of channels, or smaller.
        """
        self._check(images, None)
        spec = fully_convolutional(self.model.spec)
        wide = AlexNet(spec, self.model.num_classes)
        mean = jnp.mean(self.statistics["mean"], axis=(0, 1))
        scale = jnp.asarray(self.augmentation.scale, jnp.float32)
        logits = _heat(wide, self.variables, mean, scale, images)
        return np.asarray(jax.nn.softmax(logits))

    def _check(self, images: Any, size: tuple[int, int] | None) -> None:
        """Raises InputError unless images are uint8 of a size; None: of any that is enough."""
        dtype = getattr(images, "dtype", type(images).__name__)
        shape, least = np.shape(images), self.augmentation.crop_size
        channels = self.model.spec.channels
        right = dtype == np.uint8 and len(shape) == 4 and shape[3] == channels
        if right and (shape[1:3] == size if size else min(shape[1:3]) >= least):
            return
        sides = f"{size[0]}, {size[1]}" if size else "height, width"
        larger = "" if size else f" of {least} pixels or more a side"
        raise InputError(
            f"This net takes pictures as uint8 (batch, {sides}, {channels}){larger}, not as "
            f"{dtype} {shape}."
        )


@jax.jit(static_argnums=0)
def _heat(
    model: AlexNet, variables: Any, mean: jax.Array, scale: jax.Array, images: jax.Array
) -> jax.Array:
    logits: Any = model.apply(variables, (images - mean) * scale, heat_map=True)
    return logits


@jax.jit(static_argnums=(0, 1))
def _logits(
    model: AlexNet, augmentation: Augmentation, variables: Any, statistics: Any, images: jax.Array
) -> jax.Array:
    logits: Any = model.apply(variables, center_view(images, statistics, augmentation))
    return logits


def load(path: str | Path, which: str = "best") -> TrainedModel:
    """Loads a trained net from the workdir of its run.

    Args:
      path: the workdir, such as "runs/quickstart".
      which: "best" by validation top-1, "latest", or a step.

    Raises:
      InputError: there is no such folder or checkpoint, or it is damaged.
    """
    if not Path(path).is_dir():
        raise InputError(f"There is no folder {path}: name the workdir of a run.")
    from alexnet_jax.experiment import Experiment
    from alexnet_jax.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(Path(path) / "checkpoints", read_only=True)
    step = checkpoints.find(which)
    about = checkpoints.about(step)
    tree, _ = schema.merge(SCHEMA, schema.flatten(about["config"]))  # later keys at their defaults
    config = ConfigDict(tree)
    config.parallel.update(strategy="single", devices=1)  # restores whatever mesh it came from
    experiment = Experiment.from_config(config, len(about["class_names"]), about["num_examples"])
    state = checkpoints.restore(step, experiment.abstract_state())
    checkpoints.close()
    return TrainedModel(
        experiment.model,
        experiment.augmentation,
        state.variables,
        state.statistics,
        tuple(about["class_names"]),
        tuple(about["class_labels"]),
        config.data.image_size,
        step,
    )
