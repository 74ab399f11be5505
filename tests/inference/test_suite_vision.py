"""The suites of inference that look at images: ViT, SSD, CRNN."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_flagperf import DatasetError
from pytest_flagperf import datasets
from tests.conftest import SUITES


np = pytest.importorskip("numpy")

from pytest_flagperf.worker import ctc  # noqa: E402  # needs numpy
from suites.training.crnn import strings  # noqa: E402
from suites.training.ssd import boxes  # noqa: E402
from suites.training.ssd import precision  # noqa: E402
from suites.training.ssd import scenes  # noqa: E402
from suites.training.ssd.test_ssd import CASE as SSD  # noqa: E402


QUALITY = {"vit": "top1", "ssd": "box_ap", "crnn": "cer"}


@pytest.fixture
def digits(data_root: Path) -> Path:
    """The folder of the real digits."""
    return datasets.locate("digits", overrides={}, data_root=data_root, say=print).path


def scores_of(classes: list[int], count: int = 11) -> Any:
    """Scores [columns, classes] whose best are these."""
    return np.eye(count, dtype=np.float32)[classes]


def test_a_class_that_repeats_is_read_once_unless_a_blank_is_between():
    assert ctc.greedy(scores_of([0, 4, 4, 0, 4, 1, 1, 0]), strings.SYMBOLS) == "330"
    assert ctc.greedy(scores_of([0, 0, 0]), strings.SYMBOLS) == ""


def test_errors_are_counted_in_characters_over_all_texts():
    pytest.importorskip("jiwer")
    assert ctc.character_errors(["123", "45"], ["123", "45"]) == (0, 5)
    # One was substituted, two left out; then one put in.
    assert ctc.character_errors(["123", "45"], ["193", ""]) == (3, 5)
    assert ctc.character_errors(["123", "45"], ["123", "455"]) == (1, 5)


def test_lines_are_the_same_for_a_seed_and_made_of_the_scans_of_their_split(digits):
    images, texts = strings.lines(digits, "test", 20, 0)
    assert images.shape == (20, 1, 32, 128)
    assert images.dtype == np.float32
    assert all(3 <= len(text) <= 7 and set(text) <= set("0123456789") for text in texts)
    again, same = strings.lines(digits, "test", 20, 0)
    assert (again == images).all()
    assert same == texts
    others, _ = strings.lines(digits, "train", 20, 0)
    assert (others != images).any()


def test_words_of_a_user_are_images_in_gray_and_text_in_lower_case(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from suites.inference.crnn.words import Words

    image.new("RGB", (60, 20), (255, 255, 255)).save(tmp_path / "a.png")
    image.new("L", (30, 30), 0).save(tmp_path / "b.png")
    (tmp_path / "test.tsv").write_text("a.png\tHello!\nb.png\t42\n")
    config = SimpleNamespace(image_width=100, image_height=32, decoder_processes=1)
    words = Words(tmp_path, "test", config, "0123456789abcdefghijklmnopqrstuvwxyz")
    assert words.texts == ["hello", "42"]
    pixels = words[[1, 0]]
    assert (pixels.shape, pixels.dtype) == ((2, 1, 32, 100), np.float32)
    assert (pixels[0] == -1).all()
    assert (pixels[1] == 1).all()
    (tmp_path / "test.tsv").write_text("a.png\tHello!\nb.png 42\n")
    with pytest.raises(DatasetError, match=r"test\.tsv, line 2: no TAB"):
        Words(tmp_path, "test", config, "42")


def test_an_image_that_is_missing_or_damaged_is_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    from suites.inference.crnn.words import Words
    from suites.inference.resnet50.images import ImageNet
    from suites.inference.ssd.images import Photos
    from suites.inference.vit.images import Squeezed

    config = SimpleNamespace(image_size=32, image_width=32, image_height=32, decoder_processes=1)
    good, missing, cut = (tmp_path / name for name in ("good.png", "missing.png", "cut.png"))
    image.effect_noise((64, 64), 50).save(good)
    cut.write_bytes(good.read_bytes()[:1000])
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path in (missing, cut, text):
        (tmp_path / "test.tsv").write_text(f"good.png\tone\n\n{path.name}\ttwo\n")
        files = [(str(good), 0), (str(path), 1)]
        for images in (
            ImageNet(files, config),
            Squeezed(files, config),
            Photos([good, path], config),
            Words(tmp_path, "test", config, "abc"),
        ):
            assert len(images[[0]]) == 1
            with pytest.raises(DatasetError, match=rf"image {path} cannot be read: "):
                images[[0, 1]]


def test_annotations_that_do_not_list_the_images_are_refused(tmp_path):
    pytest.importorskip("PIL.Image")
    from suites.inference.ssd.images import Coco

    config = SimpleNamespace(image_size=32, decoder_processes=1)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    listed = tmp_path / "annotations" / "instances_val2017.json"
    listed.write_text('{"images": [{"file_name": "a.jpg"}]}')
    with pytest.raises(DatasetError, match=r"lists 1 images, .*val2017 has 0"):
        Coco(tmp_path, config)
    listed.write_text('{"images": [')
    with pytest.raises(DatasetError, match=r"instances_val2017\.json cannot be read"):
        Coco(tmp_path, config)
    listed.write_text('{"images": [{"file_name": "a.jpg"}]}')
    (tmp_path / "val2017" / "a.jpg").touch()
    assert len(Coco(tmp_path, config)) == 1


def test_the_names_of_the_network_are_found_without_a_second_one(monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload
    from suites.inference.vit.pytorch import ViT
    from suites.inference.vit.test_vit import CASE

    made = ViT.__new__(ViT)
    made.config = SimpleNamespace(**CASE.scales["lite"].config)
    state, devices = made.network().state_dict(), []

    def network():
        found = ViT.network(made)
        devices.append(found.classifier.weight.device.type)
        return found

    monkeypatch.setattr(made, "network", network, raising=False)
    monkeypatch.setattr(PyTorchInferenceWorkload, "state", lambda self: state)
    assert made.state().keys() == state.keys()
    assert torch.equal(made.state()["classifier.weight"], state["classifier.weight"])
    assert set(devices) == {"meta"}


def test_digits_of_a_scene_are_in_their_boxes_and_cover_no_other(digits):
    images, objects = scenes.scenes(digits, "test", 40, 0)
    assert images.shape == (40, 1, scenes.SIDE, scenes.SIDE)
    assert (scenes.scenes(digits, "test", 40, 0)[0] == images).all()
    for image, found in zip(images[:, 0], objects, strict=True):
        for left, top, right, bottom, label in found.astype(int):
            assert scenes.SMALLEST <= bottom - top <= scenes.LARGEST
            assert 0 <= label < scenes.CLASSES
            # What is behind a digit is never as bright as one.
            assert image[top:bottom, left:right].max() > (0.75 - scenes.MEAN) / scenes.DEVIATION
        apart = boxes.overlaps(found[:, :4], found[:, :4]) - np.eye(len(found))
        assert np.abs(apart).max(initial=0) < 1e-6
    assert {len(found) for found in objects} == {1, 2, 3, 4}


def configuration() -> SimpleNamespace:
    return SimpleNamespace(**SSD.scales["lite"].config)


def said_of(defaults: Any, objects: Any) -> tuple[Any, Any]:
    """What a detector that is never wrong says of a scene."""
    classes, offsets = boxes.matched(defaults, objects)
    return 20 * np.eye(scenes.CLASSES + 1, dtype=np.float32)[classes], offsets


def precision_of(digits: Path, change=lambda scores, offsets: (scores, offsets)) -> float:
    """The average precision of answers that are right but for ``change``."""
    defaults = boxes.default_boxes(configuration())
    _, objects = scenes.scenes(digits, "test", 20, 0)
    found = []
    for image, one in enumerate(objects):
        detected = boxes.detections(*change(*said_of(defaults, one)), defaults, scenes.SIDE)
        found.append(precision.listed(image, detected))
    return precision.average_precision(precision.truth(objects, scenes.SIDE, scenes.CLASSES), np.concatenate(found))


def test_detections_are_found_batch_by_batch_and_the_large_outputs_are_not_kept(digits):
    pytest.importorskip("torch")
    pytest.importorskip("pycocotools")
    from pytest_flagperf.worker.inference.answers import Answers
    from pytest_flagperf.worker.inference.workload import Weights
    from pytest_flagperf.worker.inference.workload import load
    from pytest_flagperf.worker.workload import Config
    from pytest_flagperf.worker.workload import Data
    from suites.inference.ssd.test_ssd import CASE

    config = Config({**CASE.scales["lite"].config, "test_scenes": 150})
    kind = load(str(SUITES / "inference" / "ssd"), "pytorch:Detector")
    made = kind(config, Data("digits", digits), Weights("right", Path("right")), 1, 40, "cpu")
    _, objects = scenes.scenes(digits, "test", 150, 0)
    answers, large = Answers(made, 40), 0
    for start in range(0, 150, 40):
        said = [said_of(made.defaults, one) for one in objects[start : start + 40]]
        outputs = tuple(np.stack(column) for column in zip(*said, strict=True))
        large += sum(one.nbytes for one in outputs)
        answers.add(outputs)
    assert made.quality(answers.batches)["box_ap"] == pytest.approx(1)
    assert sum(found.nbytes for (found,) in answers.batches) < large / 10
    assert len(answers.kept) == 128
    index = max(answers.kept)
    assert (answers.to(index)[0] == said_of(made.defaults, objects[index])[0]).all()


def test_right_answers_have_the_best_precision_and_wrong_ones_less(digits):
    pytest.importorskip("pycocotools")
    assert precision_of(digits) == pytest.approx(1)
    moved = precision_of(digits, lambda scores, offsets: (scores, offsets + np.float32([1, 0, 0, 0])))
    assert 0 < moved < 0.9
    # Every digit is taken for the next.
    assert precision_of(digits, lambda scores, offsets: (np.roll(scores, 1, axis=1), offsets)) < 0.05
    assert precision_of(digits, lambda scores, offsets: (np.zeros_like(scores), offsets)) < 0.3


def test_detections_are_in_the_pixels_and_by_the_numbers_of_the_annotations():
    from suites.inference.ssd.answers import detected

    defaults = np.float32([[20, 20, 20, 20], [60, 60, 20, 20]])
    config = SimpleNamespace(image_size=100, first_category=1)
    images = [{"id": 7, "width": 200, "height": 50}, {"id": 9, "width": 100, "height": 100}]
    # The first box is of class 1 in the first image, the second of class 0 in the second; the rest is background.
    scores = np.float32([[[0, 0, 20], [20, 0, 0]], [[20, 0, 0], [0, 20, 0]]])
    found = detected((scores, np.zeros((2, 2, 4), np.float32)), images, defaults, config)
    assert found[:, [0, 1, 2, 3, 4, 6]].tolist() == [[7, 20, 5, 40, 10, 2], [9, 50, 50, 20, 20, 1]]
    assert (found[:, 5] > 0.99).all()
    # An image that is missing is no detection less, but an error.
    with pytest.raises(ValueError, match="shorter"):
        detected((scores[:1], np.zeros((1, 2, 4), np.float32)), images, defaults, config)


def test_published_names_of_layers_are_those_of_the_network():
    from suites.inference.vit.names import by_own_names

    published = [
        "vit.encoder.layer.3.attention.attention.query.weight",
        "vit.encoder.layer.3.attention.output.dense.bias",
    ]
    published += ["vit.encoder.layer.3.intermediate.dense.weight", "vit.encoder.layer.3.output.dense.weight"]
    own = ["vit.layers.3.attention.q_proj.weight", "vit.layers.3.attention.o_proj.bias"]
    own += ["vit.layers.3.mlp.fc1.weight", "vit.layers.3.mlp.fc2.weight"]
    assert list(by_own_names(dict.fromkeys([*published, "classifier.bias"]), [*own, "classifier.bias"])) == [
        *own,
        "classifier.bias",
    ]
    # A network that has the published names keeps them.
    assert list(by_own_names(dict.fromkeys(published), published)) == published


def test_of_boxes_that_overlap_the_best_is_left_and_other_classes_are_not_touched():
    defaults = np.float32([[20, 20, 20, 20], [21, 20, 20, 20], [60, 60, 20, 20]])
    scores = np.float32([[0, 5, 4], [0, 8, 0], [0, 0, 9]])
    found = boxes.detections(scores, np.zeros((3, 4), np.float32), defaults, 96)
    assert found[:, 4].tolist() == [1, 0, 1]
    assert found[1, :4].tolist() == [11, 10, 31, 30]
    assert (np.diff(found[:, 5]) <= 0).all()


def test_the_default_boxes_of_the_full_scale_are_the_8732_of_ssd300():
    from suites.inference.ssd.test_ssd import CASE

    found = boxes.default_boxes(SimpleNamespace(**CASE.scales["full"].config))
    assert found.shape == (8732, 4)
    assert found[0].tolist() == [4, 4, 21, 21]
    assert found[-1].tolist() == pytest.approx([150, 150, 261 / 2**0.5, 261 * 2**0.5])


@pytest.mark.slow
@pytest.mark.parametrize("model", QUALITY)
def test_a_model_answers_as_right_by_another_engine_on_weights_that_were_trained_here(model, tmp_path):
    command = [sys.executable, "-m", "pytest", str(SUITES / "inference"), "-m", f"{model} and lite and throughput"]
    done = subprocess.run(
        [*command, "--engine=eager,onnxruntime", f"--flagperf-dir={tmp_path / 'results'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for path in tmp_path.glob("results/*/*/result.json"):
        one = json.loads(path.read_text())
        found[one["case"]["engine"]] = {name: metric["value"] for name, metric in one["metrics"].items()}
    assert set(found) == {"eager", "onnxruntime"}
    name = QUALITY[model]
    assert found["eager"][name] == pytest.approx(found["onnxruntime"][name], rel=0.01)
    assert found["onnxruntime"]["output_error"] < 1e-3


FULL = {
    # The sets of weights and data, trainable parameters, and what is shortened so that a processor answers in time.
    "ssd": ("ssd-coco", "coco2017", 20_940_514, "ssd/images.py", {"SAMPLES = 512": "SAMPLES = 4"}),
    "crnn": ("crnn-words", "iiit5k", 8_330_789, "crnn/words.py", {"SAMPLES = 3000": "SAMPLES = 4"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", FULL)
def test_the_full_network_is_measured_for_its_speed_with_random_weights_and_data(model, tmp_path):
    weights, dataset, parameters, images, shorter = FULL[model]
    suites = tmp_path / "suites"
    shutil.copytree(SUITES, suites, ignore=shutil.ignore_patterns("__pycache__"))
    replace(suites / "inference" / images, shorter)
    batch = {"ssd": '"batch_size": 64', "crnn": '"batch_size": 250'}[model]
    module = suites / "inference" / model / f"test_{model}.py"
    replace(module, {batch: '"batch_size": 2', '"minimum_time": 5.0,': ""})
    command = [sys.executable, "-m", "pytest", str(module), "--scale=full", "--engine=onnxruntime"]
    given = [f"--weights={weights}=random", f"--dataset={dataset}=synthetic"]
    done = subprocess.run(
        [*command, *given, f"--flagperf-dir={tmp_path / 'results'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("results/*/*/result.json")
    result = json.loads(path.read_text())
    assert result["dataset"]["synthetic"]
    assert QUALITY[model] not in result["metrics"]
    assert result["metrics"]["p_inference_core"]["value"] > 0
    (events,) = path.parent.glob("round1/*/rank0.events.jsonl")
    told = next(one for line in events.read_text().splitlines() if (one := json.loads(line))["event"] == "INIT_END")
    assert told["value"]["parameters"] == parameters


def replace(path: Path, changes: dict[str, str]) -> None:
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
