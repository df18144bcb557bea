"""The train step: a pure function of (state, batch)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.models import AlexNet
from alexnet_jax.parallel.collectives import make_forward, mark_varying, split_batch, sum_over_batch
from alexnet_jax.parallel.mesh import Layout, parameter_specs
from alexnet_jax.preprocessing import augment
from alexnet_jax.training.metrics import Metrics, measure
from alexnet_jax.training.optimizer import parameter_path
from alexnet_jax.training.schedule import Rate, row_of
from alexnet_jax.training.state import TrainState

Norms = dict[str, dict[str, jax.Array]]
LossParts = tuple[jax.Array, tuple[Metrics, Any]]


def make_loss(
    model: AlexNet, augmentation: augment.Augmentation, layout: Layout
) -> Callable[..., LossParts]:
    """Returns (params, state, batch, total) -> (loss, (Metrics, batch statistics)), in training.

    The loss is the sum over the batch divided by `total`, the count of which it is a part; without
    it, by its own count.

    Each device augments and runs its own part inside `jax.shard_map`. Take the gradient of the
    function as a whole: inside, that of a replicated parameter would come out too large by the
    number of devices.
    """
    forward = make_forward(model, layout)

    def local(
        specs: Any,
        variables: Any,
        key: Any,
        step: Any,
        statistics: Any,
        batch: Batch,
        total: jax.Array | float,
    ) -> LossParts:
        keys = augment.ExampleKeys.at(key, batch.stream_position, augmentation.crop_group_size)
        images, _ = augment.training_view(keys, batch.images, statistics, augmentation, step)
        params = mark_varying(variables["params"], specs["params"])
        logits, batch_stats = forward({**variables, "params": params}, images, keys.dropout)
        metrics = sum_over_batch(measure(logits, batch.labels, batch.mask))
        count = jnp.maximum(jnp.maximum(metrics.count, total), 1.0)
        return metrics.loss / count, (metrics, batch_stats)

    def loss(
        params: Any, state: TrainState, batch: Batch, total: jax.Array | float = 0.0
    ) -> LossParts:
        variables = {"params": params, "batch_stats": state.batch_stats}
        specs = parameter_specs(variables, layout)
        return jax.shard_map(
            functools.partial(local, specs),
            mesh=layout.mesh,
            in_specs=(specs, P(), P(), P(), P("data"), P()),
            out_specs=(P(), (P(), specs["batch_stats"])),
        )(variables, state.key, state.step, state.statistics, batch, total)

    return loss


GradientParts = tuple[jax.Array, Metrics, Any, Any]


def make_gradient(
    loss_fn: Callable[..., LossParts], layout: Layout, accumulate: int
) -> Callable[[TrainState, Batch], GradientParts]:
    """Returns (state, batch) -> (loss, Metrics, batch statistics, gradients).

    With `accumulate` > 1 the batch is taken in so many parts one after the other, which needs the
    memory of one. Sums and gradients are those of the whole batch, but for batch norm, which
    normalizes each part by itself.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def whole(state: TrainState, batch: Batch) -> GradientParts:
        (loss, (metrics, batch_stats)), gradients = value_and_grad(state.params, state, batch)
        return loss, metrics, batch_stats, gradients

    def in_parts(state: TrainState, batch: Batch) -> GradientParts:
        parts, total = split_batch(batch, layout, accumulate)

        def add(sums: Any, part: Batch) -> tuple[Any, None]:
            batch_stats, *rest = sums
            now = dataclasses.replace(state, batch_stats=batch_stats)
            (loss, (metrics, batch_stats)), gradients = value_and_grad(
                state.params, now, part, total
            )
            added = jax.tree.map(jnp.add, tuple(rest), (loss, metrics, gradients))
            return (batch_stats, *added), None

        first = jax.tree.map(lambda rows: rows[0], parts)
        (loss, (metrics, _)), gradients = jax.eval_shape(
            value_and_grad, state.params, state, first, total
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, metrics, gradients))
        start = (state.batch_stats, *zeros)
        (batch_stats, loss, metrics, gradients), _ = lax.scan(
            add, start, parts, unroll=layout.unrolled
        )
        return loss, metrics, batch_stats, gradients

    return whole if accumulate == 1 else in_parts


def make_train_step(
    model: AlexNet,
    optimizer: optax.GradientTransformationExtraArgs,
    rates: dict[str, Rate],
    augmentation: augment.Augmentation,
    layout: Layout,
    log_every: int,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """Returns the pure step (state, batch) -> (state, log), for `jax.jit` to compile.

    Args:
      model: the net on one device.
      optimizer: of `make_optimizer`.
      rates: rows of the learning-rate table.
      augmentation: how pictures become input.
      layout: of `make_layout`.
      log_every: the window of metrics starts anew each time the step is a multiple of this.
      accumulate: parts of the batch taken one after the other; see `make_gradient`.

    Returns:
      The step. Its log holds `window` (Metrics since the last log line, this step included),
      `learning_rates` of the rows in use, `first_bad_step`, and `norms`: at the steps that are
      logged, for each parameter the L2 norms of gradient, parameter and update.
    """
    gradient_of = make_gradient(make_loss(model, augmentation, layout), layout, accumulate)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        loss, metrics, batch_stats, gradients = gradient_of(state, batch)
        row_rates, rate_of_each = _rates_at(state, rates)
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, rates=rate_of_each
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(updates))
        step = state.step + 1
        window = _add_to_window(state.window, metrics, starts=state.step % log_every == 0)
        new_state = dataclasses.replace(
            state,
            step=step,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            window=window,
            first_bad_step=jnp.where(
                (state.first_bad_step < 0) & ~finite, step, state.first_bad_step
            ),
        )
        log = {
            "window": window,
            "learning_rates": row_rates,
            "first_bad_step": new_state.first_bad_step,
            "norms": _norms((step % log_every == 0) & finite, gradients, state.params, updates),
        }
        return new_state, log

    return train_step


def _rates_at(state: TrainState, rates: dict[str, Rate]) -> tuple[dict[str, jax.Array], Any]:
    """Returns the learning rate of each row in use, and of each parameter by the row it matches."""
    patterns = {name: rate.pattern for name, rate in rates.items()}
    rows = jax.tree_util.tree_map_with_path(
        lambda path, _: row_of(patterns, parameter_path(path)), state.params
    )
    in_use = set(jax.tree.leaves(rows))
    now = {
        name: rate.at(state.step, state.plateau.scale)
        for name, rate in rates.items()
        if name in in_use
    }
    return now, jax.tree.map(lambda row: now[row], rows)


def _add_to_window(window: Metrics, metrics: Metrics, starts: jax.Array) -> Metrics:
    return jax.tree.map(lambda old, new: jnp.where(starts, 0, old) + new, window, metrics)


def _norm(array: jax.Array) -> jax.Array:
    """Without reshaping, so that each device adds up the part it has."""
    return jnp.sqrt(jnp.sum(jnp.square(array)))


def _norms(wanted: jax.Array, gradients: Any, params: Any, updates: Any) -> Norms:
    """Returns each parameter's norms where wanted, else zeros: they cost a pass over the net."""

    def compute() -> Norms:
        return {
            parameter_path(path): {
                "gradient": _norm(gradient),
                "parameter": _norm(parameter),
                "update": _norm(update),
            }
            for (path, gradient), parameter, update in zip(
                jax.tree_util.tree_leaves_with_path(gradients),
                jax.tree.leaves(params),
                jax.tree.leaves(updates),
                strict=True,
            )
        }

    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(compute))
    return lax.cond(wanted, compute, lambda: zeros)
