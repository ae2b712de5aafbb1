"""What we build on of others without their promise: private names, and modules that their documentation leaves out.

After an upgrade, what is gone is said with the file of ours that needs it.
"""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import re
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future
from functools import cached_property
from types import FunctionType
from typing import Any

import pydantic
import pytest

from tests.servers import ROOT

PACKAGE = ROOT / "celerypipe"
Nodes = list[ast.AST]

#: By file of ours and by what they stand in: names that it counts on, those that it calls with their arguments.
COUNTED_ON = {
    "celery/application.py": {
        "celery:Celery": "backend_cls connection_for_read connection_for_write user_options",
        "celery.loaders.app:AppLoader": "init_worker read_configuration",
    },
    "celery/broker.py": {
        "celery.app.amqp:AMQP": "Connection",
        "kombu.connection:Connection": "as_uri get_transport_cls info",
        "kombu.transport.redis": "PrefixedStrictRedis(global_keyprefix)",
        "kombu.transport.redis:Channel": "Client async_pool client conn_or_acquire pool "
        "_brpop_read _deliver_fanout_message _get_client _in_poll close",
        "kombu.transport.redis:QoS": "ack(delivery_tag)",
        "kombu.transport.redis:SentinelTransport": "Channel",
        "kombu.transport.redis:Transport": "Channel",
        "kombu.transport.virtual:Channel": "Message connection QoS basic_ack(delivery_tag) qos",
        "kombu.transport.virtual:Message": "__init__(payload,channel)",
        "kombu.transport.virtual:QoS": "ack(delivery_tag) get(delivery_tag)",
        "redis:Redis": "client_unblock parse_response(connection,command_name)",
        "redis.connection:AbstractConnection": "_sock read_response send_command",
    },
    "celery/events.py": {
        "celery.app.events:Events": "dispatcher_cls",
        "celery.events.dispatcher:EventDispatcher": "flush on_send_buffered send(type,retry)",
        "celery.worker.consumer:Consumer": "event_dispatcher hub",
        "celery.worker.consumer.events": "Events",
        "kombu.asynchronous:Hub": "call_later(delay,callback) call_soon(callback)",
    },
    "celery/item.py": {
        "kombu.connection": "Connection(transport)",
        "kombu.connection:Connection": "channel",
        "kombu.transport.memory": "Channel Transport",
        "kombu.transport.memory:Channel": "_put(queue,message)",
        "kombu.utils.json": "dumps",
    },
    "celery/prefork.py": {
        "billiard.pool": "EX_OK EX_RECYCLE",
        "billiard.pool:Worker": "_do_exit(pid,exitcode,exc) _ensure_messages_consumed max_memory_per_child maxtasks "
        "on_exit on_ready_counter wait_for_job",
        "celery.concurrency": "asynpool prefork",
        "celery.concurrency.asynpool": "AsynPool ResultHandler Worker",
        "celery.concurrency.asynpool:AsynPool": "ResultHandler Worker on_process_alive "
        "_create_worker_process _join_exited_workers _pool",
        "celery.concurrency.asynpool:ResultHandler": "_flush_outqueue(fd,remove,process_index,on_state_change)",
        "celery.concurrency.asynpool:Worker": "on_loop_start",
        "celery.concurrency.prefork": "TaskPool",
        "celery.concurrency.prefork:TaskPool": "Pool _pool on_stop",
        "celery.utils.dispatch": "Signal(name,providing_args)",
        "multiprocessing.process": "AuthenticationString",
        "multiprocessing.process:BaseProcess": "_config",
    },
    "celery/request.py": {"celery.worker.request:Request": "time_limits"},
    "celery/start.py": {"celery.utils.dispatch": "Signal(name,providing_args)"},
    "cli/machines/started.py": {"celery.bin.base": "CLIContext(app,no_color,workdir)", "celery.bin.worker": "worker"},
    "host/machine.py": {"celery.utils.sysinfo": "cpu_budget()"},
    "host/reception.py": {
        "celery.platforms": "SecurityWarning",
        "celery.worker.control": "Panel",
        "celery.worker.control:Panel": "data meta",
        "celery.worker.state": "should_stop",
    },
    "heartbeat/monitor.py": {"_signal": "SIGHUP SIGINT SIGQUIT SIGTERM SIG_IGN signal"},
    "heartbeat/procfs.py": {"_signal": "SIGKILL SIGSTOP SIGUSR2 pidfd_send_signal"},
    "heartbeat/wire.py": {"_socket": "AF_UNIX IPPROTO_TCP SOCK_STREAM TCP_NODELAY getaddrinfo socket"},
    "process/forks.py": {"sys": "_current_frames"},
    "redis/connection.py": {
        "hiredis": "pack_command",
        "redis": "DriverInfo(lib_version)",
        "redis:Connection": "connect disconnect is_connected read_response send_packed_command(command,check_health)",
        "redis:ConnectionPool": "make_connection",
        "redis:Redis": "from_pool(connection_pool)",
    },
    "redis/line.py": {"redis:Connection": "can_read(timeout) socket_timeout"},
    "redis/sentinel.py": {"redis.sentinel:Sentinel": "discover_master(service_name)"},
    "worker/activation/stuck.py": {"sys": "_current_frames"},
    "worker/boot.py": {
        "celery:Task": "__trace__",
        "celery.app.trace": "build_tracer(name,task,loader,hostname,app)",
        "celery.utils.nodenames": "nodename(name,hostname)",
        "celery.worker.worker:WorkController": "pool_start_method",
    },
    "worker/config.py": {"celery.concurrency": "get_available_pool_names"},
    "worker/control.py": {
        "celery.concurrency.prefork:TaskPool": "grow",
        "celery.platforms": "signals",
        "celery.platforms:Signals": "signum(name)",
        "celery.worker.consumer:Consumer": "controller pool",
        "celery.worker.control": "Panel control_command",
        "celery.worker.control:Panel": "data",
    },
    "worker/options.py": {
        "billiard": "Lock",
        "celery.apps.worker:Worker": "purge",
        "celery.concurrency": "get_implementation(cls)",
        "celery.concurrency.prefork": "TaskPool",
        "celery.utils.sysinfo": "cpu_budget(use_cgroup_quota) is_auto_concurrency(value)",
        "celery.worker.worker:WorkController": "app concurrency loglevel max_memory_per_child "
        "max_tasks_per_child options pool_cls prefetch_multiplier soft_time_limit time_limit",
    },
    "worker/presence.py": {"billiard.pool": "EX_OK EX_RECYCLE", "celery.worker.consumer:Consumer": "controller pool"},
    "worker/shutdown.py": {
        "celery.apps.worker": "safe_say(msg,f)",
        "celery.platforms": "close_open_fds(keep)",
        "celery.worker.control": "control_command",
        "celery.worker.state": "should_stop",
    },
    "worker/streams.py": {
        "celery.app.log:Logging": "redirect_stdouts_to_logger setup_handlers setup_logging_subsystem(hostname)",
        "celery.utils.log": "mlevel(level)",
    },
    "worker/vocabulary.py": {"celery.app.defaults": "NAMESPACES Option flatten"},
    "worker/watchdog.py": {
        "billiard": "active_children",
        "celery.app.amqp:Queues": "consume_from",
        "celery.concurrency.base:BasePool": "maintain_pool num_processes",
        "celery.bootsteps:Blueprint": "state",
        "celery.worker.consumer:Consumer": "blueprint connection",
        "celery.worker.state": "active_requests reserved_requests should_stop should_terminate",
    },
}
NAME = re.compile(r"(\w+)(?:\(([\w,]*)\))?")
#: Whose modules are told apart: these are documented; billiard has no documentation.
THEIRS = ("amqp", "billiard", "celery", "kombu", "redis", "vine")
DOCUMENTED = {
    *("celery", "celery.app.amqp", "celery.app.events", "celery.app.log", "celery.bin.celery", "celery.bootsteps"),
    *("celery.events.dispatcher", "celery.exceptions", "celery.loaders.app", "celery.signals", "celery.worker"),
    *("celery.worker.request", "kombu.connection", "kombu.exceptions"),
    *("kombu.transport", "kombu.transport.redis", "kombu.transport.virtual"),
    *("redis", "redis.backoff", "redis.retry", "redis.sentinel"),
}
#: Names with an underscore that are documented all the same, of ``os`` and of a NamedTuple; and what ``abc`` writes.
PUBLIC = {"_exit", "_asdict", "_fields", "_make", "_replace", "_abc_impl", "_is_protocol"}


