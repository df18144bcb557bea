import pytest

from alexnet_jax import durations

IMAGENET = 1_281_167


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("90 epochs", 90.0, "epochs"),
        ("1 epoch", 1.0, "epochs"),
        ("5000 steps", 5000.0, "steps"),
        ("1 step", 1.0, "steps"),
        ("1.2e6 examples", 1_200_000.0, "examples"),
        ("1E+3 example", 1000.0, "examples"),
        ("0.25 epochs", 0.25, "epochs"),
        (".5epochs", 0.5, "epochs"),
        ("  2   steps ", 2.0, "steps"),
    ],
)
def test_parse(text: str, amount: float, unit: str) -> None:
    assert durations.parse(text) == (amount, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "epochs",
        "90 minutes",
        "-1 epochs",
        "0 steps",
        "0.0 epochs",
        "1.2.3 steps",
        ". steps",
        "1e308 steps",
        "1e999 steps",
        "9" * 999 + " steps",
        "3e9 steps",
        "1 epoch 2 steps",
        "nan steps",
        "90 Epochs",
    ],
)
def test_an_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="steps"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("1 epoch", 10_009),  # 1,281,167 / 128 = 10,009.12
        ("90 epochs", 900_821),  # 900,820.55, not 90 times a rounded epoch
        ("0.5 epochs", 5_005),  # 5,004.56
        ("12800 examples", 100),
        ("1 example", 1),  # never none
        ("1e6 epochs", durations.MAX_STEPS),
    ],
)
def test_to_steps_of_imagenet(text: str, steps: int) -> None:
    assert durations.to_steps(text, 128, IMAGENET) == steps


def test_units_agree() -> None:
    """One epoch is as many examples as the split has, in as many steps as that takes."""
    batch, examples = 100, 4000
    assert (
        durations.to_steps("3 epochs", batch, examples)
        == durations.to_steps("12000 examples", batch, examples)
        == durations.to_steps("120 steps", batch, examples)
        == 120
    )
