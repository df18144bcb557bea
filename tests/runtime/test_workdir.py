"""The files of a run: one owner, one config, and nothing half-written."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax import schema
from alexnet_jax.config.checks import changed_keys
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.runtime.workdir import Workdir

CONFIG = schema.defaults(SCHEMA)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The default config with another value in one place."""
    tree, mistakes = schema.merge(SCHEMA, {path: value})
    assert not mistakes
    return tree


def line(step: int, split: str, top1: float) -> dict[str, Any]:
    numbers = dict.fromkeys(("epoch", "loss", "top5", "count", "images_per_second"), 1)
    return {"step": step, "split": split, **numbers, "top1": top1, "norms": {"conv1": 1.0}}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def trained(folder: Path, config: Any = CONFIG) -> Workdir:
    """A workdir with a checkpoint."""
    workdir = Workdir(folder)
    workdir.create_or_resume(config, changed_keys)
    (folder / "checkpoints" / "3").mkdir(parents=True)
    return workdir


def test_a_new_folder_is_created_with_the_whole_config(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "deep" / "run")
    with workdir.lock():
        workdir.create_or_resume(CONFIG, changed_keys)
        assert files(workdir.path).keys() == {"config.json", "lock"}
        assert workdir.read_config() == json.loads(json.dumps(CONFIG))
        workdir.create_or_resume(CONFIG, changed_keys)  # the same run resumes


# ---- One program at a time


def test_a_second_program_is_refused_with_the_holder_of_the_lock(tmp_path: Path) -> None:
    with Workdir(tmp_path).lock():
        for _ in range(2):
            with pytest.raises(InputError) as caught, Workdir(tmp_path).lock():
                pass
            assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
        with Workdir(tmp_path, writes=False).lock():  # another process of the same run
            pass
    with Workdir(tmp_path).lock():
        pass


def test_the_lock_of_a_dead_program_is_free(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\n"
        "from alexnet_jax.runtime.workdir import Workdir\n"
        "with Workdir(pathlib.Path(sys.argv[1])).lock(): os.kill(os.getpid(), 9)"
    )
    process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert process.returncode == -9
    assert (tmp_path / "lock").read_text()
    with Workdir(tmp_path).lock():
        pass


@pytest.mark.parametrize(
    "name",
    [
        "a[b]c",
        "back\\slash",
        "gs:",
        "new\nline",
        "\x1b[31m",
        b"\xff".decode("utf8", "surrogateescape"),
    ],
)
def test_a_path_that_orbax_cannot_read_again_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="workdir"), Workdir(tmp_path / name).lock():
        pass
    assert not list(tmp_path.iterdir())


def test_a_path_too_long_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path.joinpath(*["x" * 200] * 19)):
        with pytest.raises(InputError, match="workdir"), Workdir(path).lock():
            pass


# ---- One config


@pytest.mark.parametrize(
    ("path", "value", "there", "now"),
    [
        ("seed", 1, "0", "1"),
        ("train.batch_size", 64, "128", "64"),
        ("model.num_classes", 10, "None", "10"),
        ("optimizer.rates.weights.boundaries", ("1 epoch",), "()", "('1 epoch',)"),
    ],
)
def test_another_config_is_refused_and_nothing_is_lost(
    tmp_path: Path, path: str, value: Any, there: str, now: str
) -> None:
    workdir = trained(tmp_path)
    workdir.append_metrics(line(1, "val", 0.5))
    workdir.write_status("done", step=1, exit_code=0)
    before = files(tmp_path)
    with pytest.raises(InputError) as caught:
        Workdir(tmp_path).create_or_resume(changed(path, value), changed_keys)
    assert f"\n  {path}: {there} there, {now} now\n" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "--workdir" in str(caught.value)
    assert f"train.init_from={tmp_path}" in str(caught.value)
    assert files(tmp_path) == before


def test_every_difference_is_shown_and_a_row_more_is_one(tmp_path: Path) -> None:
    trained(tmp_path)
    other = changed("optimizer.rates.conv1.pattern", "conv1")
    other["seed"] = 4
    other["data"] = {**other["data"], "threads": 9}  # may change
    with pytest.raises(InputError) as caught:
        Workdir(tmp_path).create_or_resume(other, changed_keys)
    shown = [text.strip() for text in str(caught.value).splitlines()[1:-1]]
    keys = [text.partition(":")[0] for text in shown]
    assert keys == ["optimizer.rates.conv1.pattern", "seed"]


MUTABLE = {
    "job": "evaluate",
    "data.root": "elsewhere",
    "data.threads": 7,
    "train.stuck_after": "1 step",
    "checkpoint.keep": 7,
    "evaluation.scales": (256, 288),
    "parallel.strategy": "tower",
    "prepare.format": "raw",
}


@pytest.mark.parametrize("path", MUTABLE)
def test_keys_that_may_change_do(tmp_path: Path, path: str) -> None:
    trained(tmp_path)
    other = changed(path, MUTABLE[path])
    assert other != CONFIG
    Workdir(tmp_path).create_or_resume(other, changed_keys)
    assert Workdir(tmp_path).read_config() == json.loads(json.dumps(other))


