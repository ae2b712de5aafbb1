"""What to send in the place of a value that cannot travel: Python that can be run as it stands, ``it`` is the value.

A cure loses nothing that the value holds: not the mask of an array, the columns of a table, the flags of a pattern.
What it gives may hold another value that cannot travel: that is refused with its own place and cure, never left out.
"""

from __future__ import annotations

import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import ipaddress
import mmap
import os
import re
import types
import uuid
import zoneinfo
from collections import ChainMap, UserString, deque
from collections.abc import Iterator, Mapping, MappingView, Sequence, Set
from pathlib import PurePath
from typing import Any

import numpy as np

from celerypipe.codec.tables import cure_of_table

#: Said where nothing is known of a value.
UNKNOWN = "its content as a dict, a list, a str, bytes or an array"
#: More numbers than this are no list.
LONGEST = 1_000_000

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType)
_PLAIN = (int, float, complex, str, bytes, bytearray, list, set, frozenset, dict, tuple)
_ADDRESSES = tuple(getattr(ipaddress, f"IPv{number}{kind}") for number in "46" for kind in ("Address", "Network"))
_MASKED = "{'data': it.data, 'mask': numpy.ma.getmaskarray(it), 'fill_value': numpy.asarray(it.fill_value, it.dtype)}"
_SPARSE = "{'format': it.format, 'shape': it.shape, 'coords': it.tocoo().coords, 'data': it.tocoo().data}"
_FIELDS = "{name: it[name] for name in it.dtype.names}"
_SCHEMA = "it.schema.serialize().to_pybytes()"

#: Classes of packages that need not be here: package and name → cure.
_NAMED = {
    "pandas.NaTType": "str(it)",
    "pandas.NAType": "str(it)",
    "pandas.Timedelta": "it.isoformat()",
    "pandas.Period": "(str(it), it.freqstr)",
    "pandas.Interval": "(it.left, it.right, it.closed)",
    "polars.DataFrame": "it.write_ipc(None).getvalue()",
    "polars.Series": "it.to_frame().write_ipc(None).getvalue()",
    "polars.LazyFrame": "it.collect().write_ipc(None).getvalue()",
    "pyarrow.Table": f"({_SCHEMA}, [each.serialize().to_pybytes() for each in it.to_batches()])",
    "pyarrow.RecordBatch": f"({_SCHEMA}, it.serialize().to_pybytes())",
    "xarray.DataArray": "it.to_dict(data='array')",
    "xarray.Dataset": "it.to_dict(data='array')",
    "shapely.BaseGeometry": "it.wkb",
    "sqlite3.Row": "list(zip(it.keys(), it))",
    "xml.Element": "xml.etree.ElementTree.tostring(it)",
}
#: Methods that give what their object holds, the best first.
_METHODS = {
    "detach": "it.detach().cpu().numpy()",
    "cpu": "it.cpu().numpy()",
    "__cuda_array_interface__": "it.get()",
    "__array_interface__": "numpy.asarray(it)",
    "__array__": "numpy.asarray(it)",
}


def cure_of(value: Any) -> str:
    """Return what to send instead, for a value of a class that the codec does not know."""
    try:
        return _found(value)
    except Exception:  # noqa: BLE001  # whatever user code raises when it is looked at: its refusal must be heard
        return UNKNOWN


def _found(value: Any) -> str:
    for find in (_of_package, _of_class, _of_array, _of_text, _of_time, _of_file, _of_container):
        if cure := find(value):
            return cure
    for name, cure in _METHODS.items():
        if hasattr(type(value), name):
            # numpy has no bfloat16; each of its values is one of float32.
            is_brain = name == "detach" and "bfloat16" in str(value.dtype)
            return cure.replace(".numpy()", ".float().numpy()") if is_brain else cure
    return "vars(it)" if getattr(value, "__dict__", None) else UNKNOWN


def _of_package(value: Any) -> str:
    """Tables and the like: known by name, so that nothing is imported for them."""
    names = [f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(value).__mro__]
    if table := cure_of_table(value, names):
        return table
    if "pandas.Timestamp" in names:
        is_plain = not value.nanosecond and type(value.tzinfo) in (type(None), datetime.timezone, zoneinfo.ZoneInfo)
        return "it.to_pydatetime()" if is_plain else "(it.isoformat(), str(it.tz))"
    if "scipy.spmatrix" in names or "scipy.sparray" in names:
        return _SPARSE
    if "PIL.Image" in names and value.mode in ("P", "PA"):
        return "numpy.asarray(it.convert('RGBA'))"
    return next((_NAMED[name] for name in names if name in _NAMED), "")


def _of_class(value: Any) -> str:
    """A class, and what its class says of its fields."""
    if isinstance(value, type):
        return "it.__qualname__"
    if isinstance(value, types.ModuleType):
        return "it.__name__"
    if isinstance(value, _FUNCTIONS):
        return "its result"
    if isinstance(value, enum.Enum):
        return "it.value" if isinstance(value.value, _PLAIN) else "it.name"
    if dataclasses.is_dataclass(value):
        named = {each.name for each in dataclasses.fields(value)}
        return "dataclasses.asdict(it)" if named.issuperset(getattr(value, "__dict__", ())) else "vars(it)"
    for mark, cure in (
        ("__attrs_attrs__", "attrs.asdict(it)"),
        ("__struct_fields__", "msgspec.structs.asdict(it)"),
        ("model_dump", "it.model_dump()"),
    ):
        if hasattr(type(value), mark):
            return cure
    return ""


