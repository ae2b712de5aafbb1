"""Every Redis key name and how long each lives.

All of celerypipe's keys begin with ``celerypipe:`` and have a TTL; Celery's own (queue lists, ``_kombu.*``) do not.
In another namespace than the usual one both begin with ``celerypipe@<namespace>:``.
TTLs are milliseconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Streams, node records, blobs, files and attempts of a run; renewed by its runner while something is in flight.
DATA_TTL = 60_000
#: Fields that the hash of a node's attempts may have.
ATTEMPTS_MOST = 10_000
#: The lease of a run.
RUN_TTL = 10_000
#: A bell that is held by an activation; refreshed every second, and longer than a node may hold the interpreter lock:
#: whether its process lives is told by the heartbeat.
HELD_TTL = 600_000
#: The heartbeat of a worker; written every second.
HEARTBEAT_TTL = 3_000
#: The sign that a process was not named by it, and how long it has to be missed until it counts as dead: by a heartbeat
#: that is there, and by none.
MISSED_TTL = 4_000
MISSED = 1_000
MISSED_IN_SILENCE = 2_500
#: A bell that was rung and not answered: the first and the longest wait before it may be rung again.
RUNG_TTL = 2_000
RUNG_TTL_MAX = 60_000
#: The sign that a node warms up for a message: longer than an import may hold the interpreter lock.
WARMING_TTL = 600_000
#: The sign that a slot comes back in a moment: a stuck process ends two or three seconds after its message is late.
FREEING_TTL = 5_000
#: And where the whole worker ends for its supervisor to start another.
FREEING_MOST = 15_000
#: And where a process is spawned, which imports all that its nodes need; it says itself when it is there.
SPAWNING_TTL = 60_000
#: What was logged for a run, or by a worker for none, after its last line; how many entries of up to 8 KiB are kept.
LOG_TTL = 3600 * 1000
LOG_MOST = 500
#: Why no worker of a queue could start: that its environment cannot be built.
UNBUILT_TTL = 600_000
#: Word of how a process died.
DEATH_TTL = 600_000
#: What a worker says of itself, in seconds: its heartbeat says it each minute, and it counts while that goes on.
PRESENCE_TTL = 600
#: How long the word of a worker of another protocol counts, in seconds: it is in no heartbeat that can be read here.
FOREIGN_TTL = 150
#: How long items of a queue that were no task are kept, in seconds, and how many of them.
REFUSED_TTL = 7 * 24 * 3600
REFUSED_MOST = 100

#: What the result cache keeps without a ``ttl`` of its own, since it was last used: 30 days.
CACHE_TTL = 30 * 24 * 3600 * 1000
#: A claim on a result that is being computed; renewed each second.
CACHE_CLAIM_TTL = 3_000
#: What a run asked the cache for and did not find.
CACHE_ASKED_TTL = 24 * 3600 * 1000

#: What all runs together counted, since it was last added to: 30 days; how many fields the hash of a queue may have.
COUNTS_TTL = 30 * 24 * 3600 * 1000
COUNTS_MOST = 20_000
#: The number of the last batch that a run added: longer than Redis is away between a question and its answer.
BATCH_TTL = 3600 * 1000

#: What a host says of itself, and what is wanted of it, since it was there last: 30 days.
HOST_TTL = 30 * 24 * 3600 * 1000
#: What a host answered; how many ends of workers and hosts are kept, and how long after the last one.
ANSWER_TTL = 60_000
ENDS_MOST = 1_000
ENDS_TTL = 7 * 24 * 3600 * 1000

#: The consumer group of every mailbox.
GROUP = "celerypipe"


@dataclass(frozen=True, slots=True)
class Names:
    """What the keys of one namespace are called: ``<prefix>:<kind>:…``, so that a script can tell the prefix of any."""

    prefix: str = "celerypipe"

    @property
    def workers(self) -> str:
        """Sorted set of worker ids; the score is Redis' time in milliseconds at the last refresh."""
        return f"{self.prefix}:workers"

    def serving(self, queue: str) -> str:
        """Sorted set of the ids of those workers that serve a queue, with the same scores: a run looks at its own."""
        return f"{self.prefix}:serving:{queue}"

    @property
    def hosts(self) -> str:
        """Sorted set of the names of hosts; the score is Redis' time in milliseconds when one was there last."""
        return f"{self.prefix}:hosts"

    def host(self, name: str) -> str:
        """What a host says of its machine and of the workers on it: JSON."""
        return f"{self.prefix}:host:{name}"

    def wanted(self, name: str) -> str:
        """Hash of the sets of workers that a host is to keep alive, by id; ``version`` counts the changes."""
        return f"{self.prefix}:wanted:{name}"

    def answer(self, request: str) -> str:
        """The list with what a host answered to a request."""
        return f"{self.prefix}:answer:{request}"

    @property
    def ends(self) -> str:
        """The stream of the ends of workers, as their hosts saw them."""
        return f"{self.prefix}:ends"

    @property
    def runs(self) -> str:
        """Sorted set of run ids; the score is Redis' time in milliseconds at the last renewal."""
        return f"{self.prefix}:runs"

    def run(self, run_id: str) -> str:
        """The lease of a run; its value is ``running``, ``cancelled`` or ``finished``."""
        return f"{self.prefix}:run:{run_id}"

    def about(self, run_id: str) -> str:
        """What a runner says of a run as long as it goes on: JSON, without anything that could be a secret."""
        return f"{self.prefix}:about:{run_id}"

    def node(self, run_id: str, name: str) -> str:
        """The record of a warped node: mark, configuration, limits; written by the runner, read by activations."""
        return f"{self.prefix}:node:{run_id}:{name}"

    def mailbox(self, run_id: str, name: str) -> str:
        """The stream of messages for a warped node."""
        return f"{self.prefix}:mailbox:{run_id}:{name}"

    def attempts(self, run_id: str, name: str) -> str:
        """Hash of sequence number → how often it was handed to ``update`` alone after a death; and who died."""
        return f"{self.prefix}:attempts:{run_id}:{name}"

    def state(self, run_id: str, name: str) -> str:
        """Hash of a stateful node: who may go on with it, and its last snapshot."""
        return f"{self.prefix}:state:{run_id}:{name}"

    def bell(self, run_id: str, name: str) -> str:
        """The beginning of a node's bell keys; the slot number follows."""
        return f"{self.prefix}:bell:{run_id}:{name}:"

    def replay(self, run_id: str) -> str:
        """A list of the names of dead letters that a run is asked to replay; its runner takes them."""
        return f"{self.prefix}:replay:{run_id}"

    def warming(self, consumer: str) -> str:
        """There while an activation makes its node, warms it up or lets it go: no message it holds is in ``update``."""
        return f"{self.prefix}:warming:{consumer}"

    def held(self, consumer: str) -> str:
        """The first entry of each node that an activation holds back until a batch is full, where it serves several."""
        return f"{self.prefix}:held:{consumer}"

    def anew(self, consumer: str) -> str:
        """The ids of the entries of the last batch of an activation that brought nothing; its TTL says since when."""
        return f"{self.prefix}:anew:{consumer}"

    def freeing(self, queue: str) -> str:
        """Sorted set of the processes serving a queue whose slot comes back in a moment; the score is until when."""
        return f"{self.prefix}:freeing:{queue}"

    def unbuilt(self, queue: str) -> str:
        """Why the last worker that was to serve a queue has no environment to run in: where it was, and a text."""
        return f"{self.prefix}:unbuilt:{queue}"

    def death(self, place: str) -> str:
        """How a process that ran nodes died; ``place`` is ``<host>.<pid>.<life of its worker>``."""
        return f"{self.prefix}:death:{place}"

    def heartbeat(self, host: str, life: str) -> str:
        """The processes of a worker that live, by number, or ``over``."""
        return f"{self.prefix}:heartbeat:{host}.{life}"

    def reply(self, run_id: str) -> str:
        """The stream of results of a run, read by its runner."""
        return f"{self.prefix}:reply:{run_id}"

    def trace(self, run_id: str) -> str:
        """Where the messages of a run that is over spent their time: JSON."""
        return f"{self.prefix}:trace:{run_id}"

    def asked(self, run_id: str) -> str:
        """The stream of what a run is asked to do while it goes on."""
        return f"{self.prefix}:asked:{run_id}"

    def orders(self, run_id: str) -> str:
        """The list of what the warped nodes of a run were told to do, the last one first."""
        return f"{self.prefix}:orders:{run_id}"

    def answers(self, order: str) -> str:
        """Hash of what came of an order, by who did it."""
        return f"{self.prefix}:answers:{order}"

    def log(self, of: str) -> str:
        """The stream of what was logged for a run; or by a worker, by its id, for none."""
        return f"{self.prefix}:log:{of}"

    def blob(self, run_id: str, blob_id: str) -> str:
        """Large bytes; further chunks add ``:1``, ``:2``, …"""
        return f"{self.prefix}:blob:{run_id}:{blob_id}"

    def file(self, digest: str) -> str:
        """Says that all pieces of a file are there; its value is the size."""
        return f"{self.prefix}:file:{digest}"

    def file_piece(self, digest: str, number: int) -> str:
        """A piece of the content of a file."""
        return f"{self.prefix}:file:{digest}:{number}"

    def presence(self, worker_id: str) -> str:
        """A worker's own key."""
        return f"{self.prefix}:worker:{worker_id}"

    @property
    def counted(self) -> str:
        """Sorted set of the queues that anything was counted for; the score is Redis' time in milliseconds then."""
        return f"{self.prefix}:counted"

    def counts(self, queue: str) -> str:
        """Hash of what all runs together counted on a queue: what, of which pipeline and node → how much."""
        return f"{self.prefix}:counts:{queue}"

    def batch(self, run_id: str) -> str:
        """The number of the last batch that a run added to those."""
        return f"{self.prefix}:batch:{run_id}"

    @property
    def broker(self) -> str:
        """What the names of all that Celery has begin with, its channels too; in the usual namespace they are bare."""
        return "" if self == USUAL else f"{self.prefix}:celery:"

    @classmethod
    def of_broker(cls, broker: str) -> Names:
        """Return the names of the namespace in which those of Celery begin so."""
        return cls(broker.partition(":")[0]) if broker else USUAL

    def queue(self, name: str) -> str:
        """The list of a queue, which is Celery's."""
        return f"{self.broker}{name}"

    def refused(self, queue: str) -> str:
        """Items from a queue's list that were no task, the newest first."""
        return f"{self.prefix}:refused:{queue}"

    @property
    def cache(self) -> str:
        """The beginning of all that the result cache has."""
        return f"{self.prefix}:cache:"

    @property
    def cache_used(self) -> str:
        """Sorted set of what it keeps, ``e:<fingerprint>`` or ``b:<digest>:<chunks>``, by its last use."""
        return f"{self.prefix}:cache:used"

    @property
    def cache_sizes(self) -> str:
        """Hash of the same → bytes; the field without a name has their sum."""
        return f"{self.prefix}:cache:sizes"

    @property
    def cache_ends(self) -> str:
        """Sorted set of the entries that have a ``ttl``, by their end."""
        return f"{self.prefix}:cache:ends"

    @property
    def cache_books(self) -> tuple[str, str, str]:
        """These three, as scripts take them."""
        return self.cache_used, self.cache_sizes, self.cache_ends

    @property
    def cache_counts(self) -> str:
        """Hash of what all runs together found, missed and saved."""
        return f"{self.prefix}:cache:counts"

    def cache_entry(self, fingerprint: str) -> str:
        """One result: what was asked, and what came of it."""
        return f"{self.prefix}:cache:entry:{fingerprint}"

    def cache_blob(self, digest: str, chunk: int) -> str:
        """A part of the large bytes of results that have this digest."""
        return f"{self.prefix}:cache:blob:{digest}:{chunk}"

    def cache_claim(self, fingerprint: str) -> str:
        """There while somebody computes this result; its value says who."""
        return f"{self.prefix}:cache:claim:{fingerprint}"

    def cache_mark(self, mark: str) -> str:
        """Sorted set of the newest fingerprints of a mark, by when they were kept."""
        return f"{self.prefix}:cache:mark:{mark}"

    def cache_asked(self, run_id: str) -> str:
        """Hash of ``<node>/<message>`` → what the run asked the cache for and did not find."""
        return f"{self.prefix}:cache:asked:{run_id}"

    @property
    def cache_runs(self) -> str:
        """Sorted set of the runs that have such a hash, by when they began to ask: one is found by its beginning."""
        return f"{self.prefix}:cache:runs"

    def cache_schema(self, mark: str) -> str:
        """What workers told last of a class with a declared version, as JSON."""
        return f"{self.prefix}:cache:schema:{mark}"


#: Sorted set of the namespaces besides the usual one that workers live in; the score is Redis' time in milliseconds
#: when one said so last. It is in none of them, so that who finds no worker can say where some are.
NAMESPACES = "celerypipe:namespaces"
#: Those of who says nothing about namespaces.
USUAL = Names()
