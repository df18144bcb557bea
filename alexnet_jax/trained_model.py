"""A trained model to use: its parameters with the preprocessing and classes they belong to."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from alexnet_jax import schema, weights
from alexnet_jax.config import checks
from alexnet_jax.config.command_line import Command, run_of
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.config.model_keys import take_over
from alexnet_jax.data.image_inputs import split_images, to_pixels
from alexnet_jax.data.images import RESIZERS
from alexnet_jax.errors import InputError, config_errors, did_you_mean
from alexnet_jax.evaluation.step import VIEWS, Classifier
from alexnet_jax.experiment import Experiment
from alexnet_jax.models import AlexNet
from alexnet_jax.models.activations import activations, default_layer
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.parallel.mesh import make_layout
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.preprocessing.crops import center_view, whole_view
from alexnet_jax.training.checkpoint import Checkpoints, is_step
from alexnet_jax.training.state import TrainState
from alexnet_jax.weights import ModelFile, ReadOptions
from alexnet_jax.weights.model_file import MODEL, PREPROCESSING

LARGEST_BATCH = 64  # images at a time
_log = logging.getLogger(__name__)


class Guess(NamedTuple):
    """A class and its probability.

    Attributes:
      name: unique name, such as a WordNet id.
      label: what to show people.
      probability: between 0 and 1.
    """

    name: str
    label: str
    probability: float


class Prediction(tuple[Guess, ...]):
    """The most probable classes of an image, in descending order."""

    def __repr__(self) -> str:
        guesses = (f"{label} {probability:.1%}" for _, label, probability in self)
        return f"Prediction({'; '.join(guesses)})"


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedModel:
    """A model that takes images as they are: paths, images of Pillow or uint8 arrays, one or many.

    Attributes:
      model: the Flax module.
      augmentation: how images become its input; only the center crop is used here.
      variables: its parameters and, where it has batch norms, their running statistics.
      statistics: what is subtracted from images.
      class_names: the unique name of each output, such as a WordNet id; "unused 10" and so on where
        the model has more outputs than the data have classes.
      class_labels: what to show people for each output.
      image_size: height and width of the images it was trained on, in pixels.
      resize: how images of other sizes become those, as data.resize.
      config: the full config tree it was trained with.
      step: number of training steps.
    """

    model: AlexNet
    augmentation: Augmentation
    variables: Mapping[str, Any]
    statistics: Mapping[str, Any]
    class_names: tuple[str, ...]
    class_labels: tuple[str, ...]
    image_size: int
    resize: str
    config: Mapping[str, Any]
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

    def transform(self, images: Any) -> np.ndarray:
        """Returns uint8[n, image_size, image_size, channels]: images as the run read them.

        The model's own crop and the subtraction of the mean come after that, in every other method;
        those call this one.

        Args:
          images: see `data.image_inputs.split_images`.

        Raises:
          InputError: an image cannot be read, or is of another kind.
        """
        shape = (self.image_size, self.image_size, self.model.spec.channels)
        single = split_images(images)
        transformed = np.empty((len(single), *shape), np.uint8)

        def write(row: int) -> None:
            pixels = to_pixels(single[row], shape[-1])
            transformed[row] = RESIZERS[self.resize](pixels, self.image_size)

        with ThreadPoolExecutor() as pool:
            list(pool.map(write, range(len(single))))
        return transformed

    def predict(self, images: Any, top: int = 5, views: str = "center") -> list[Prediction]:
        """Returns the most probable classes of each image.

        Args:
          images: see `transform`.
          top: number of classes for each image.
          views: see `probabilities`.
        """
        probabilities = self.probabilities(images, views)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        return [
            Prediction(
                Guess(self.class_names[index], self.class_labels[index], float(row[index]))
                for index in best.tolist()
            )
            for row, best in zip(probabilities, order, strict=True)
        ]

    def logits(self, images: Any) -> np.ndarray:
        """Returns float32[n, classes] logits of the center crops of images; see `transform`."""
        return self._apply(images, functools.partial(_logits, self.model, self.augmentation, False))

    def probabilities(self, images: Any, views: str = "center") -> np.ndarray:
        """Returns float32[n, classes] probabilities of images.

        Args:
          images: see `transform`.
          views: "center" for the center crop, "ten_crops" or "dense", as in job evaluate.

        Raises:
          InputError: an image cannot be read or is of another kind, or there are no such views.
        """
        if views not in VIEWS:
            hint = did_you_mean(views, list(VIEWS))
            raise InputError(f"There are no views {views!r}, only {', '.join(VIEWS)}.{hint}")
        return self._apply(
            images, functools.partial(_probabilities, self.model, self.augmentation, views)
        )

    def features(self, images: Any, layer: str | None = None) -> np.ndarray:
        """Returns float32[n, ...] outputs of a layer for the center crops of images.

        They are taken after the activation that directly follows the layer.

        Args:
          images: see `transform`.
          layer: its name, as in the layer table of job summary; None: the last one with weights
            before the output layer, such as fc7.

        Raises:
          InputError: an image cannot be read or is of another kind, or there is no such layer.
        """
        layer = layer or default_layer(self.model.spec)
        return self._apply(
            images, functools.partial(_features, self.model, self.augmentation, layer)
        )

    def _apply(self, images: Any, function: Callable[[Any], jax.Array]) -> np.ndarray:
        """Returns a jitted function of (variables, statistics, images) for all images.

        It gets batches of one size, a power of two so that few programs are compiled.
        """
        single = split_images(images)
        size = min(LARGEST_BATCH, 1 << max(len(single) - 1, 0).bit_length())
        parts: list[Any] = []
        for start in range(0, max(len(single), 1), size):
            batch = self.transform(single[start : start + size])
            padded = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
            parts.append(function((self.variables, self.statistics, padded)))
            parts[-2:-1] = jax.device_get(parts[-2:-1])  # while the device does this batch
        return np.concatenate(jax.device_get(parts))[: len(single)]

    def heat_map(self, images: Any) -> np.ndarray:
        """Returns float32[batch, rows, columns, classes] probabilities at each place of images.

        The dense layers run as convolutions with the same parameters. Images are preprocessed as in
        the `dense` evaluation: a mean image is subtracted whole, resized to images of another size.

        Args:
          images: uint8[batch, height, width, channels], at least as large as the model's input.

        Raises:
          InputError: they are of another type or number of channels, or smaller.
        """
        dtype, shape = getattr(images, "dtype", type(images).__name__), np.shape(images)
        least, channels = self.augmentation.crop_size, self.model.spec.channels
        fits = len(shape) == 4 and min(shape[1:3]) >= least and shape[3] == channels
        if not fits or dtype != np.uint8:
            raise InputError(
                f"Heat maps are of images uint8[batch, height >= {least}, width >= {least}, "
                f"{channels}], not of {dtype}{list(shape)}."
            )
        arrays = (self.variables, self.statistics, images)
        return np.asarray(jax.nn.softmax(_logits(self.model, self.augmentation, True, arrays)))


@jax.jit(static_argnums=(0, 1, 2))
def _logits(model: AlexNet, augmentation: Augmentation, heat_map: bool, arrays: Any) -> jax.Array:
    """Returns the logits of whole images at each position for a heat map, else of center crops."""
    variables, statistics, images = arrays
    view = center_view
    if heat_map:
        model, view = model.clone(spec=fully_convolutional(model.spec)), whole_view
    logits: Any = model.apply(variables, view(images, statistics, augmentation), heat_map=heat_map)
    return logits


@jax.jit(static_argnums=(0, 1, 2))
def _probabilities(
    model: AlexNet, augmentation: Augmentation, views: str, arrays: Any
) -> jax.Array:
    variables, statistics, images = arrays
    layout = make_layout("single")
    classifier = Classifier(model, layout, augmentation, (), variables, statistics)
    return jnp.exp(VIEWS[views](classifier, images))


@jax.jit(static_argnums=(0, 1, 2))
def _features(model: AlexNet, augmentation: Augmentation, layer: str, arrays: Any) -> jax.Array:
    variables, statistics, images = arrays
    view = center_view(images, statistics, augmentation)
    return activations(model, variables, view, [layer])[layer]


def load(path: str | Path, which: str | int = "best", **options: Any) -> TrainedModel:
    """Loads a trained model.

    The arrays of a checkpoint can also be read with Orbax alone; see training/checkpoint.py.

    Args:
      path: the workdir of a run, such as "runs/quickstart"; one of its checkpoints, such as
        "runs/quickstart/checkpoints/300"; or a weight file of another program, recognized by its
        content.
      which: of a workdir: "best" by validation top-1, "latest", or a step.
      **options: of a weight file: the fields of `weights.ReadOptions`, such as `model="caffe"`.

    Raises:
      InputError: there is no such file, folder or checkpoint, or it is damaged or refused.
    """
    path, read_options = Path(path).expanduser(), ReadOptions(**options)
    if run_of(path) == path:
        return _load_checkpoint(path / "checkpoints", which)
    if is_step(path):
        return _load_checkpoint(path.parent, path.name)
    if not path.exists():
        raise InputError(
            f"There is no file or folder {path}: name the workdir of a run, or a weight file."
        )
    model_file = weights.read(path, read_options)
    for note in model_file.notes:
        _log.info("%s", note)
    return of_model_file(model_file)


def load_for(command: Command) -> tuple[TrainedModel, ConfigDict]:
    """Loads the model at a command's workdir.

    Returns:
      The model, and the command's config with the model's own keys, checked.

    Raises:
      InputError: see `load`; or the command contradicts the model, or itself.
    """
    options = command.config.weights.to_dict()
    trained = load(command.workdir, command.config.evaluation.checkpoint, **options)
    return trained, config_with(command, trained)


def config_with(command: Command, trained: TrainedModel) -> ConfigDict:
    """Returns a command's config with a model's own keys, checked.

    Raises:
      InputError: the command contradicts the model, or itself.
    """
    config = take_over(command, trained.config, MODEL)
    taken = dataclasses.replace(command, config=config, file_config=None)
    if errors := checks.errors(taken, jax.device_count(), jax.process_count()):
        raise config_errors(errors)
    return config


def _load_checkpoint(folder: Path, which: str | int) -> TrainedModel:
    """Returns the model of a checkpoint in the folder of a run's checkpoints."""
    checkpoints = Checkpoints(folder, read_only=True)
    step = checkpoints.find(which)
    metadata = checkpoints.metadata(step)
    tree, _ = schema.merge(SCHEMA, schema.flatten(metadata["config"]))  # later keys at defaults
    metadata = {**metadata, "config": tree}
    experiment = _experiment(tree, len(metadata["class_names"]), metadata["num_examples"])
    arrays = checkpoints.restore_part(step, arrays_of(experiment.abstract_state()))
    checkpoints.close()
    return trained_model(experiment, arrays, metadata, step)


