"""What two devices send each other in a step of the paper's net: by formula, and as compiled.

    python -m benchmarks.collective_bytes [--batch_size=128] [--picture=docs/collective_bytes.png]

The formulas count what each scheme has to send from the layer table alone. The other figures are
read from the collectives of the compiled step, metrics and norms of the log included. Bytes are
those that each device sends in a step, results being passed round a ring.
"""

import json
from typing import Any

from absl import flags

import benchmarks
from alexnet_jax.config import command_line
from alexnet_jax.experiment import Experiment
from alexnet_jax.models import layers
from alexnet_jax.models.summary import layer_table
from alexnet_jax.parallel.collective_bytes import Collective, collectives
from alexnet_jax.plots import style
from alexnet_jax.runtime import devices

_BATCH = flags.DEFINE_integer("batch_size", 128, "Pictures of a step over both.", lower_bound=2)
_PICTURE = flags.DEFINE_string("picture", None, "Where to draw the result; None: nowhere.")

STRATEGIES = ("data", "tower", "hybrid", "stage")
DEVICES, CLASSES, FLOAT = 2, 1000, 4
Parts = dict[str, float]  # "parameters" and "activations" -> bytes


def experiment_of(strategy: str, batch_size: int) -> Experiment:
    """Returns the paper's training on two devices."""
    words = [
        "--config=configs/paper.py",
        f"--config.parallel.strategy={strategy}",
        f"--config.parallel.devices={DEVICES}",
        f"--config.train.batch_size={batch_size}",
    ]
    command = command_line.parse_valid(words)
    return Experiment.from_config(command.config, CLASSES, 1_281_167)


def formulas(experiment: Experiment) -> Parts:
    """Returns the bytes that a strategy has to send, from the sizes of the layers.

    What is whole on each device after being joined from n parts was sent by each in (n - 1) / n;
    its gradient goes back the same way. Gradients of parameters that all hold are added up and
    handed round: twice (n - 1) / n.
    """
    spec, batch = experiment.model.spec, experiment.batch_size
    rows = {row.name: row for row in layer_table(spec, CLASSES)}
    dense = [layer.name for layer in spec.layers if isinstance(layer, layers.Dense)]
    maps = {name: _size(rows[name].output) for name in rows}
    share = (DEVICES - 1) / DEVICES
    everything = sum(row.parameters for row in rows.values())
    in_dense = sum(rows[name].parameters for name in dense)
    outputs = sum(maps[name] for name in dense)  # of fc6, fc7 and fc8
    sums = 2 * share * FLOAT  # bytes for each parameter that all hold
    joined = 2 * share * FLOAT * batch  # for each number of a picture that is joined
    return {
        "data": {"parameters": sums * everything, "activations": 0.0},
        "tower": {
            "parameters": 0.0,
            "activations": joined * (maps["pool2"] + maps["pool5"] + outputs),
        },
        "hybrid": {
            "parameters": sums * (everything - in_dense),
            "activations": joined * (maps["pool5"] + outputs),
        },
        # the stages share arrays of one layout: gradients are added up though one of them is zero
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
def draw(results: dict[str, dict[str, Any]], batch_size: int, path: str) -> None:
    """Draws formula and program side by side for each strategy."""
    figure = style.Figure(figsize=(7.0, 3.2))
    axes = figure.add_subplot()
    for place, (strategy, result) in enumerate(results.items()):
        bars = {"formula": sum(result["formula"].values()), "program": result["sent"]}
        for shift, (kind, size), color in zip(
            (-0.17, 0.17), bars.items(), (style.SKY_BLUE, style.BLUE), strict=True
        ):
            label = kind if place == 0 else None
            axes.barh(place + shift, size / 1e6, height=0.32, color=color, label=label)
            axes.text(size / 1e6 + 2, place + shift, f"{size / 1e6:,.2f}", va="center", size=8)
        axes.text(-2, place, strategy, ha="right", va="center")
    axes.set(yticks=[], xlabel=f"MB that each of two devices sends in a step of {batch_size}")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend(loc="center right")
    axes.set_title("The paper's net: what the schemes have to send, and what is sent")
    style.save(figure, path)


def main(_: list[str]) -> None:
    """Compiles each strategy, prints the figures, and draws them."""
    devices.set_up(cpu_devices=DEVICES, use_cache=True)
    results: dict[str, dict[str, Any]] = {}
    for strategy in STRATEGIES:
        experiment = experiment_of(strategy, _BATCH.value)
        found = measured(experiment)
        results[strategy] = {
            "formula": formulas(experiment),
            "sent": sum(kind.sent for kind in found.values()),
            "collectives": {name: [kind.count, kind.bytes] for name, kind in found.items()},
        }
        print(strategy, results[strategy])
    if _PICTURE.value:
        draw(results, _BATCH.value, _PICTURE.value)
    print(json.dumps({"batch_size": _BATCH.value, **results}))


if __name__ == "__main__":
    benchmarks.run(main)
