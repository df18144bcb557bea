"""The train step: a pure function of (state, batch)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.models import AlexNet, ModelSpec
from alexnet_jax.parallel.collectives import make_forward, mark_varying, split_batch, sum_over_batch
from alexnet_jax.parallel.mesh import Layout, parameter_specs
from alexnet_jax.preprocessing.augment import Augmentation, ExampleKeys, training_view
from alexnet_jax.training.metrics import Metrics, measure
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.state import TrainState

LossFn = Callable[..., tuple[jax.Array, tuple[Metrics, Any]]]
Norms = dict[str, dict[str, jax.Array]]  # parameter -> kind -> L2 norm


def make_loss(model: AlexNet, augmentation: Augmentation, layout: Layout) -> LossFn:
    """Returns (params, state, batch, total) -> (loss, (Metrics, batch statistics)), in training.

    The loss is the sum over the batch, divided by the number of its examples or by `total`, that of
    the whole batch of which it is a part.

    Each device augments and runs its own part inside `jax.shard_map`. Take the gradient of the
    function as a whole: inside, that of a replicated parameter would be too large by a factor of
    the number of devices.
    """
    forward = make_forward(model, layout)

    def loss_fn(
        params: Any, state: TrainState, batch: Batch, total: jax.Array | float = 0.0
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        specs = parameter_specs(variables, model.spec, layout)

        def local(variables: Any, draw: Any, batch: Batch, total: Any) -> Any:
            key, step, statistics = draw
            keys = ExampleKeys.at(key, batch.stream_position, augmentation.crop_group_size)
            images, _ = training_view(keys, batch.images, statistics, augmentation, step)
            params = mark_varying(variables["params"], specs["params"])
            logits, batch_stats = forward({**variables, "params": params}, images, keys.dropout)
            metrics = sum_over_batch(measure(logits, batch.labels, batch.mask))
            # The count is never above a given total: it is here so that the backward pass waits for
            # the collective of the metrics; see `make_train_step`.
            count = jnp.maximum(jnp.maximum(metrics.count, total), 1.0)
            return metrics.loss / count, (metrics, batch_stats)

        return jax.shard_map(
            local,
            mesh=layout.mesh,
            in_specs=(specs, P(), P("data"), P()),
            out_specs=(P(), (P(), specs["batch_stats"])),
        )(variables, (state.key, state.step, state.statistics), batch, total)

    return loss_fn


def without_gradient_of_frozen(loss_fn: LossFn, is_trained: Callable[[Any], Any]) -> LossFn:
    """Returns the same loss, whose gradient by frozen parameters is 0 and takes no computation.

    Nor is there a backward pass through layers below which nothing is trained.

    Args:
      loss_fn: from `make_loss`.
      is_trained: parameters -> whether each is trained, as a tree.
    """

    def loss(params: Any, *arguments: Any) -> Any:
        params = jax.tree.map(
            lambda trained, array: array if trained else lax.stop_gradient(array),
            *(is_trained(params), params),
        )
        return loss_fn(params, *arguments)

    return loss


class Gradient(NamedTuple):
    """What a batch yields: its loss, metrics, new batch statistics and gradients."""

    loss: jax.Array
    metrics: Metrics
    batch_stats: Any
    gradients: Any


GradientFn = Callable[[TrainState, Batch], Gradient]


def make_gradient(loss_fn: LossFn, layout: Layout, accumulate: int = 1) -> GradientFn:
    """Returns (state, batch) -> Gradient.

    With `accumulate` > 1 the batch is taken in that many parts, one after the other, in the memory
    of one part. Sums and gradients are those of the whole batch; batch norm, however, normalizes
    each part by itself.
    """
    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def of_part(state: TrainState, batch: Batch, total: jax.Array | float = 0.0) -> Gradient:
        (loss, (metrics, stats)), gradients = value_and_grad(state.params, state, batch, total)
        return Gradient(loss, metrics, stats, gradients)

    def accumulated(state: TrainState, batch: Batch) -> Gradient:
        parts, total = split_batch(batch, layout, accumulate)

        def add(sums: Gradient, part: Batch) -> tuple[Gradient, None]:
            now = dataclasses.replace(state, batch_stats=sums.batch_stats)
            new = of_part(now, part, total)
            added = jax.tree.map(jnp.add, sums, new)
            return added._replace(batch_stats=new.batch_stats), None

        first = jax.tree.map(lambda rows: rows[0], parts)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_part, state, first, total))
        start = zeros._replace(batch_stats=state.batch_stats)
        return lax.scan(add, start, parts, unroll=layout.unrolled)[0]

    return of_part if accumulate == 1 else accumulated


def make_train_step(
    spec: ModelSpec, gradient_of: GradientFn, optimizer: Optimizer, log_every: int
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]:
    """Returns the pure step (state, batch) -> (state, log), for `jax.jit` to compile.

    The log holds `window` (Metrics since the last log line, this step included), `learning_rates`
    of the rows in use, `first_bad_step`, and `norms`: at the steps that are logged, the L2 norms of
    each parameter's gradient, value and update.

    XLA starts a loop or a branch before the collectives of another one are done unless data flows
    from one to the other. With fewer cores than threads, devices then wait for each other in
    different collectives forever. So all loops and branches with collectives form one chain of data
    dependencies: metrics, gradients, finite check, norms.

    Args:
      spec: that of the model.
      gradient_of: from `make_gradient`.
      optimizer: the update rule and the learning rates.
      log_every: steps between two log lines: norms are computed at each multiple of it, and a new
        window of metrics begins after it.
    """
    rule = optimizer.rule(spec)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        loss, metrics, batch_stats, gradients = gradient_of(state, batch)
        learning_rates, rate_tree = optimizer.rates_at(
            spec, state.params, state.step, state.plateau.scale
        )
        updates, opt_state = rule.update(gradients, state.opt_state, state.params, rates=rate_tree)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(updates))
        step = state.step + 1
        begins_window = state.step % log_every == 0
        earlier = jax.tree.map(lambda total: jnp.where(begins_window, 0, total), state.window)
        is_first_bad = (state.first_bad_step < 0) & ~finite
        new_state = dataclasses.replace(
            state,
            step=step,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            window=jax.tree.map(jnp.add, earlier, metrics),
            first_bad_step=jnp.where(is_first_bad, step, state.first_bad_step),
        )
        is_logged = (step % log_every == 0) & finite
        log = {
            "window": new_state.window,
            "learning_rates": learning_rates,
            "first_bad_step": new_state.first_bad_step,
            "norms": _norms(is_logged, gradient=gradients, parameter=state.params, update=updates),
        }
        return new_state, log

    return train_step


def _norms(is_logged: jax.Array, **trees: Any) -> Norms:
    """Returns the norms of each parameter if logged, else zeros: they take a pass over all."""

    def compute() -> Norms:
        # not by `jnp.linalg.norm`, whose reshaping would gather a sharded array
        by_kind = jax.tree.map(lambda array: jnp.sqrt(jnp.sum(jnp.square(array))), trees)
        norms: Norms = {}
        for (kind, *path), norm in flatten_dict(by_kind).items():
            norms.setdefault("/".join(path), {})[kind] = norm
        return norms

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(compute))
    return lax.cond(is_logged, compute, lambda: zeros)
