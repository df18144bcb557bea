"""The collectives of every strategy's compiled step: kind, number and bytes, and no others."""

from typing import Any

import pytest

from alexnet_jax.parallel.collective_bytes import Collective, collectives

BATCH, FLOAT = 16, 4
# The tiny model of 12 x 12 pixels: conv1 and its pool return 5 x 5 x 8, as do conv2 and conv3.
MAPS, HIDDEN, CLASSES = 5 * 5 * 8, 16, 7
CONVOLUTIONS = (25 * 8 + 8) + (9 * 4 * 8 + 8) + (9 * 8 * 8 + 8)
HEAD = HIDDEN * CLASSES + CLASSES
DENSE = (MAPS * HIDDEN + HIDDEN) + HEAD
METRICS = 4 * FLOAT  # loss, top-1, top-5 and count
KEYS = 2 * 4  # a random key
LARGEST_LOG = 40 * FLOAT  # norms of gradient, value and update of the sharded parameters


@pytest.fixture
def found(tiny_program: Any) -> Any:
    """Returns (strategy, devices) -> the collectives of its compiled step."""
    return lambda strategy, devices: collectives(tiny_program(strategy, devices, 1).as_text())


def test_one_device_sends_nothing(found: Any) -> None:
    assert found("single", 1) == {}


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_data_sums_gradients_once(devices: int, found: Any) -> None:
    sums = found("data", devices).pop("all-reduce")
    assert found("data", devices).keys() == {"all-reduce"}
    assert sums.bytes == FLOAT * (CONVOLUTIONS + DENSE) + METRICS
    assert sums.sent == 2 * (devices - 1) / devices * sums.bytes


def test_towers_gather_features_where_the_papers_do(found: Any) -> None:
    """Before conv3, fc4 and fc5; not at the logits, since both have all of the seven classes."""
    kinds = found("tower", 2)
    gathered = FLOAT * BATCH * (MAPS + MAPS + HIDDEN)
    assert kinds.pop("all-gather") == Collective(3, gathered, gathered / 2)
    assert kinds.pop("reduce-scatter") == Collective(3, gathered // 2, gathered / 2)
    sums = kinds.pop("all-reduce")
    assert 0 <= sums.bytes - FLOAT * HEAD <= METRICS + LARGEST_LOG
    assert not kinds


@pytest.mark.slow
def test_towers_and_data(found: Any) -> None:
    """Four devices: each pair gathers for half of the batch, and sums its half of the model."""
    kinds = found("tower", 4)
    gathered = FLOAT * BATCH // 2 * (MAPS + MAPS + HIDDEN)
    assert kinds.pop("all-gather") == Collective(3, gathered, gathered / 2)
    assert kinds.pop("reduce-scatter") == Collective(3, gathered // 2, gathered / 2)
    gradients = FLOAT * ((CONVOLUTIONS + DENSE - HEAD) // 2 + HEAD)
    sums = kinds.pop("all-reduce")
    assert gradients <= sums.bytes <= gradients + FLOAT * HEAD + METRICS + LARGEST_LOG
    assert not kinds


def test_hybrid_sends_activations_in_place_of_dense_gradients(found: Any) -> None:
    kinds = found("hybrid", 2)
    gathered = (
        FLOAT * BATCH * (MAPS + HIDDEN)
    )  # the features of the images, then the outputs of fc4
    assert kinds.pop("all-gather") == Collective(
        3, gathered + KEYS * BATCH, (gathered + KEYS * BATCH) / 2
    )
    assert kinds.pop("reduce-scatter") == Collective(2, gathered // 2, gathered / 2)
    sums = kinds.pop("all-reduce")
    assert 0 <= sums.bytes - FLOAT * (CONVOLUTIONS + HEAD) <= METRICS + LARGEST_LOG
    assert not kinds


def test_stages_send_micro_batches(found: Any, tiny_experiment: Any) -> None:
    parts = tiny_experiment("stage", 2).layout.micro_batches
    kinds = found("stage", 2)
    ticks = parts + 1
    permuted = 2 * ticks * FLOAT * (BATCH // parts) * MAPS
    assert kinds.pop("collective-permute") == Collective(2 * ticks, permuted, permuted)
    sums = kinds.pop("all-reduce")
    outputs = FLOAT * BATCH * CLASSES
    assert (
        0 <= sums.bytes - FLOAT * (CONVOLUTIONS + DENSE) - outputs <= 2 * METRICS
    )  # forward and backward
    assert not kinds


def test_both_notations_of_groups_and_loops() -> None:
    program = """
%body (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  ROOT %p = f32[4]{0} collective-permute(%x), source_target_pairs={{0,1}}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %a = f32[8]{0} all-reduce(%x), replica_groups=[1,4]<=[4], to_apply=%sum
  %b = (f32[2]{0}, bf16[2]{0}) all-reduce(%x, %x), replica_groups={{0,1},{2,3}}, to_apply=%sum
  %c = f32[8]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%sum
  ROOT %w = f32[4]{0} while(%x), condition=%c, body=%body, "known_trip_count":{"n":"3"}
}
"""
    assert collectives(program) == {
        "all-reduce": Collective(2, 32 + 12, 48 + 12),
        "collective-permute": Collective(3, 48, 48),
    }
