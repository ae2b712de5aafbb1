"""What an annotation says of a plain value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe.catalogue.annotation import misfit, scalar


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("str", "a"),
        ("int", 5),
        ("float", 5),
        ("float", 0.5),
        ("bool", False),
        ("None", None),
        ("int | None", None),
        ("Optional[int]", 3),
        ("typing.Union[int, str]", "a"),
        ("Literal['a', 'b'] | None", "b"),
        ("Literal[1, 'auto']", 1),
        ("list[int]", [1, 2]),
        ("list[int]", (1, 2)),
        ("Sequence[str]", []),
        ("dict[str, list[float]]", {"a": [1, 2.5]}),
        ("dict[int, str]", {"1": "a"}),
        ("Mapping[str, Any]", {"a": object()}),
        ("tuple[int, str]", [1, "a"]),
        ("tuple[int, ...]", []),
        ("tuple", [1, "a"]),
        ("pathlib.Path", "here"),
        ("os.PathLike[str]", "here"),
        ("Annotated[int, 'seconds']", 3),
        ("'int'", 3),
        # What is not known here takes anything.
        ("", object()),
        ("Model", 3),
        ("Model | int", "a"),
        ("list[Model]", [1]),
        ("Callable[[int], str]", "a"),
        ("Literal[Color.RED]", "red"),
        ("set[int]", [1]),
        ("int |", "a"),
        ("Any", [1]),
        # Neither is what JSON has no word for.
        ("str", Path("here")),
        ("int", np.int64(3)),
        ("list[float]", np.zeros(3)),
    ],
)
def test_what_fits(annotation: str, value: Any) -> None:
    assert misfit(annotation, "x", value) == ""


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        ("str", 5, "'x' must be a text in quotes, not a number; write it in quotes"),
        ("int", "5", "'x' must be a whole number, not a text; write the number without quotes"),
        ("int", True, "'x' must be a whole number, not true"),
        ("int", 5.0, "'x' must be a whole number, not a number with a point"),
        ("float", "fast", "'x' must be a number, not a text"),
        ("bool", 1, "'x' must be true or false, not a number"),
        ("bool", "True", "'x' must be true or false, not a text; write true without quotes"),
        ("int | None", "a", "'x' must be a whole number or null, not a text"),
        ("Literal['fast', 'exact']", "fats", "'x' must be 'fast' or 'exact', not a text; did you mean 'fast'?"),
        ("list[int]", 5, "'x' must be a list [...], not a number"),
        ("Sequence[str]", "abc", "'x' must be a list [...], not a text"),
        ("list[int] | None", [1, "a"], "'x[1]' must be a whole number, not a text"),
        ("dict[str, dict[str, int]]", {"a": {"b": None}}, "\"x['a']['b']\" must be a whole number, not null"),
        ("Mapping[str, int]", [], "'x' must be an object {...}, not a list of 0"),
        ("tuple[int, int]", [1], "'x' must be a list of 2, not a list of 1"),
        ("tuple[int, str]", [1, 2], "'x[1]' must be a text in quotes, not a number; write it in quotes"),
        ("Path | str", {}, "'x' must be a text in quotes, not an object"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place_and_a_cure(annotation: str, value: Any, text: str) -> None:
    assert misfit(annotation, "x", value) == text


def test_a_value_is_never_shown() -> None:
    for annotation in ("int", "list[int]", "Literal['a']", "dict[str, int]"):
        for value in ("s3cret", ["s3cret"], {"a": "s3cret"}):
            assert "s3cret" not in misfit(annotation, "x", value)


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        ("int", int),
        ("float | None", float),
        ("int | float", float),
        ("Optional[bool]", bool),
        ("int | str", None),
        ("list[int]", None),
        ("Model", None),
        ("", None),
    ],
)
def test_which_number_or_flag_is_wanted(annotation: str, wanted: type | None) -> None:
    assert scalar(annotation) is wanted
