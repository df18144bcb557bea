"""The program from outside: exit codes, messages, and what is left behind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
PAPER = f"--config={ROOT}/configs/paper.py"
FOLDER = ("--config.data.source=folder", "--config.data.root={tmp}/pictures")
RunMain = Callable[..., tuple[int, str, str]]

# What a user types wrongly, and what the message must contain. {tmp} is an empty folder but for
# syntax.py, a config file with a syntax error, and pictures/train/cat, an empty class folder.
WRONG = [
    ([], ["--config="]),
    (["--confg=x"], ["--confg=x", "'--config'?"]),
    (["--config={tmp}/absent.py"], ["{tmp}/absent.py"]),
    (["--config={tmp}/syntax.py"], ["syntax.py", "line 1"]),
    ([f"{PAPER}:smok"], ["smoke"]),
    ([QUICKSTART, "--config.train.batchsize=3"], ["(1)", "train.batchsize"]),
    (
        [
            *(QUICKSTART, "--workdri=x", "--config.optimizr.momentum=0.9", "--config.seed=x"),
            *("--config.train.batch_size=101", "--config.data.channels=3", "--config.job=trian"),
        ],
        [
            "(6)",
            *("\n  --workdri=x:", "\n  optimizr.momentum:", "\n  seed:", "\n  job:"),
            *("\n  train.batch_size:", "\n  data.channels:"),
        ],
    ),
    ([QUICKSTART, "--config.parallel.devices=9"], ["parallel.devices"]),
    ([QUICKSTART, "--config.data.train_split=tarin"], ["tarin", "train_split=train"]),
    ([QUICKSTART, "--config.data.eval_split=val[:x]"], ["val[:x]"]),
    ([QUICKSTART, "--config.model.num_classes=5"], ["model.num_classes"]),
    ([QUICKSTART, "--config.job=evaluate"], ["{tmp}/run", "config.json"]),
    ([PAPER, "--config.data.source=folder"], ["data.root"]),
    (
        [PAPER, "--config.data.source=folder", "--config.data.root={tmp}/absent"],
        ["{tmp}/absent"],
    ),
    ([PAPER, *FOLDER], ["{tmp}/pictures/train"]),
    (
        [PAPER, "--config.data.root={tmp}/records"],
        ["{tmp}/records", "ILSVRC2012_img_train.tar", "tensorflow_datasets"],
    ),
]


@pytest.mark.parametrize(("words", "contained"), WRONG)
def test_a_users_mistake_is_one_clear_message(
    run_main: RunMain, tmp_path: Path, words: list[str], contained: list[str]
) -> None:
    (tmp_path / "syntax.py").write_text("def get_config(:")
    (tmp_path / "pictures" / "train" / "cat").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    words = [word.format(tmp=tmp_path) for word in words]
    code, output, errors = run_main(*words, f"--workdir={tmp_path}/run")
    assert (code, output) == (2, "")
    assert errors.startswith("error: ")
    for text in contained:
        assert text.format(tmp=tmp_path) in errors
    assert "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_imagenet_takes_three_lines(run_main: RunMain, tmp_path: Path) -> None:
    for more in ([], ["--dry_run"]):
        code, _, errors = run_main(PAPER, f"--config.data.root={tmp_path}", *more)
        assert code == 2
        assert len(errors.splitlines()) == 3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_with_another_config_is_refused_and_kept_as_it_is(
    run_main: RunMain, short_quickstart: tuple[str, ...], finished_run: Path
) -> None:
    before = contents(finished_run)
    code, _, errors = run_main(
        *short_quickstart,
        *("--config.seed=7", "--config.checkpoint.keep=5", "--config.train.duration=9 steps"),
        f"--workdir={finished_run}",
    )
    assert code == 2
    assert errors.startswith(f"error: The workdir {finished_run} holds a run with another config:")
    assert "\n  seed: 0 there, 7 now\n" in errors
    assert "\n  train.duration: '4 steps' there, '9 steps' now\n" in errors
    assert "checkpoint.keep: " not in errors
    assert "Traceback" not in errors
    assert contents(finished_run) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--config.seed=x"],
        ["--config.data.train_split=tarin"],
        ["--config.model.num_classes=5"],
        ["--config.job=summary"],
        ["--dry_run", "--config.data.eval_split=tarin"],
    ],
)
def test_what_ends_early_leaves_a_run_as_it_is(
    run_main: RunMain, short_quickstart: tuple[str, ...], finished_run: Path, words: list[str]
) -> None:
    before = contents(finished_run)
    run_main(*short_quickstart, *words, f"--workdir={finished_run}")
    assert contents(finished_run) == before


def test_a_finished_run_is_not_run_again_with_what_may_change(
    run_main: RunMain, short_quickstart: tuple[str, ...], finished_run: Path, tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    code, output, errors = run_main(
        *short_quickstart,
        *("--config.checkpoint.keep=5", "--config.data.threads=1"),
        f"--workdir={workdir}",
    )
    assert (code, errors) == (0, "")
    assert "is finished: 4 of 4 steps are done." in " ".join(output.split())
    assert json.loads((workdir / "config.json").read_text())["checkpoint"]["keep"] == 5
    assert (workdir / "metrics.jsonl").read_bytes() == (finished_run / "metrics.jsonl").read_bytes()
    status = json.loads((workdir / "status.json").read_text())
    assert (status["status"], status["step"], status["exit_code"]) == ("done", 4, 0)


def test_a_defect_of_ours_is_not_dressed_up(
    run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its traceback, with which Python exits with 1, so that it can be reported."""
    from alexnet_jax.jobs import summary

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(summary, "run", fail)
    with pytest.raises(ZeroDivisionError):
        run_main(QUICKSTART, "--config.job=summary")


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_comes_at_once_and_importing_the_package_costs_nothing() -> None:
    process = run_python("-X", "importtime", "-m", "alexnet_jax.main", "--help")
    assert process.returncode == 0
    assert "--config=FILE" in process.stdout
    process = run_python("-c", "import sys, alexnet_jax; print('jax' in sys.modules)")
    assert (process.returncode, process.stdout, process.stderr) == (0, "False\n", "")
