"""What others published: FlagPerf's rows for NVIDIA, in our names and units."""

from __future__ import annotations

import json

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import metrics
from pytest_flagperf import references
from pytest_flagperf.cli import main


ROW = """
schema_version = 1
vendor = "acme"
publisher = "Acme"

[[row]]
model = "resnet50"
framework = "pytorch"
chip = "A1"
topology = "1x8"
metrics = { p_whole = 100, top1 = 0.75 }
source = "datasheet"
"""


def test_every_published_row_has_a_source_and_figures_in_our_units():
    rows = references.rows()
    assert len(rows) > 40
    for row in rows:
        assert row.source.startswith("FlagPerf training/nvidia/")
        for name, value in {**row.metrics, **row.bounds}.items():
            assert metrics.get(name).unit != "ratio" or 0 <= value <= 1, (row.model, name)


def test_a_rate_in_samples_is_no_rate_in_tokens():
    for row in references.rows():
        for figure in row.other:
            assert figure.name not in metrics.known() or figure.unit != metrics.get(figure.name).unit, row.model
    (transformer,) = references.rows("transformer")
    assert not {"p_whole", "p_train", "p_core"} & set(transformer.metrics)
    assert {one.unit for one in transformer.other} == {"tokens/s"}


def test_resnet50_is_as_published():
    pytorch, tensorflow = references.rows("resnet50")
    assert pytorch.metrics == {"p_whole": 4475, "p_train": 4586, "p_core": 4659, "top1": 0.750, "e2e_time": 28661}
    assert (pytorch.chip, pytorch.topology, pytorch.precision) == ("A100", "1x8", "fp32")
    assert pytorch.bounds == {"top1": 0.755}
    assert tensorflow.framework == "tensorflow2"


def test_a_row_below_its_own_target_says_so():
    for row in references.rows():
        for name, bound in row.bounds.items():
            value = row.metrics.get(name)
            higher = metrics.get(name).better == "higher"
            missed = value is not None and (value < bound if higher else value > bound)
            assert missed == row.note.startswith("Below FlagPerf's own target"), (row.model, name)


@pytest.mark.parametrize("model", ["dlrm", "t5_small", "chatglm3_6b", "llava1_5_7b", "llama1_7b", "retinanet"])
def test_a_suspicious_row_has_a_note(model):
    assert all(row.note for row in references.rows(model))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("top1 = 0.75", "top1 = 75.0", "row 1 (resnet50): top1 is 75: a ratio lies between 0 and 1"),
        ("p_whole", "p_hole", "row 1 (resnet50): unknown metric 'p_hole'. Did you mean 'p_whole'?"),
        ("top1 = 0.75", "top1 = nan", "row 1 (resnet50): top1 is nan"),
        ('"1x8"', '"eight"', "malformed topology 'eight'"),
        ("{ p_whole = 100, top1 = 0.75 }", "{}", "row 1 (resnet50): holds no figure"),
        ('"datasheet"', '" "', "row 1 (resnet50): source is empty"),
        ('source = "datasheet"', "", "missing required field `source`"),
        ('chip = "A1"', 'chip = "A1"\nprecision = "half"', "unknown precision 'half'"),
        ("metrics", "metric", "unknown field `metric`"),
        ("schema_version = 1", "schema_version = 2", "schema_version 2 is not one this version reads (1)"),
    ],
)
def test_a_damaged_file_names_itself_the_row_and_the_key(tmp_path, old, new, message):
    path = tmp_path / "acme.toml"
    path.write_text(ROW)
    assert references.load(path).row[0].metrics["top1"] == 0.75
    assert old in ROW
    path.write_text(ROW.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        references.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_command_prints_a_table_with_the_notes_below(capsys):
    assert main(["reference", "resnet50"]) == 0
    out = capsys.readouterr().out
    assert "p_whole 4475 samples/s" in out
    assert "top1 0.75" in out
    assert "[1] resnet50: Below FlagPerf's own target" in out
    assert "transformer" not in out


def test_the_command_prints_every_row_as_json(capsys):
    assert main(["reference", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(references.rows())


def test_an_unknown_model_lists_those_there_are(capsys):
    assert main(["reference", "resnet51"]) == 1
    err = capsys.readouterr().err
    assert "'resnet51'" in err
    assert "resnet50" in err
