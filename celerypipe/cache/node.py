"""The result cache as one node of a run uses it: what is asked, and whether what was computed may be kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from celerypipe.cache.asked import Asked, Asker
from celerypipe.cache.asker import Schema, asker_of
from celerypipe.cache.cache import ResultCache
from celerypipe.cache.entry import Failure
from celerypipe.cache.question import Claim, Question, WhenAnswered
from celerypipe.catalogue.declaration import version_of_mark
from celerypipe.codec.identity import identity
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import CodecError, ConfigError, NodeError, NodeFailed, RemoteTraceback, did_you_mean
from celerypipe.mailbox.holder import Holder, Process
from celerypipe.mailbox.presence import Presence
from celerypipe.mailbox.schemas import DECLARED, is_vouched
from celerypipe.message.message import Message
from celerypipe.redis.signing import Keyring

#: What is said of a dead letter that nobody ran.
KNOWN = "this failure comes from the result cache; nothing was run"
#: Workers that are gone, but may have answered, of which is remembered what they would ask.
GONE = 256
#: How many results of a worker that nobody has looked at wait for that, and for how many seconds each.
EARLY, UNSEEN = 64, 3.0


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How a runner uses the result cache.

    ``on``: at all. ``refresh``: the nodes whose results are computed anew, and kept. ``rerun_failing``: failures that
    are kept do not count. ``read_only``: nothing is added, whatever nodes say.
    """

    on: bool = True
    refresh: tuple[str, ...] = ()
    rerun_failing: bool = False
    read_only: bool = False

    def check(self, nodes: Sequence[NodeDefinition]) -> None:
        """Raise :class:`ConfigError` for a node to refresh that is none, or has no cache."""
        cached = [node.name for node in nodes if node.cache is not None]
        for name in self.refresh:
            if name in cached:
                continue
            known = [node.name for node in nodes]
            if name in known:
                text = f"node {name!r} has no cache to refresh"
                raise ConfigError(f'{text}; write "cache": true into it' + _those(cached))
            raise ConfigError(f"there is no node {name!r} to refresh{did_you_mean(name, known)}" + _those(cached))


def _those(cached: Sequence[str]) -> str:
    return f"; nodes with a cache: {', '.join(cached)}" if cached else "; no node of this pipeline has a cache"


