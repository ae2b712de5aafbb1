"""The tutorial in Python: the twin of ``pipeline.json``. Start ``server.py`` first."""

from pathlib import Path

from celerypipe import Embedded, NodeDefinition, Pipeline, Runner

HERE = Path(__file__).resolve().parent

pipeline = Pipeline(
    version="1.0.0",
    plugins=[str(HERE / "plugins")],
    name="test_mocked_pipeline",
    id="1234567890",
    folder=str(HERE / "pipe"),
    nodes=[
        NodeDefinition(name="0_src", type="source", mark="data_streamer"),
        NodeDefinition(
            name="1_proc",
            type="proc",
            mark="passthrough_identity",
            configuration={"delay": 2},
            warped=True,
            warp_configuration={"queue": "remote", "timeout": 5},
        ),
        NodeDefinition(
            name="2_dst",
            type="sink",
            mark="notifier_websocket",
            configuration={"endpoint": "ws://127.0.0.1:8081"},
        ),
    ],
    links=[("0_src", "1_proc"), ("1_proc", "2_dst")],
)

if __name__ == "__main__":
    with Embedded(pipeline) as redis_url:
        report = Runner(redis=redis_url).run(pipeline)
    print(report.table())
