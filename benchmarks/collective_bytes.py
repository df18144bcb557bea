"""Bytes that two devices exchange in a step of the paper's model: by formula, and as compiled.

    python -m benchmarks.collective_bytes [--batch_size=128] [--figure=docs/collective_bytes.png]

The formulas count what each scheme has to send, from the layer table alone. The other numbers are
read from the collectives of the compiled step, including metrics and norms of the log. Bytes are
those that each device sends in a step if results are passed around a ring.
"""

import json
from typing import Any

from absl import flags

import benchmarks
from alexnet_jax.experiment import Experiment
from alexnet_jax.models import layers
from alexnet_jax.models.summary import layer_table
from alexnet_jax.parallel.collective_bytes import Collective, collectives
from alexnet_jax.plots import style
from alexnet_jax.runtime import devices

_BATCH = flags.DEFINE_integer(
    "batch_size", 128, "Images per step, over both devices.", lower_bound=2
)
_FIGURE = flags.DEFINE_string("figure", None, "File to plot the result to; None: no plot.")

STRATEGIES = ("data", "tower", "hybrid", "stage")
DEVICES, CLASSES, FLOAT = 2, 1000, 4
Parts = dict[str, float]  # "parameters" and "activations" -> bytes


def formulas(experiment: Experiment) -> Parts:
    """Returns the bytes that a strategy has to send, from the sizes of the layers.

    For an array gathered from n parts, each device sends (n - 1) / n of it; its gradient goes back
    the same way. Gradients of replicated parameters are summed and distributed: twice (n - 1) / n.
    """
    spec, batch = experiment.model.spec, experiment.batch_size
    rows = {row.name: row for row in layer_table(spec, CLASSES)}
    dense = [layer.name for layer in spec.layers if isinstance(layer, layers.Dense)]
    maps = {name: _size(rows[name].output) for name in rows}
    share = (DEVICES - 1) / DEVICES
    everything = sum(row.parameters for row in rows.values())
    in_dense = sum(rows[name].parameters for name in dense)
    outputs = sum(maps[name] for name in dense)  # of fc6, fc7 and fc8
    sums = 2 * share * FLOAT  # bytes for each replicated parameter
    gathered = 2 * share * FLOAT * batch  # for each gathered number of an image
    return {
        "data": {"parameters": sums * everything, "activations": 0.0},
        "tower": {
            "parameters": 0.0,
            "activations": gathered * (maps["pool2"] + maps["pool5"] + outputs),
        },
        "hybrid": {
            "parameters": sums * (everything - in_dense),
            "activations": gathered * (maps["pool5"] + outputs),
        },
        # both stages hold all parameters: gradients are summed though one of them is zero
        "stage": {
            "parameters": sums * everything,
            "activations": 2 * FLOAT * batch * maps["pool5"] + 2 * share * FLOAT * batch * CLASSES,
        },
    }[experiment.layout.strategy]


def _size(shape: tuple[int, ...]) -> int:
    height, width, channels = (*(1, 1), *shape)[-3:]
    return height * width * channels


def measured(experiment: Experiment) -> dict[str, Collective]:
    """Returns the collectives of the compiled step by kind."""
    program = experiment.compile_train_step(experiment.abstract_state())
    return collectives(program.as_text() or "")


@style.styled
def plot(results: dict[str, dict[str, Any]], batch_size: int, path: str) -> None:
    """Plots formula and program side by side for each strategy."""
    figure = style.Figure(figsize=(7.0, 3.2))
    axes = figure.add_subplot()
    for row, (strategy, result) in enumerate(results.items()):
        bars = {"formula": sum(result["formula"].values()), "program": result["sent"]}
        for shift, (kind, size), color in zip(
            (-0.17, 0.17), bars.items(), (style.SKY_BLUE, style.BLUE), strict=True
        ):
            label = kind if row == 0 else None
            axes.barh(row + shift, size / 1e6, height=0.32, color=color, label=label)
            axes.text(size / 1e6 + 2, row + shift, f"{size / 1e6:,.2f}", va="center", size=8)
        axes.text(-2, row, strategy, ha="right", va="center")
    axes.set(yticks=[], xlabel=f"MB that each of two devices sends in a step of {batch_size}")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend(loc="center right")
    axes.set_title("The paper's model: bytes required by each scheme, and sent by the program")
    style.save(figure, path)


def main(_: list[str]) -> None:
    """Compiles each strategy, prints the numbers, and plots them."""
    devices.set_up(cpu_devices=DEVICES, use_cache=True)
    results: dict[str, dict[str, Any]] = {}
    for strategy in STRATEGIES:
        experiment = benchmarks.paper_experiment(
            strategy, _BATCH.value, f"parallel.devices={DEVICES}"
        )
        found = measured(experiment)
        results[strategy] = {
            "formula": formulas(experiment),
            "sent": sum(kind.sent for kind in found.values()),
            "collectives": {name: [kind.count, kind.bytes] for name, kind in found.items()},
        }
        print(strategy, results[strategy])
    if _FIGURE.value:
        plot(results, _BATCH.value, _FIGURE.value)
    print(json.dumps({"batch_size": _BATCH.value, **results}))


if __name__ == "__main__":
    benchmarks.run(main)
