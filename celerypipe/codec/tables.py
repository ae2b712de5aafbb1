"""What to send in the place of a table of pandas: its columns, index, names and types."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from typing import Any

#: The values of a table, its index and all names, as plain values; each type as text.
_PLAIN = "{{**{it}.to_dict('tight'), 'dtypes': [str(each) for each in {it}.dtypes]{more}}}"
#: The text of a type leaves out which categories there are.
_CATEGORIES = (
    ", 'categories': [(list(each.categories), each.ordered) if each == 'category' else () for each in {it}.dtypes]"
)


def cure_of_table(value: Any, names: Collection[str]) -> str:
    """Return what to send for a table, a column or an index; nothing for anything else.

    ``names``: package and name of its classes.
    """
    if "pandas.DataFrame" in names:
        return _whole("it", value)
    if "pandas.MultiIndex" in names:
        return _named(_whole("it.to_frame(False)", value.to_frame(False)), "list(it.names)")
    # A name that is no text, or none, would not come back from a file of Parquet.
    if "pandas.Index" in names:
        return _named(_whole("it.to_frame(False, name='it')", value.to_frame(False, name="it")))
    if "pandas.Series" in names:
        return _named(_whole("it.to_frame('it')", value.to_frame("it")))
    if "pandas.ExtensionArray" in names:
        return _whole("pandas.Series(it).to_frame('it')", sys.modules["pandas"].Series(value).to_frame("it"))
    return ""


def _named(cure: str, name: str = "it.name") -> str:
    return f"({name}, {cure})"


def _whole(it: str, frame: Any) -> str:
    """A DataFrame as a file of Parquet, if that is exact and can be written here; else as plain values."""
    kinds = [str(dtype) for dtype in frame.dtypes]
    named = frame.columns.is_unique and all(isinstance(name, str) for name in frame.columns)
    if named and "object" not in kinds and importlib.util.find_spec("pyarrow") is not None:
        return f"{it}.to_parquet()"
    more = _CATEGORIES.format(it=it) if "category" in kinds else ""
    return _PLAIN.format(it=it, more=more)
