import json

import datasets
import pytest

from exp.config.schema import FieldsConfig
from exp.data.sources import load_rows
from exp.errors import DataError

FIELDS = FieldsConfig(input="text", output="target")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path / "cache"))


def test_hub_data_sets_are_read_with_configuration_and_split(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: _table(*args, **kwargs))
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["es"])
    inputs = {
        source: load_rows(f"hub:owner/name{source}", FIELDS, split="validation")[0].input
        for source in ("", ":test", ":es", ":es:test", "::test")
    }
    assert inputs == {
        "": "owner/name None validation",
        ":test": "owner/name None test",
        ":es": "owner/name es validation",
        ":es:test": "owner/name es test",
        "::test": "owner/name None test",
    }


def _table(name, config, split):
    return datasets.Dataset.from_list([{"text": f"{name} {config} {split}", "target": {"n": 1}}])


def test_hub_rows_keep_objects_of_varying_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    targets = [{"f": "x", "a": {"name": "n"}}, {"f": "y", "a": {"year": 1, "tags": [{}]}}]
    (tmp_path / "set").mkdir()
    rows = [{"text": "a", "target": target} for target in targets]
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    examples = load_rows(f"hub:{tmp_path / 'set'}", FIELDS, split="train")
    assert [example.output for example in examples] == targets


def test_a_hub_that_cannot_be_reached_is_an_error_in_three_lines(monkeypatch):

    def fail(*args, **kwargs):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError) as caught:
        load_rows("hub:owner/name", FIELDS, split="train")
    assert str(caught.value).splitlines()[:2] == [
        "The data set owner/name cannot be loaded: Couldn't reach the Hub",
        "  where: hub:owner/name",
    ]
    assert "task.train=" in caught.value.fix
