"""What may be a secret in an address, hidden before anything is parsed: in one that is wrong it may stand anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What stands for a secret.
HIDDEN = "***"

#: An option whose value is a secret, by its name.
_SECRET_OPTION = re.compile(r"[?&;][^=&?]*(?:pass|secret|token|key|sig|auth|cred)[^=&?]*=", re.IGNORECASE)
#: A host with its port, or several; no word that is written where a port should be.
_HOST = r"(?:[\w.-]+|\[[0-9A-Fa-f:.%]+\])(?::\d{1,5})?"
_PLACES = re.compile(rf"{_HOST}(?:,{_HOST})*")
#: Where a path is the number of a database; one that is none may be the rest of a password.
_NUMBERED = ("redis", "rediss", "valkey", "valkeys")
_HARMLESS_OPTION = re.compile(r"db|virtual_host|ssl_(?:cert_reqs|check_hostname|ca_certs|ca_path|certfile|keyfile)")
_PLAIN_VALUE = re.compile(r"[\w./:+-]*")


def hidden(url: str) -> str:
    """Return an address as it may be shown, whatever is wrong with it: what is not plainly harmless is ``***``."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url if re.fullmatch(r"[\w./~-]*(?::\d{1,5})?(?:/\d*)?", url) else HIDDEN
    if not re.fullmatch(r"[\w+.:-]*", scheme):
        return HIDDEN
    option, at = _SECRET_OPTION.search(rest), rest.rfind("@")
    if option is not None and at > option.start():  # which of the two is part of a password, nobody can tell
        return f"{scheme}://{HIDDEN}"
    before = f"{HIDDEN}@" if at >= 0 else ""
    place, mark, options = rest[at + 1 :].partition("?")
    authority, slash, path = place.partition("/")
    knows = _PLACES.fullmatch(authority) or (not authority and (slash or at >= 0))
    if not knows or "#" in place + options:
        return f"{scheme}://{before}{HIDDEN}"
    if path and not path.strip("/").isdigit() and scheme in _NUMBERED:
        path = HIDDEN
    return f"{scheme}://{before}{authority}{slash}{path}{mark}{'&'.join(map(_option, options.split('&')))}"


def _option(text: str) -> str:
    name, equals, value = text.partition("=")
    if not text or (_HARMLESS_OPTION.fullmatch(name) and _PLAIN_VALUE.fullmatch(value)):
        return text
    return f"{name}{equals}{HIDDEN}" if re.fullmatch(r"\w+", name) and equals else HIDDEN


def hidden_in(text: str) -> str:
    """Return a sentence in which somebody quotes an address, without what may be a secret in it."""
    # Looked for at the beginning of a word only: from each of its letters on, a long one would take minutes.
    return re.sub(
        r"(?:(?<![\w+.-])[\w+.-]+://|(?<!\S)\S*:.*@).*", lambda found: hidden(found[0]), text, flags=re.DOTALL
    )


def seen_in_ps(words: Iterable[str]) -> str:
    """Return a warning if one of the words that started this process is an address with a secret; else nothing."""
    for word in words:
        url = re.sub(r"^--?\w[\w-]*=|^-b(?=\w)", "", word)
        if "://" in url and HIDDEN in hidden(url):
            return (
                f"the password in {hidden(url)} can be read by all users of this machine while this runs (ps): "
                "give it in CELERYPIPE_REDIS_URL instead"
            )
    return ""