def _experiment(tree: Mapping[str, Any], num_classes: int, num_examples: int = 1) -> Experiment:
    """Returns the parts of a run that a config determines, on one device."""
    config = ConfigDict(tree)
    config.parallel.update(strategy="single", devices=1)
    return Experiment.from_config(config, num_classes, num_examples)


def of_model_file(model_file: ModelFile) -> TrainedModel:
    """Returns the model that a weight file holds; layers that it lacks are drawn at random.

    Raises:
      InputError: its config is invalid, or it lacks the mean image that this requires.
    """
    given = {
        key: value
        for key, value in model_file.config.items()
        if key.startswith("model.") or PREPROCESSING.fullmatch(key)
    }
    tree, errors = schema.merge(SCHEMA, given)
    if errors:
        raise config_errors(errors)
    try:
        experiment = _experiment(tree, given["model.num_classes"])
    except ValueError as error:  # layers that do not fit together
        raise InputError(str(error)) from error
    table: Any = model_file.classes
    metadata = {"config": tree, "class_names": table.ids, "class_labels": table.labels}
    arrays = _variables(experiment.model, model_file)
    arrays["statistics"] = _statistics(experiment, model_file.mean, tree["augment"])
    return trained_model(experiment, arrays, metadata, step=0)


def _variables(model: AlexNet, model_file: ModelFile) -> dict[str, Any]:
    """Returns the variables of a model that a file holds, and draws those that it lacks."""
    size, channels = model.spec.input_size, model.spec.channels
    initialize = functools.partial(
        model.init, jax.random.key(0), jnp.zeros((1, size, size, channels))
    )
    names = traverse_util.flatten_dict(dict(jax.eval_shape(initialize)))
    given = {"params": model_file.params, "batch_stats": model_file.batch_stats}
    found: dict[Any, Any] = traverse_util.flatten_dict(given)
    if names.keys() - found.keys():
        found = traverse_util.flatten_dict(dict(jax.jit(initialize)())) | found
    found = {name: jnp.asarray(found[name]) for name in names}
    return traverse_util.unflatten_dict(found)


def _statistics(experiment: Experiment, mean: Any, augment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is subtracted from images, of the mean image or color of a weight file."""
    shape = experiment.statistics["mean"]
    colors = {"given": augment["channel_mean"], "none": np.zeros(shape[-1])}
    mean = colors.get(augment["mean"], mean)
    if np.size(mean) != np.prod(shape) or mean is None:
        raise InputError(
            f"augment.mean={augment['mean']!r} takes a mean of shape {list(shape)}, not "
            f"{'none' if mean is None else list(np.shape(mean))}."
        )
    return {"mean": jnp.asarray(mean, jnp.float32).reshape(shape)}


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
        resize=metadata["config"]["data"]["resize"],
        config=metadata["config"],
        step=step,
    )
