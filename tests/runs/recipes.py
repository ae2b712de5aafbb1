"""The recipes of ``worker_configs/deploy/``: read strictly, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml

from tests.servers import ROOT

FOLDER = ROOT / "worker_configs" / "deploy"
TEXT, NUMBER, WORDS = {"type": "string"}, {"type": "integer"}, {"type": "array", "items": {"type": "string"}}


def _shape(needed: str = "", **keys: Any) -> dict[str, Any]:
    """An object with these keys and no others: a key that is misspelt is silently nothing to many readers."""
    return {"type": "object", "properties": keys, "additionalProperties": False, "required": needed.split()}


def _list(of: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


_MAPPING = {"type": "object", "additionalProperties": TEXT}
_RESOURCES = {"type": "object", "propertyNames": {"pattern": "^(cpu|memory|.+/gpu)$"}}
_PROBE = _shape(
    exec=_shape("command", command=WORDS),
    httpGet=_shape("path port", path=TEXT, port=TEXT),
    periodSeconds=NUMBER,
    timeoutSeconds=NUMBER,
    failureThreshold=NUMBER,
)
_CONTAINER = _shape(
    "name image command",
    name=TEXT,
    image=TEXT,
    command=WORDS,
    envFrom=_list(_shape("secretRef", secretRef=_shape("name", name=TEXT))),
    resources=_shape(requests=_RESOURCES, limits=_RESOURCES),
    ports=_list(_shape("name containerPort", name=TEXT, containerPort=NUMBER)),
    startupProbe=_PROBE,
    readinessProbe=_PROBE,
    livenessProbe=_PROBE,
    volumeMounts=_list(_shape("name mountPath", name=TEXT, mountPath=TEXT)),
)
_POD = _shape(
    "containers",
    terminationGracePeriodSeconds=NUMBER,
    shareProcessNamespace={"type": "boolean"},
    securityContext=_shape(runAsNonRoot={"type": "boolean"}, runAsUser=NUMBER),
    containers=_list(_CONTAINER),
    volumes=_list(_shape("name emptyDir", name=TEXT, emptyDir=_shape(medium={"const": "Memory"}, sizeLimit=TEXT))),
)
_SELECTOR = _shape("matchLabels", matchLabels=_MAPPING)


def _object(version: str, spec: Any) -> dict[str, Any]:
    return _shape(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind=TEXT,
        metadata=_shape("name", name={"type": "string", "pattern": "^[a-z0-9-]+$"}),
        spec=spec,
    )


#: What is used of each kind of object of Kubernetes and KEDA. Sources: https://kubernetes.io/docs/reference/
#: kubernetes-api/ and https://keda.sh/docs/2.17/scalers/metrics-api/
KINDS = {
    "Deployment": _object(
        "apps/v1",
        _shape(
            "selector template",
            replicas=NUMBER,
            selector=_SELECTOR,
            strategy=_shape(rollingUpdate=_shape(maxSurge=NUMBER, maxUnavailable=NUMBER)),
            template=_shape("metadata spec", metadata=_shape("labels", labels=_MAPPING), spec=_POD),
        ),
    ),
    "Service": _object(
        "v1",
        _shape(
            "selector ports",
            selector=_MAPPING,
            ports=_list(_shape("port targetPort", name=TEXT, port=NUMBER, targetPort=TEXT)),
        ),
    ),
    "ScaledObject": _object(
        "keda.sh/v1alpha1",
        _shape(
            "scaleTargetRef triggers",
            scaleTargetRef=_shape("name", name=TEXT),
            minReplicaCount=NUMBER,
            maxReplicaCount=NUMBER,
            cooldownPeriod=NUMBER,
            triggers=_list(
                _shape(
                    "type metadata",
                    type={"const": "metrics-api"},
                    metadata=_shape("url valueLocation targetValue", url=TEXT, valueLocation=TEXT, targetValue=TEXT),
                )
            ),
        ),
    ),
}
_DEVICE = _shape("driver capabilities", driver=TEXT, device_ids=WORDS, count=NUMBER, capabilities=WORDS)
#: What is used of a file of Docker Compose. Source: https://docs.docker.com/reference/compose-file/services/
COMPOSE = {
    "type": "object",
    "patternProperties": {"^x-": {}},
    "properties": {
        "services": {
            "type": "object",
            "additionalProperties": _shape(
                "image command healthcheck",
                image=TEXT,
                command=WORDS,
                init={"type": "boolean"},
                restart={"enum": ["always", "unless-stopped", "on-failure", "no"]},
                env_file=TEXT,
                shm_size=TEXT,
                stop_grace_period=TEXT,
                healthcheck=_shape("test", test=WORDS, interval=TEXT, timeout=TEXT, retries=NUMBER, start_period=TEXT),
                deploy=_shape(resources=_shape(reservations=_shape(devices=_list(_DEVICE)))),
            ),
        }
    },
    "additionalProperties": False,
    "required": ["services"],
}


def objects(name: str) -> dict[str, Any]:
    """Return the objects of Kubernetes in a recipe, by kind and name, each as its kind wants it."""
    found = {}
    for one in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")):
        jsonschema.validate(one, KINDS[one["kind"]])
        found[f"{one['kind']}/{one['metadata']['name']}"] = one["spec"]
    return found


def services() -> dict[str, Any]:
    """Return the services of the recipe for Docker Compose."""
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    jsonschema.validate(content := yaml.safe_load(text), COMPOSE)
    found: dict[str, Any] = content["services"]
    return found


def typed(document: str) -> list[str]:
    """Return the lines that a reader types: those in fences without a language, behind a $ if one is there."""
    found = []
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    for block in (text for language, text in blocks if not language):
        lines = block.replace("\\\n", " ").splitlines()
        asked = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += asked or lines
    return found


def commands(lines: list[str]) -> Iterator[list[str]]:
    """Return the words behind ``celerypipe`` of each line of a shell that begins with it, or with who runs it."""
    for line in lines:
        for part in re.split(r"&&|\||>", line.partition(" # ")[0]):
            words = shlex.split(part)
            while words and (words[0] in ("exec", "sudo") or re.fullmatch(r"\w+=.*", words[0])):
                del words[0]
            if words and words[0].rpartition("/")[2] == "celerypipe":
                yield words[1:]


def commands_of_recipes() -> Iterator[list[str]]:
    """Return those of all recipes."""
    for unit in sorted(FOLDER.glob("*.service")):
        starts = re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        yield from commands([start.replace("%i", "gpu") for start in starts])
    script = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
    yield from commands([line.replace("$queue", "gpu") for line in script.splitlines() if line.startswith("exec ")])
    for service in services().values():
        yield service["command"][1:]
        yield service["healthcheck"]["test"][2:]
    for deployment in (spec for kind, spec in objects("kubernetes.yaml").items() if kind.startswith("Deployment/")):
        for container in deployment["template"]["spec"]["containers"]:
            yield container["command"][1:]
            probes = [container.get(f"{name}Probe", {}) for name in ("startup", "readiness", "liveness")]
            yield from (probe["exec"]["command"][1:] for probe in probes if "exec" in probe)
