"""Signals: the first is a question asked between steps, the second stops at once."""

import os
import signal
import threading

import pytest

from alexnet_jax.runtime.signals import stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with stop_requests() as stop_requested:
        assert not stop_requested(1)
        os.kill(os.getpid(), number)
        assert stop_requested(2)
        shown = capfd.readouterr().err
        assert "Stopping after this step" in shown
        assert ("Press Ctrl-C again" in shown) == (number == signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # further ones are ignored
    assert signal.getsignal(number) == before


def test_a_signal_before_the_first_step_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_thread_has_no_signals_and_is_never_asked_to_stop() -> None:
    answers = []

    def ask() -> None:
        with stop_requests() as stop_requested:
            answers.append(stop_requested(1))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]
