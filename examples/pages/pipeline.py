"""Pages and faces, in Python: the twin of ``pipeline.json``. Run it from the root of the checkout."""

from pathlib import Path

from celerypipe import Embedded, NodeDefinition, Pipeline, Runner

HERE = Path(__file__).resolve().parent
OUT = "examples/pages/out"

pipeline = Pipeline(
    name="pages_and_faces",
    id="pages",
    plugins=[str(HERE / "plugins")],
    nodes=[
        NodeDefinition(name="pages", type="source", mark="sample_pages"),
        NodeDefinition(name="resize", type="proc", mark="resize", configuration={"longest_side": 960}),
        NodeDefinition(
            name="text",
            type="proc",
            mark="tasks.gpu.ReadText",
            warped=True,
            warp_configuration={"queue": "gpu", "timeout": 120},
        ),
        NodeDefinition(
            name="faces",
            type="proc",
            mark="tasks.cpu.DetectFaces",
            warped=True,
            warp_configuration={"queue": "cpu", "timeout": 60},
        ),
        NodeDefinition(name="describe", type="proc", mark="describe", sync="key:image"),
        NodeDefinition(name="annotate", type="proc", mark="annotate", sync="key:image"),
        NodeDefinition(
            name="pictures",
            type="sink",
            mark="image_files",
            configuration={"folder": OUT, "pattern": "{image}.png"},
        ),
        NodeDefinition(
            name="records",
            type="sink",
            mark="json_lines",
            configuration={"path": f"{OUT}/pages.jsonl"},
        ),
    ],
    links=[
        ("pages", "resize"),
        ("resize", "text"),
        ("resize", "faces"),
        ("faces", "describe"),
        ("text", "describe"),
        ("resize", "annotate"),
        ("describe", "annotate"),
        ("annotate", "pictures"),
        ("describe", "records"),
    ],
)

if __name__ == "__main__":
    with Embedded(pipeline) as redis_url:
        report = Runner(redis=redis_url).run(pipeline)
    print(report.table())
    print(f"The pictures are in {OUT}")