class NodeCache:
    """One node's way to the result cache. ``configuration``: resolved; ``here``: the schema of its class here."""

    def __init__(
        self,
        node: NodeDefinition,
        configuration: Callable[[], Mapping[str, Any]],
        here: Callable[[], Schema],
        *,
        use: CacheUse,
        say: Callable[[str], None],
    ) -> None:
        policy = node.cache
        assert policy is not None  # noqa: S101  # whoever makes it looked
        self.name = node.name
        self.queue = node.queue
        self.mark = node.mark
        self.policy = policy.model_copy(update={"read_only": True}) if use.read_only else policy
        self.refresh = node.name in use.refresh
        self.rerun_failing = use.rerun_failing
        self._written = node.configuration
        # A payload means something else where it is all arguments of a function.
        self._asked_as = f"{node.mark}()" if node.called else node.mark
        self._configuration = configuration
        self._here = here
        self._say = say
        self._said: set[str] = set()
        self._paused = False
        #: Properties that were changed while the run goes on, each with its value.
        self._changes: list[tuple[str, Any]] = []
        self._asker: Asker | None = None
        self._results: ResultCache | None = None

    def open(self, results: ResultCache) -> None:
        """Use this cache from now on."""
        self._results = results
        self._renew_asker()

    def renew(self) -> None:
        """Its class was loaded anew here."""
        self._renew_asker()

    def pause(self) -> None:
        """Ask and keep nothing: nobody knows which configuration computes."""
        self._paused = True

    def change(self, name: str, value: Any) -> None:
        """A property has another value: it is another node from now on."""
        self._changes.append((name, value))
        self.renew()

    def resume(self) -> None:
        """Ask and keep again."""
        self._paused = False

    def schemas(self) -> Sequence[Schema]:
        """What is known of the classes that run it."""
        return [self._here()]

    def _renew_asker(self) -> None:
        """What runs it is another class now, or is known."""
        if self._results is None:
            return
        self._asker, why = self._make(self.schemas())
        if self._asker is None:
            self._note(f"the result cache is bypassed: {why}")

    def _make(self, schemas: Sequence[Schema]) -> tuple[Asker | None, str]:
        """Return what asks for a node that classes of these schemas run, or None and why nothing can be asked."""
        changed = f" with {identity(self._changes)}" if self._changes else ""
        return asker_of(
            f"{self._asked_as}{changed}", schemas, self._configuration(), self.policy, written=self._written
        )

    def _note(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(f"{self.name}: {text}")

    # -- asking -----------------------------------------------------------------------------------------------------

    def asked(self, message: Message) -> Asked | None:
        """What a message asks; None: nothing, so that it is computed as if there were no cache."""
        asker = self._asker
        if asker is None or self._results is None or self._paused:
            return None
        try:
            return asker(message)
        except CodecError as error:
            self._note(f"some inputs cannot be looked up in the result cache: {error}")
            return None

    def ask(
        self, asked: Asked, message: Message, answer: WhenAnswered, *, again: bool = False, peeks: bool = False
    ) -> None:
        """Ask; ``answer`` gets what is found, or a claim to compute it.

        ``again``: it failed before, and somebody wants to see whether it still does. ``peeks``: only look, and claim
        nothing. Nobody else waits for it then, so it may be asked ahead.
        """
        assert self._results is not None  # noqa: S101  # nothing is asked before the run began
        self._results.post(
            Question(
                asked,
                self.policy,
                answer,
                refresh=self.refresh,
                rerun_failing=self.rerun_failing or again,
                node=self.name,
                message=_name(message),
                peeks=peeks,
                served=self.is_served,
                notes=frozenset(message.meta),
            )
        )

    def is_served(self) -> bool:
        """Is anybody there who computes what nobody knows? Claims of others who wait for that are not waited for."""
        return True

    # -- keeping ----------------------------------------------------------------------------------------------------

    def keep(
        self, claim: Claim, asked: Asked, outputs: Sequence[Message], parent: Message, *, seconds: float, by: str = ""
    ) -> None:
        """A result was computed by this activation, or here: keep it if it is what was asked for."""
        if not self.is_of(asked, by):
            claim.drop()
            return
        claim.keep(outputs, parent, seconds=seconds)

    def failed(self, claim: Claim, asked: Asked, error: BaseException, by: str = "") -> None:
        """It is given up. What the node itself raised may be kept; all else says nothing about the next time."""
        if type(error) is NodeFailed and error.kind == "failed" and error.remote_traceback and self.is_of(asked, by):
            text = str(error).removeprefix(f"{self.name}: ")
            claim.failed(Failure(error.kind, text.partition(":")[0], text, error.remote_traceback))
        elif isinstance(error, NodeError):
            claim.failed(None)
        else:
            claim.drop()

    def is_of(self, asked: Asked, by: str) -> bool:
        """Was it computed with the code that was asked for? What runs here is the code that is here."""
        return not by and not self._paused and self._asker is not None and self._asker.asks(asked)

    def error_of(self, failure: Failure, message: Message) -> NodeFailed:
        """The error of a failure that was kept."""
        text = f"{self.name}: {failure.text}"
        error = NodeFailed(text, node=self.name, message_id=message.id, remote_traceback=failure.traceback)
        if failure.traceback:
            error.__cause__ = RemoteTraceback(failure.traceback)
        return error


class WarpedNodeCache(NodeCache):
    """The same for a node that workers run: their code decides, and it may change while a run goes on."""

    def __init__(self, *arguments: Any, runs_here: bool, keyring: Keyring | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._runs_here = runs_here
        self._keyring = keyring
        self._known: frozenset[str] | None = None
        self._told: Sequence[Schema] = ()
        #: What each worker would ask, by what tells it from others in the names of its activations.
        self._askers: dict[str, Asker | None] = {}
        #: Results of workers that were not looked at yet: since when, of whom, and what keeps each or not.
        self._early: deque[tuple[float, str, Callable[[], None]]] = deque()

    def open(self, results: ResultCache) -> None:
        """Use this cache from now on; of a node that is made while the run goes on, once its workers were looked at."""
        self._results = results
        if self._runs_here or self._known is not None:
            self._renew_asker()

    def see(self, workers: Sequence[Presence]) -> bool:
        """These workers serve its queue now; False: the same as before. No workers: :meth:`recall` is next."""
        ids = frozenset(worker["id"] for worker in workers)
        if ids == self._known or self._runs_here:
            self._decide()
            return False
        self._known = ids
        gone = self._askers.keys() - {Process.read(name).life for name in ids}
        for life in [life for life in self._askers if life in gone][: max(0, len(gone) - GONE)]:
            del self._askers[life]
        told = [self._told_by(worker) for worker in workers if self.mark in worker["marks"]]
        if workers:
            self._tell([each for each in told if each is not None] if all(told) else [])
        self._decide()
        return True

    def keep(
        self, claim: Claim, asked: Asked, outputs: Sequence[Message], parent: Message, *, seconds: float, by: str = ""
    ) -> None:
        """The same; a worker that came a moment ago may answer before anybody looked at it, so that has to wait."""
        decide = partial(super().keep, claim, asked, outputs, parent, seconds=seconds, by=by)
        life = Holder.read(by).process.life if by else ""
        if by and life not in self._askers and len(self._early) < EARLY:
            self._early.append((time.monotonic(), life, decide))
        else:
            decide()

    @property
    def is_early(self) -> bool:
        """Do results wait for somebody to look at the worker that they came from?"""
        return bool(self._early)

    def _decide(self) -> None:
        for _ in range(len(self._early)):
            since, life, decide = early = self._early.popleft()
            if life in self._askers or time.monotonic() - since > UNSEEN:
                decide()
            else:
                self._early.append(early)

    def _told_by(self, worker: Presence) -> Schema | None:
        schema: Schema = worker["marks"][self.mark]
        believed = is_vouched(schema, self._keyring, worker["id"])
        if not believed:
            self._note("what a worker says of its code is not signed with our keys; it is ignored")
        life = Process.read(worker["id"]).life
        self._askers.pop(life, None)  # those that were there last are the last
        self._askers[life] = self._make([schema])[0] if believed else None
        return schema if believed else None

    def is_served(self) -> bool:
        return self._runs_here or bool(self._known)

    @property
    def declared(self) -> Schema | None:
        """What its workers tell, if somebody answers for its version and they agree on it."""
        codes = {schema.get("code", "") for schema in self._told}
        return self._told[0] if len(codes) == 1 and self._declares(self._told[0]) else None

    def recall(self, told: Schema | None) -> None:
        """No worker lives. What one ``told`` of a declared version counts, unless the source here declares another."""
        here = version_of_mark(self.mark) if "." in self.mark else None
        known = [] if told is None or not self._declares(told) else [told]
        self._tell([each for each in known if not here or each.get("code") == f"{DECLARED}{here}"])

    def _declares(self, schema: Schema) -> bool:
        return bool(self.policy.version) or str(schema.get("code", "")).startswith(DECLARED)

    def _tell(self, schemas: Sequence[Schema]) -> None:
        self._told = schemas
        self._renew_asker()

    def change(self, name: str, value: Any) -> None:
        self._known = None  # its workers are looked at once more
        self._askers.clear()
        self.__dict__.pop("_asker_here", None)
        super().change(name, value)

    def move_here(self) -> None:
        """It runs in this process from now on."""
        self._runs_here = True
        self._renew_asker()

    def renew(self) -> None:
        self.__dict__.pop("_asker_here", None)
        super().renew()

    def schemas(self) -> Sequence[Schema]:
        return super().schemas() if self._runs_here else self._told

    def is_of(self, asked: Asked, by: str) -> bool:
        asker = self._askers.get(Holder.read(by).process.life) if by else self._asker_here
        return not self._paused and asker is not None and asker.asks(asked)

    @cached_property
    def _asker_here(self) -> Asker | None:
        return self._make([self._here()])[0]


def _name(message: Message) -> str:
    """What ``celerypipe cache explain`` calls a message: the number that its source gave it, else its id."""
    return str(message.sequence) if message.sequence >= 0 else message.id
