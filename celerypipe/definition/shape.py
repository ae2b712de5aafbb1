"""The shape of a definition: frozen pydantic models whose mistakes come out as complaints with a place and a cure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, NoReturn, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, WrapValidator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from celerypipe.errors import Complaint, DefinitionError, did_you_mean, nearest
from celerypipe.redis.secret import hidden, hidden_in

#: Where a value stands: keys and list indices, outermost first.
Location = tuple[int | str, ...]

#: Characters of a value, or of a key that is no name, that a complaint shows.
SHOWN = 60
#: Seconds: more than a century. Timers of the operating system end before three.
LONGEST = 4e9

# Strict, because "5" and true are slips of the pen in a definition, never numbers.
#: For editors and the reference: what a number counts.
SECONDS: dict[str, Any] = {"unit": "seconds"}
Seconds = Annotated[float, Strict(), Field(gt=0, le=LONGEST, allow_inf_nan=False, json_schema_extra=SECONDS)]
SecondsOrZero = Annotated[float, Strict(), Field(ge=0, le=LONGEST, allow_inf_nan=False, json_schema_extra=SECONDS)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Flag = Annotated[bool, Strict()]


class Shape(BaseModel):
    """A frozen part of a definition; wrong values raise :class:`DefinitionError` with all that is wrong."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )

    def __init_subclass__(cls, *, init: bool = True, **keywords: Any) -> None:
        """``init=False``: type checkers derive no ``__init__`` from its fields, which would refuse what becomes one."""
        super().__init_subclass__(**keywords)

    #: Keys of other programs: what to write instead.
    foreign: ClassVar[Mapping[str, str]] = {}
    #: Keys that must be there: what to write for them.
    wanted: ClassVar[Mapping[str, str]] = {}

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            found = mistakes(type(self), error)
            raise DefinitionError(_complaint(type(self), details, data) for details in found) from error

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, by the names of fields or as they are written; they are not checked."""
        written = {field.alias: name for name, field in type(self).model_fields.items() if field.alias}
        values = {written.get(name, name): value for name, value in (update or {}).items()}
        copied = super().model_copy(update=values, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]  # found out about the values that it had
        return copied

    @classmethod
    def at(cls, location: Location, data: Mapping[str, Any]) -> str:
        """Return the place of a mistake in ``data``, from which this was to be made."""
        return path(location)


def _inside(value: Any, make: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        fail("must have texts as keys")
    try:
        return make(value)
    except DefinitionError as error:
        # The whole definition wants the mistakes as pydantic has them, to put its own place in front of theirs.
        raise error.__cause__ or error from None


#: Marks a :class:`Shape` inside another one.
Inside = WrapValidator(_inside)


def refuse(title: str, found: Iterable[tuple[Location, str]]) -> None:
    """Raise a validation error with all that was found, each at its own location; nothing found: return."""
    details = [
        # Given as a value and not as the template, since a text may hold braces.
        InitErrorDetails(type=PydanticCustomError("refused", "{text}", {"text": text}), loc=location, input=None)
        for location, text in found
    ]
    if details:
        raise ValidationError.from_exception_data(title, details)


def path(location: Location) -> str:
    """Return a location as text: ``pipeline.nodes[1].timeout``."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif len(part) <= SHOWN and part.replace("$", "_").isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{shown(part)}]"
    return text


def shown(value: Any) -> str:
    """Return a value as it stands in JSON, shortened; an address without its secrets, what may hold one as its type."""
    if isinstance(value, str) and "://" in value:
        return json.dumps(hidden(value), ensure_ascii=False)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not text or hidden_in(text) != text:
        return f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def mistakes(model: type[Shape], error: ValidationError) -> list[ErrorDetails]:
    """Return what is wrong; a key that is missing because it is misspelt is wrong once."""
    found = error.errors()
    meant = {
        (*details["loc"][:-1], meant_key(model, details["loc"]))
        for details in found
        if details["type"] == "extra_forbidden"
    }
    return [details for details in found if details["type"] != "missing" or details["loc"] not in meant]


def meant_key(model: type[Shape], location: Location) -> str:
    """Return the known key that an unknown one at a location is nearest to; empty if it is near none."""
    owner, key = _shape_at(model, location[:-1]), str(location[-1])
    return "" if key in owner.foreign else nearest(key, _keys(owner))


def _keys(owner: type[Shape]) -> list[str]:
    return [field.alias or name for name, field in owner.model_fields.items() if not field.exclude]


def _complaint(model: type[Shape], details: ErrorDetails, data: Mapping[str, Any]) -> Complaint:
    location = details["loc"]
    kind = details["type"]
    owner = _shape_at(model, location[:-1])
    if kind == "extra_forbidden":
        text = _unknown(owner, str(location[-1]))
    elif kind == "missing":
        text = f"is missing; {owner.wanted.get(str(location[-1]), 'write it')}"
    elif kind in _TEXTS:
        text = f"{_TEXTS[kind]}, not {shown(details['input'])}{_cure(kind, details['input'])}"
    elif kind == "literal_error":
        text = _choice(details)
    else:
        text = details["msg"].removeprefix("Value error, ")
        if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
            text = f"must be {text.removeprefix('Input should be ')}, not {shown(details['input'])}"
    return Complaint(model.at(location, data), text)


_TEXTS = {
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list [...]",
    "list_type": "must be a list [...]",
    "dict_type": "must be an object {...}",
    "model_type": "must be an object {...}",
    "model_attributes_type": "must be an object {...}",
}


def _cure(kind: str, value: Any) -> str:
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "; write the number without quotes"
    if kind == "bool_type" and value in ("true", "false"):
        return f"; write {value} without quotes"
    return ""


def _choice(details: ErrorDetails) -> str:
    value = details["input"]
    text = f"must be {details['ctx']['expected']}, not {shown(value)}"
    known = details["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    return text + (did_you_mean(value, known) if isinstance(value, str) else "")


def _unknown(owner: type[Shape], key: str) -> str:
    if key in owner.foreign:
        return owner.foreign[key]
    known = _keys(owner)
    return f"is no known key{did_you_mean(key, known) or '; known are ' + ', '.join(known)}"


def _shape_at(model: type[Shape], location: Location) -> type[Shape]:
    """Return the shape that the keys of a location lead to, from ``model``; indices lead to a list's element."""
    for part in location:
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                model = _shape_in(field.annotation) or model
    return model


def _shape_in(annotation: Any) -> type[Shape] | None:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        return annotation
    return next((shape for shape in map(_shape_in, get_args(annotation)) if shape), None)


def fail(text: str) -> NoReturn:
    """Refuse the value that is being validated."""
    raise PydanticCustomError("refused", "{text}", {"text": text})
