"""The collectives of a step are ordered by data, so that devices never wait crosswise.

XLA runs the collectives of one computation in its order. A loop or branch that holds collectives is
only started in that order: without a data dependency, a collective that follows can overtake those
inside, on one device and not on the other, and both wait forever.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.evaluation import step
from alexnet_jax.training.schedule import Rate

ROOT = Path(__file__).parents[2]
COLLECTIVE = r"\b(?:all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)\("
CALLED = r"(?:body|true_computation|false_computation)=%?([\w.\-]+)"


def computations(program: str) -> dict[str, dict[str, str]]:
    """Returns {computation: {instruction: its text}} of an HLO program."""
    found: dict[str, dict[str, str]] = {}
    for line in program.splitlines():
        if match := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line):
            current = found.setdefault(match[1], {})
        elif match := re.match(r"\s+(?:ROOT )?%([\w.\-]+) = (.*)", line):
            current[match[1]] = match[2].partition("metadata=")[0]
    return found


def unordered(program: str) -> list[tuple[str, str]]:
    """Returns pairs of a loop or branch with collectives, and what it is not ordered with."""
    bodies = computations(program)

    def holds_collectives(text: str) -> bool:
        called = re.findall(CALLED, text)
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", text):
            called += [name.strip().lstrip("%") for name in branches.split(",")]
        inside = [line for name in called for line in bodies[name].values()]
        return any(re.search(COLLECTIVE, line) or holds_collectives(line) for line in inside)

    pairs = []
    for body in bodies.values():
        needs: dict[str, set[str]] = {}  # all that an instruction depends on
        for name, text in body.items():
            direct = set(re.findall(r"%([\w.\-]+)", text)) & needs.keys()
            needs[name] = direct.union(*(needs[other] for other in direct))
        flows = [name for name, text in body.items() if holds_collectives(text)]
        single = [
            name
            for name, text in body.items()
            if re.search(COLLECTIVE, text) and "replica_groups={{0},{1}}" not in text
        ]
        for index, flow in enumerate(flows):
            for other in (*flows[index + 1 :], *single):
                if flow not in needs[other] and other not in needs[flow]:
                    pairs.append((flow, other))
    return pairs


def test_an_overtaking_collective_is_found() -> None:
    program = """
%body (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %p = f32[4]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%sum
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %before = f32[8]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%sum
  %loop = f32[4]{0} while(%before), condition=%c, body=%body
  %beside = f32[8]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%sum
  %alone = f32[8]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%sum
  ROOT %after = f32[8]{0} all-reduce(%loop), replica_groups={{0,1}}, to_apply=%sum
}
"""
    assert unordered(program) == [("loop", "beside")]


@pytest.mark.parametrize(
    ("strategy", "accumulate"),
    [
        *(("data", 1), ("tower", 1), ("hybrid", 1), ("stage", 1), ("tower", 2)),
        *(
            pytest.param(strategy, accumulate, marks=pytest.mark.slow)
            for strategy in ("data", "tower", "hybrid", "stage")
            for accumulate in (2, 4)
            if (strategy, accumulate) != ("tower", 2)
        ),
    ],
)
def test_loops_and_branches_wait_for_collectives(
    strategy: str, accumulate: int, tiny_program: Any
) -> None:
    program = tiny_program(strategy, 2, accumulate).as_text()
    assert re.search(COLLECTIVE, program)
    assert unordered(program) == []


@pytest.mark.parametrize(
    "strategy",
    [
        "tower",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("data", "hybrid", "stage")),
    ],
)
@pytest.mark.parametrize("frozen", ["Conv/", pytest.param("Dense/", marks=pytest.mark.slow)])
def test_frozen_layers_keep_the_order(strategy: str, frozen: str, tiny_experiment: Any) -> None:
    experiment = tiny_experiment(strategy, 2)
    rates = {"frozen": Rate(frozen, (), (0.0,)), **experiment.optimizer.rates}
    optimizer = dataclasses.replace(experiment.optimizer, rates=rates)
    experiment = dataclasses.replace(experiment, optimizer=optimizer)
    program = experiment.compile_train_step(experiment.abstract_state()).as_text()
    assert re.search(COLLECTIVE, program)
    assert unordered(program) == []


@pytest.mark.parametrize(
    ("strategy", "devices", "view"),
    [
        ("hybrid", 2, "ten_crops"),
        pytest.param("tower", 2, "dense", marks=pytest.mark.slow),
        *(
            pytest.param(strategy, 4, view, marks=pytest.mark.slow)
            for strategy in ("data", "tower", "hybrid", "stage")
            for view in ("center", "ten_crops", "dense")
        ),
    ],
)
def test_an_evaluation_waits_for_the_collectives_of_its_loops(
    strategy: str,
    devices: int,
    view: str,
    tiny_experiment: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "one_at_a_time", lambda jitted: jitted)
    experiment = tiny_experiment(strategy, devices)
    state, batch = experiment.abstract_state(), experiment.abstract_batch()
    jitted: Any = step.jit_eval_step(
        experiment.model, experiment.augmentation, experiment.layout, view
    )
    program = jitted.lower(state.variables, state.statistics, batch).compile().as_text()
    assert re.search(COLLECTIVE, program)
    assert unordered(program) == []


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["tower", "stage"])
def test_logged_steps_never_hang(strategy: str, tmp_path: Path) -> None:
    """The norms of each step, while its finite check is on its way; XLA ends a hang after 40 s."""
    options = (
        *(f"parallel.strategy={strategy}", "parallel.cpu_devices=2", "train.accumulate=2"),
        *("train.batch_size=40", "train.duration=150 steps", "train.log_every=1 steps"),
        *("augment.mean=channel", "augment.random_crop=False", "model.dropout=0.0"),
        *("optimizer.rates.weights.rate=1e-5", "optimizer.rates.biases.rate=1e-5"),
        *("parallel.micro_batches=4", "data.eval_split=val[:40]"),
    )
    command = [sys.executable, "-m", "alexnet_jax.main", f"--config={ROOT}/configs/quickstart.py"]
    subprocess.run(
        [*command, f"--workdir={tmp_path}/run", *(f"--config.{option}" for option in options)],
        env={**os.environ, "XLA_FLAGS": ""},
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