def _has(owner: Any, name: str) -> bool:
    """Is it there; of a class also what one of its methods sets, or a module of a package."""
    if hasattr(owner, name) or (inspect.ismodule(owner) and _is_module(f"{owner.__name__}.{name}")):
        return True
    methods = [each for base in getattr(owner, "__mro__", ()) for each in vars(base).values()]
    return any(name in each.__code__.co_names for each in methods if isinstance(each, FunctionType))


def _missing(owner: str, names: str) -> Iterator[str]:
    module, _, within = owner.partition(":")
    place = importlib.import_module(module)
    place = getattr(place, within) if within else place
    for name, given in NAME.findall(names):
        if not _has(place, name):
            yield f"{owner} has no {name}"
        elif given and (lacks := _lacking(getattr(place, name), given.split(","))):
            yield f"{owner}.{name} takes no {', '.join(lacks)}"


def _lacking(function: Any, names: Iterable[str]) -> list[str]:
    """The arguments that it does not take by their names."""
    parameters = inspect.signature(function).parameters
    by_name = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return [] if by_name else [name for name in names if name not in parameters]


@pytest.mark.parametrize("file", COUNTED_ON)
def test_what_a_file_of_ours_counts_on_is_there(file: str) -> None:
    assert [text for owner, names in COUNTED_ON[file].items() for text in _missing(owner, names)] == []


def _nodes(source: str) -> Nodes:
    return list(ast.walk(ast.parse(source)))