def test_a_key_of_a_later_version_was_at_its_default(tmp_path: Path) -> None:
    earlier = json.loads(json.dumps(CONFIG))
    del earlier["data"]["holdout"]
    trained(tmp_path, earlier)
    with pytest.raises(InputError, match=r"data\.holdout: 0\.1 there, 0\.2 now"):
        Workdir(tmp_path).create_or_resume(changed("data.holdout", 0.2), changed_keys)
    Workdir(tmp_path).create_or_resume(CONFIG, changed_keys)
    assert Workdir(tmp_path).read_config() == json.loads(json.dumps(CONFIG))


@pytest.mark.parametrize("schedule", ["constant", "step", "plateau", "dexp"])
def test_a_run_is_extended_unless_a_rate_depends_on_its_length(
    tmp_path: Path, schedule: str
) -> None:
    config = changed("optimizer.rates.biases.schedule", schedule)
    trained(tmp_path, config)
    longer = {**config, "train": {**config["train"], "duration": "100 epochs"}}
    if schedule != "dexp":
        Workdir(tmp_path).create_or_resume(longer, changed_keys)
        assert Workdir(tmp_path).read_config()["train"]["duration"] == "100 epochs"
        return
    with pytest.raises(InputError, match=r"train\.duration"):
        Workdir(tmp_path).create_or_resume(longer, changed_keys)


def test_a_run_without_a_checkpoint_takes_any_config(tmp_path: Path) -> None:
    Workdir(tmp_path).create_or_resume(CONFIG, changed_keys)
    Workdir(tmp_path).create_or_resume(changed("seed", 1), changed_keys)
    assert Workdir(tmp_path).read_config()["seed"] == 1


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="file"), Workdir(path).lock():
            pass


@pytest.mark.parametrize("text", [None, '{"seed": 1', "[]", "\udcff"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        data = text.encode("utf8", "surrogateescape")
        (tmp_path / "config.json").write_bytes(data)
        with pytest.raises(InputError, match=r"config\.json"):
            Workdir(tmp_path).create_or_resume(CONFIG, changed_keys)
        assert (tmp_path / "config.json").read_bytes() == data
    with pytest.raises(InputError, match=r"config\.json"):
        Workdir(tmp_path).read_config()


def test_metrics_and_status(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    assert workdir.read_metrics() == []
    lines = [line(1, "train", 0.1), line(2, "val", 0.3), line(4, "train", 0.2), line(4, "val", 0.2)]
    for each in lines:
        workdir.append_metrics(each)
    assert Workdir(tmp_path).read_metrics() == lines

    def brief(each: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in each.items() if name != "norms"}

    for again in (workdir, Workdir(tmp_path)):  # the second has only the file to go by
        again.write_status("running", step=None, message="on its way")
        assert json.loads((tmp_path / "status.json").read_text()) == {
            "status": "running",
            "step": 4,
            "exit_code": None,
            "message": "on its way",
            "best": brief(lines[1]),
            "last": {"train": brief(lines[2]), "val": brief(lines[3])},
        }
    workdir.write_status("failed", step=3, exit_code=2)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["step"], status["exit_code"]) == (3, 2)


def test_lines_after_a_step_are_dropped(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.truncate_metrics(0)  # there is no file yet
    lines = [line(2, "val", 0.1), line(3, "train", 0.5), line(4, "val", 0.9)]
    for each in lines:
        workdir.append_metrics(each)
    workdir.truncate_metrics(3)
    assert workdir.read_metrics() == lines[:2]
    workdir.write_status("running", step=None)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["step"], status["best"]["top1"]) == (3, 0.1)
    workdir.truncate_metrics(-1)
    assert workdir.read_metrics() == []
    workdir.write_status("running", step=None)
    assert json.loads((tmp_path / "status.json").read_text())["best"] is None


def test_of_equal_evaluations_the_first_is_the_best(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    for step in (2, 4):
        workdir.append_metrics(line(step, "val", 0.5))
    assert workdir.best is not None
    assert workdir.best["step"] == 2


@pytest.mark.parametrize(
    "damage", ["{oh", "[]", "3", '{"step": 4}', '{"split": "val"}', "\udcff", '{"step": "x"}']
)
def test_an_odd_line_is_refused_and_a_last_one_cut_short_left_out(
    tmp_path: Path, damage: str
) -> None:
    complete = json.dumps(line(1, "val", 0.5)) + "\n"
    (tmp_path / "metrics.jsonl").write_text(complete + complete[:20])
    assert Workdir(tmp_path).read_metrics() == [line(1, "val", 0.5)]
    text = f"{complete}{damage}\n{complete}".encode("utf8", "surrogateescape")
    (tmp_path / "metrics.jsonl").write_bytes(text)
    with pytest.raises(InputError, match=r"2 of .*metrics.jsonl"):
        Workdir(tmp_path)


def test_a_write_that_fails_leaves_the_old_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        assert path.read_text() == "old"
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert files(tmp_path) == {"status.json": b"new"}