def _of_array(value: Any) -> str:
    """Arrays of other kinds than numpy's own, its records and numbers that others made, and other memory."""
    match value:
        case np.ma.MaskedArray():
            return _MASKED
        case np.recarray():
            return "it.view(numpy.dtype((numpy.void, it.dtype)), numpy.ndarray)"
        case np.record():
            return "numpy.asarray(it).view(numpy.dtype((numpy.void, it.dtype)))[()]"
        case np.memmap() | np.matrix():
            return "numpy.asarray(it)"
        case np.ndarray():
            return _with_more("numpy.asarray(it)", value)
        case np.generic():
            return "it.item()"
        case memoryview() if value.format != "B" or value.ndim != 1:
            return "numpy.asarray(it)"
        case memoryview() | mmap.mmap() | ctypes.Structure() | ctypes.Union() | ctypes.Array():
            return "bytes(it)"
    return "(it.typecode, it.tolist())" if hasattr(type(value), "typecode") else ""


def _of_text(value: Any) -> str:
    """What a text says in full."""
    match value:
        case decimal.Decimal() | fractions.Fraction() | uuid.UUID() | PurePath() | UserString():
            return "str(it)"
        case os.PathLike():
            return "os.fspath(it)"
        case BaseException():
            return "traceback.format_exception(it)"
        case re.Pattern():
            return "(it.pattern, it.flags)"
    return "str(it)" if isinstance(value, _ADDRESSES) else ""


def _of_time(value: Any) -> str:
    match value:
        case datetime.datetime():
            return "datetime.datetime.combine(it.date(), it.timetz())"
        case datetime.date():
            return "datetime.date.fromordinal(it.toordinal())"
        case datetime.time():
            return "datetime.datetime.combine(datetime.date.min, it).timetz()"
        case datetime.timedelta():
            return "datetime.timedelta(it.days, it.seconds, it.microseconds)"
        case datetime.tzinfo():
            return f"zoneinfo.ZoneInfo(it.{_key(value)})" if _key(value) else "str(it)"
    return ""


def _of_file(value: Any) -> str:
    """An open file, from its beginning."""
    if hasattr(type(value), "getvalue"):
        return "it.getvalue()"
    if not hasattr(type(value), "read"):
        return ""
    return "it.seek(0) or it.read()" if isinstance(value, io.IOBase) and value.seekable() else "it.read()"


def _of_container(value: Any) -> str:
    match value:
        case tuple() if hasattr(type(value), "_asdict"):
            return "it._asdict()"
        case tuple() if hasattr(type(value), "n_sequence_fields"):
            return "it.__reduce__()[1]"  # as of time.localtime(): it has fields beyond its length
        case str() if type(value).__str__ is not str.__str__:
            return _with_more("str.__str__(it)", value)
        case ChainMap():
            return "it.maps"
        case deque() if value.maxlen is not None:
            return "(list(it), it.maxlen)"
        case range() if len(value) > LONGEST:
            return "(it.start, it.stop, it.step)"
        case slice():
            return "(it.start, it.stop, it.step)"
    base = next((each for each in type(value).__mro__ if each in _PLAIN), None)
    if base is not None:
        return _with_more(f"{base.__name__}(it)", value)
    if isinstance(value, Mapping):  # some have several values for one key
        return "dict(it)" if len(dict(value)) == len(value) else "list(it.items())"
    return "list(it)" if isinstance(value, Sequence | Set | Iterator | MappingView | deque) else ""


def _with_more(cure: str, value: Any) -> str:
    """An object of a subclass may hold more than its base does."""
    return f"({cure}, vars(it))" if getattr(value, "__dict__", None) else cure


def _key(zone: datetime.tzinfo | None) -> str:
    """The attribute of a time zone that is its name in the database of zones: those of pytz have one."""
    known = zoneinfo.available_timezones()
    return next((name for name in ("key", "zone") if getattr(zone, name, None) in known), "")


def cure_of_zone(value: datetime.datetime | datetime.time | datetime.tzinfo) -> str:
    """Return what to send for a value with a time zone that cannot travel: the same moment, and what is told of it."""
    if not isinstance(value, datetime.datetime) or (offset := value.utcoffset()) is None:
        return "str(it)" if isinstance(value, datetime.tzinfo) else "(it.replace(tzinfo=None), str(it.tzinfo))"
    if key := _key(value.tzinfo):
        return f"it.astimezone(zoneinfo.ZoneInfo(it.tzinfo.{key}))"
    name = ", it.tzname()" if offset is not None and isinstance(value.tzname(), str) else ""
    return f"it.replace(tzinfo=datetime.timezone(it.utcoffset(){name}))"


def cure_of_dtype(dtype: np.dtype[Any]) -> str:
    """Return what to send for an array of a dtype that cannot travel."""
    if dtype.names is not None:
        return _fields("it", dtype) if dtype.hasobject and len(dtype.names) <= 4 else _FIELDS
    if dtype.hasobject or type(dtype).__name__ == "StringDType":
        return "(it.shape, it.ravel().tolist())"
    return "it.astype(numpy.float32)" if dtype.itemsize <= 2 else "(str(it.dtype), it.shape, it.tobytes())"


def _fields(it: str, dtype: np.dtype[Any]) -> str:
    """A dict of the fields of a record, those of records in it too; of Python objects a list."""
    parts = []
    for name in dtype.names or ():
        part, place = dtype[name], f"{it}[{name!r}]"
        if part.hasobject:
            place = _fields(place, part) if part.names is not None else f"{place}.tolist()"
        parts.append(f"{name!r}: {place}")
    return "{" + ", ".join(parts) + "}"
