"""Dates, times, durations and time zones as extensions, and back."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.msgpack import Ext

from celerypipe.codec import tags
from celerypipe.codec.cure import cure_of_zone
from celerypipe.codec.refusal import Refusal
from celerypipe.errors import CodecError

_pack = msgspec.msgpack.Encoder().encode


def _of_date(value: datetime.date) -> Ext:
    return Ext(tags.DATE, _pack((value.year, value.month, value.day)))


def _of_time(value: datetime.time) -> Ext:
    zone = _zone_of(value)
    return Ext(tags.TIME, _pack((value.hour, value.minute, value.second, value.microsecond, zone, value.fold)))


def _of_datetime(value: datetime.datetime) -> Ext:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return Ext(tags.DATETIME, _pack((*day, *clock, _zone_of(value), value.fold)))


def _of_timedelta(value: datetime.timedelta) -> Ext:
    return Ext(tags.TIMEDELTA, _pack((value.days, value.seconds, value.microseconds)))


def _zone_of(value: datetime.datetime | datetime.time) -> Ext | None:
    zone = value.tzinfo
    return None if zone is None else _of_zone(zone, value)


def _of_zone(zone: datetime.tzinfo, value: datetime.datetime | datetime.time | None = None) -> Ext:
    if type(zone) is datetime.timezone:
        # The one way to ask a timezone whether it was given a name.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return Ext(tags.TIMEZONE, _pack((offset.days, offset.seconds, offset.microseconds, *name)))
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return Ext(tags.ZONE, zone.key.encode())
    name = f"{type(zone).__module__}.{type(zone).__qualname__}"
    raise Refusal(f"a time zone of class {name} cannot travel; send {cure_of_zone(value or zone)}")


#: Class → what makes an extension of it.
WRITE: dict[type, Callable[[Any], Ext | None]] = {
    datetime.date: _of_date,
    datetime.time: _of_time,
    datetime.datetime: _of_datetime,
    datetime.timedelta: _of_timedelta,
    datetime.timezone: _of_zone,
    zoneinfo.ZoneInfo: _of_zone,
}


def time_of(items: list[Any]) -> datetime.time:
    """Return the time that the items of a TIME are."""
    hour, minute, second, microsecond, zone, fold = items
    return datetime.time(hour, minute, second, microsecond, zone, fold=fold)


def datetime_of(items: list[Any]) -> datetime.datetime:
    """Return the datetime that the items of a DATETIME are."""
    *moment, fold = items
    return datetime.datetime(*moment, fold=fold)


def timezone_of(items: list[Any]) -> datetime.timezone:
    """Return the fixed offset that the items of a TIMEZONE are."""
    days, seconds, microseconds, *name = items
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds), *name)


def zone_of(content: memoryview) -> zoneinfo.ZoneInfo:
    """Return the zone whose key the content of a ZONE is; this machine may not know it."""
    key = str(content, "utf-8")
    try:
        return zoneinfo.ZoneInfo(key)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        raise CodecError(f"this machine knows no time zone {key!r}; install the tzdata package here") from None
