import builtins

import pytest
import torch

from helpers import half
from tlrun.errors import ConfigError, RunError
from tlrun.inference import export
from tlrun.inference.predict import load

torch.set_num_threads(1)


def test_torch_export_takes_raw_images_in_any_number(image_run, tmp_path, capsys):
    path = export.main(image_run.run.path, output=tmp_path / "model.pt2")
    assert "largest difference to the model" in capsys.readouterr().out
    model = load(image_run.run.path)
    program = torch.export.load(path).module()
    for count in (1, 7):
        x = export.example(model, count)
        assert x.dtype == torch.uint8
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


def test_features_and_the_default_place(feature_run):
    assert export.main(feature_run.run.path) == feature_run.run.path / "model.pt2"


def test_onnx(image_run, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra tlrun[onnx] is not installed")
    pytest.importorskip("onnxscript", reason="the extra tlrun[onnx] is not installed")
    path = export.main(image_run.run.path, "onnx", tmp_path / "model.onnx")
    assert path.stat().st_size > 0


def test_a_missing_extra_says_what_to_install(image_run, monkeypatch, tmp_path):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("onnx"):
            raise ImportError(f"No module named '{name}'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install onnx"):
        export.main(image_run.run.path, "onnx", tmp_path / "model.onnx")


def test_an_unknown_format(image_run):
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        export.main(image_run.run.path, "onxx")


def test_outputs_that_differ_are_an_error(image_run, tmp_path):
    model = load(image_run.run.path)
    with pytest.raises(RunError, match="computes other logits"):
        export._compare(model, tmp_path / "model.pt2", lambda x: model(x) + 1)


def test_an_export_within_autocast_is_made_in_fp32(image_run, tmp_path):
    model = load(image_run.run.path)
    with half.autocast():
        path = export.main(image_run.run.path, output=tmp_path / "model.pt2")
    program = torch.export.load(path)
    assert not any(
        torch.bfloat16 in map(_dtype, node.all_input_nodes) for node in program.graph.nodes
    )
    x = export.example(model, 5)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def _dtype(node):
    return getattr(node.meta.get("val"), "dtype", None)