def _set_on_self(nodes: Nodes) -> set[str]:
    """The attributes that methods set."""
    attributes = [each for each in nodes if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)]
    return {each.attr for each in attributes if _is_self(each.value)}


def _is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _private(nodes: Nodes, inherited: Container[str] = ()) -> set[str]:
    """The private names of others that a module uses: those that neither it nor a base of ours defines."""
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)} | _set_on_self(nodes)
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = set()
    for node in nodes:
        match node:
            case ast.Attribute(value=value, attr=name) if not (_is_self(value) and name in inherited):
                used.add(name)
            case ast.alias(name=name):
                used.add(name)
            case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                used.add(name)
    return {name for name in used - own if _is_private(name)}


def _from_inside(nodes: Nodes) -> set[tuple[str, str]]:
    """What a module takes out of modules that no documentation has: the module and the name."""
    found, modules = set(), {}
    for node in nodes:
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {(module, each.name) for each in names}
                modules |= {each.asname or each.name: f"{module}.{each.name}" for each in names}
            case ast.Import(names=names):
                modules |= {each.asname or each.name: each.name for each in names}
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=alias), attr=name) if alias in modules:
                found.add((modules[alias], name))
    return {
        each for each in found if each[0].split(".")[0] in THEIRS and each[0] not in DOCUMENTED and _is_module(each[0])
    }


def _is_module(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:  # a name of a module that is no package
        return False


def _overridden(file: str) -> Iterator[tuple[str, str, Any, Any]]:
    """The classes of a module and what they override of others: class, name, ours, theirs."""
    module = importlib.import_module(f"celerypipe.{file.removesuffix('.py').replace('/', '.')}")
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    for one in classes:
        strangers = [base for base in one.__mro__[1:] if base.__module__.split(".")[0] in THEIRS]
        for name, ours in vars(one).items():
            for theirs in [vars(base)[name] for base in strangers if name in vars(base)][:1]:
                yield one.__name__, name, ours, theirs


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def test_each_private_name_and_undocumented_module_that_we_use_is_in_the_table() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    modules = {file: _nodes(source) for file, source in sources.items()}
    told = {
        (file, owner, name)
        for file, owners in COUNTED_ON.items()
        for owner, names in owners.items()
        for name, _ in NAME.findall(names)
    }
    assert [each for each in told if not re.search(rf"\b{each[2]}\b", sources[each[0]])] == [], "no longer used"
    inside = {(file, *each) for file, nodes in modules.items() for each in _from_inside(nodes)}
    assert inside - told == set(), "out of a module that no documentation has: is there a documented one?"
    inherited = set().union(*map(_set_on_self, modules.values()))
    private = {(file, name) for file, nodes in modules.items() for name in _private(nodes, inherited)}
    private |= {(file, name) for file in COUNTED_ON for _, name, _, _ in _overridden(file) if _is_private(name)}
    private -= {(file, each) for file, owner, name in told for each in (owner, name)}
    assert private == set(), "a private name that others may change: is there a public one?"


def test_what_is_used_is_found_however_it_is_written() -> None:
    lines = ["self._pool", "x()._config", "super()._get()", "getattr(x, '_name')", "from celery import _state"]
    assert [line for line in lines if not _private(_nodes(line))] == []
    fine = ["self._pool = 1\nself._pool", "def _get(): ...\nx._get", "os._exit(1)", "x.__dict__", "x._replace()"]
    assert [line for line in fine if _private(_nodes(line))] == []
    lines = [
        "from celery.utils.log import mlevel",
        "import billiard as b\nb.Lock",
        "from celery.worker import state\nstate.x",
    ]
    assert [line for line in lines if not _from_inside(_nodes(line))] == []
    fine = ["from celery import Celery\nCelery.x", "import redis\nredis.Redis", "from celerypipe.redis import x\nx.y"]
    assert [line for line in fine if _from_inside(_nodes(line))] == []


@pytest.mark.parametrize("file", COUNTED_ON)
def test_what_we_override_takes_what_it_is_given(file: str) -> None:
    for owner, name, ours, theirs in _overridden(file):
        if isinstance(ours, FunctionType) and isinstance(theirs, FunctionType):
            given = inspect.signature(theirs).parameters.values()
            lacks = _lacking(ours, [each.name for each in given if each.kind is not each.VAR_POSITIONAL])
            assert not lacks, f"{owner}.{name} of celerypipe/{file} is given {lacks}"


def test_python_and_pydantic_do_what_we_count_on() -> None:
    call: Future[None] = Future()
    assert call.cancel()
    assert not call.set_running_or_notify_cancel(), "runner/functions/submission.py: who waits hears of it"
    assert {1.5, 2.5} <= set(gc.get_referents({"one": 1.5}, [2.5])), "codec/plain.py: what they hold, in one call"

    class Frozen(pydantic.BaseModel, frozen=True):
        @cached_property
        def found(self) -> int:
            return 7

    one = Frozen()
    assert one.found == one.__dict__["found"], "definition/shape.py: what was found out lies there"
