"""The program from outside: exit codes, messages, and what is left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
PAPER = f"--config={ROOT}/configs/paper.py"
FOLDER = ("--config.data.source=folder", "--config.data.root={tmp}/images")
RunMain = Callable[..., tuple[int, str, str]]

# Wrong commands, and what the message must name. {tmp} is an empty folder except for syntax.py, a
# config file with a syntax error, and images/train/cat, an empty class folder.
WRONG = [
    ([], ["--config"]),
    (["--confg=x"], ["--confg", "'--config'"]),
    (["--config={tmp}/absent.py"], ["{tmp}/absent.py"]),
    (["--config={tmp}/syntax.py"], ["syntax.py", "SyntaxError", "line 1"]),
    ([f"{PAPER}:smok"], ["'smok'", "smoke"]),
    (
        [
            *(QUICKSTART, "--workdri=x", "--config.optimizr.momentum=0.9", "--config.seed=x"),
            *("--config.train.batch_size=101", "--config.data.channels=3", "--config.job=trian"),
        ],
        [
            *("--workdri", "'--workdir'", "optimizr.momentum", "'optimizer.momentum'", "seed"),
            *("job", "'train'", "train.batch_size", "data.channels"),
        ],
    ),
    ([QUICKSTART, "--config.parallel.devices=9"], ["parallel.devices"]),
    ([QUICKSTART, "--config.data.train_split=tarin"], ["'tarin'"]),
    ([QUICKSTART, "--config.data.eval_split=val[:x]"], ["'val[:x]'"]),
    ([QUICKSTART, "--config.model.num_classes=5"], ["model.num_classes"]),
    ([QUICKSTART, "--config.model.layers.fc8.features=5"], ["model.layers.fc8.features"]),
    ([QUICKSTART, "--config.job=evaluate"], ["{tmp}/run"]),
    ([PAPER, "--config.data.source=folder"], ["data.root"]),
    (
        [PAPER, "--config.data.source=folder", "--config.data.root={tmp}/absent"],
        ["{tmp}/absent"],
    ),
    ([PAPER, *FOLDER], ["{tmp}/images/train"]),
    ([PAPER, "--config.data.root={tmp}/records"], ["imagenet2012", "{tmp}/records"]),
]


@pytest.mark.parametrize(("args", "contained"), WRONG)
def test_a_wrong_command_is_one_message_and_leaves_nothing(
    run_main: RunMain, tmp_path: Path, args: list[str], contained: list[str]
) -> None:
    (tmp_path / "syntax.py").write_text("def get_config(:")
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    args = [arg.format(tmp=tmp_path) for arg in args]
    code, output, errors = run_main(*args, f"--workdir={tmp_path}/run")
    assert (code, output) == (2, "")
    assert errors.startswith("error: ")
    for text in contained:
        assert text.format(tmp=tmp_path) in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "args",
    [
        ["--config.seed=7", "--config.checkpoint.keep=5"],  # another run than the one in there
        ["--config.seed=x"],
        ["--config.data.train_split=tarin"],
        ["--config.model.num_classes=5"],
        ["--config.job=summary"],
        ["--dry_run", "--config.data.eval_split=tarin"],
    ],
)
def test_a_command_that_ends_early_leaves_a_run_as_it_is(
    run_main: RunMain, short_quickstart: tuple[str, ...], finished_run: Path, args: list[str]
) -> None:
    before = contents(finished_run)
    run_main(*short_quickstart, *args, f"--workdir={finished_run}")
    assert contents(finished_run) == before


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_with_mutable_keys(
    run_main: RunMain, short_quickstart: tuple[str, ...], finished_run: Path, tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    code, output, _ = run_main(
        *short_quickstart,
        *("--config.checkpoint.keep=5", "--config.data.threads=1"),
        f"--workdir={workdir}",
    )
    assert code == 0
    assert "4 of 4 steps" in " ".join(output.split())
    assert json.loads((workdir / "config.json").read_text())["checkpoint"]["keep"] == 5
    assert (workdir / "metrics.jsonl").read_bytes() == (finished_run / "metrics.jsonl").read_bytes()
    status = json.loads((workdir / "status.json").read_text())
    assert (status["status"], status["step"], status["exit_code"]) == ("done", 4, 0)


def test_an_internal_error_keeps_its_traceback(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With it Python exits with 1, so that it can be reported."""
    from alexnet_jax.jobs import summary

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(summary, "run", fail)
    with pytest.raises(ZeroDivisionError):
        run_main(QUICKSTART, "--config.job=summary")
