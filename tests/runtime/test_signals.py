"""Signals: the first is a question asked between steps, the second stops at once."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_jax import errors
from alexnet_jax.jobs import train
from alexnet_jax.runtime import signals
from alexnet_jax.runtime.signals import stop_requests

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def kill_in_a_callback(number: signal.Signals) -> None:
    """Sends a signal where Python swallows what its handler raises."""

    class Collected:
        pass

    collected = Collected()
    reference = weakref.ref(collected, lambda _: os.kill(os.getpid(), number))
    del collected
    assert reference() is None


@BOTH
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with stop_requests() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
        shown = capfd.readouterr().err
        assert "Stopping after this step" in shown
        assert ("Press Ctrl-C again" in shown) == (number == signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # further ones are ignored


@BOTH
def test_a_signal_before_the_first_step_stops_the_run_there(number: signal.Signals) -> None:
    with stop_requests() as stop_requested:
        kill_in_a_callback(number)
        with pytest.raises(errors.PreemptedError) as stopped:
            train.stop_before_first_step(stop_requested, 7)
    assert stopped.value.step == 7


@BOTH
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_interrupt_is_raised_again(number: signal.Signals) -> None:
    with stop_requests() as stop_requested:
        os.kill(os.getpid(), number)
        kill_in_a_callback(number)
        with pytest.raises(KeyboardInterrupt):
            stop_requested()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_interrupt_ends_the_process_where_nothing_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "_GRACE_SECONDS", 0.05)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        kill_in_a_callback(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            time.sleep(60)
    assert ended.value.code == errors.EXIT_INTERRUPTED


def test_the_end_of_an_interrupted_run_is_not_cut_off_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "_GRACE_SECONDS", 60)
    with stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


# Interrupts the program in its first slow import, inside which an exception would be swallowed.
INTERRUPTED = """
import os, signal
from alexnet_jax import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def interrupt(*_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        raise ImportError("failed to import") from error

main.huge_pages.restart_with_huge_pages = lambda: None
main.main = interrupt
main.start()
"""


def test_an_interrupt_while_the_program_imports_is_one_line() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (errors.EXIT_INTERRUPTED, "Stopped.\n")


def test_a_job_is_interrupted_by_an_exception() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signals.end_on_interrupt()
        signals.raise_on_interrupt()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a command in the background
        signals.end_on_interrupt()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_whose_end_is_decided_is_not_interrupted() -> None:
    with stop_requests() as stop_requested:
        signals.ignore_requests()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert not stop_requested()


def test_a_thread_has_no_signals_and_is_never_asked_to_stop() -> None:
    answers = []

    def ask() -> None:
        with stop_requests() as stop_requested:
            answers.append(stop_requested())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]
