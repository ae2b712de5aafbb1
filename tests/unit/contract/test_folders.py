"""A folder is one folder, however it is spelt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.contract.reach import Reach
from celerypipe.definition.pipeline import Pipeline
from celerypipe.embedded.embedded import Embedded
from celerypipe.errors import ConfigError
from celerypipe.folders import distinct, path_of
from celerypipe.settings import Settings
from celerypipe.worker.config import load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of this user and the current folder, with a plugin in it and a link to that."""
    place = tmp_path / "plugins" / "nodes" / "proc" / "_thing"
    place.mkdir(parents=True)
    (place / "thing.py").write_text(
        "from celerypipe import Proc\nclass Thing(Proc):\n    def update(self, message): return message\n"
    )
    (tmp_path / "link").symlink_to("plugins")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spellings(home: Path) -> list[str]:
    return [
        "plugins",
        "./plugins/",
        "plugins/../plugins",
        "link",
        "~/plugins",
        str(home / "plugins"),
        f"{home}//link/.",
    ]


def test_a_plugin_folder_that_is_named_in_every_way_is_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = spellings(home)
    assert distinct(map(path_of, [*every, "other", "./other", "/other"])) == (
        Path("plugins"),
        Path("other"),
        Path("/other"),
    )
    monkeypatch.setenv("CELERYPIPE_PLUGINS", os.pathsep.join(every))
    settings = Settings.from_environment()
    assert len(settings.plugins) == 1
    nodes = [{"name": "a", "type": "proc", "mark": "thing"}]
    pipeline = Pipeline.from_dict({"plugins": every, "pipeline": {"name": "p", "nodes": nodes}}, home)
    catalogue = Catalogue([*pipeline.plugin_folders, *settings.plugins])
    assert [listing.mark for listing in catalogue.listings() if "plugin" in listing.origin] == ["thing"]
    assert catalogue.find("thing", "proc").type == "proc"
    told = Embedded(pipeline)._plan.environment["CELERYPIPE_PLUGINS"]
    assert told == str(home / "plugins")
    (home / "gpu.toml").write_text('plugins = ["~/plugins"]\n')
    assert load("gpu", home).plugins == (home / "plugins",)


def test_what_lies_in_a_folder_is_within_it_through_any_spelling_and_no_link_leads_out(home: Path) -> None:
    (home / "secret").write_text("")
    (home / "plugins" / "out").symlink_to(home / "secret")
    for spelling in spellings(home):
        reach = Reach.of([Path(spelling)], "cure")
        for each in spellings(home):
            assert reach.complaint(path_of(each) / "new") == ""
            assert "is outside the allowed folders" in reach.complaint(path_of(each) / "out")
            assert "is outside the allowed folders" in reach.complaint(path_of(each) / "..")


def test_a_disk_that_knows_no_case_has_one_folder_under_both_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def caseless(path: object, **options: object) -> os.stat_result:
        return stat(str(path).replace("PLUGINS", "plugins"), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", caseless)
    assert distinct([Path("plugins"), Path("PLUGINS")]) == (Path("plugins"),)
    assert Reach.of([Path("plugins")], "cure").complaint("PLUGINS/new") == ""
    assert "is outside the allowed folders" in Reach.of([Path("plugins")], "cure").complaint("OTHER/new")


def test_the_home_of_nobody_is_a_name_like_any_other() -> None:
    assert path_of("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_a_folder_that_a_variable_would_part_in_two_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a:b"
    place.mkdir()
    nodes = [{"name": "a", "type": "proc", "mark": "thing"}]
    pipeline = Pipeline.from_dict({"pipeline": {"name": "p", "nodes": nodes}}, place)
    with pytest.raises(
        ConfigError, match="has a ':', which separates the folders in CELERYPIPE_ALLOW; rename the folder"
    ):
        Embedded(pipeline)
