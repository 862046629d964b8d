"""IE-Vnet's published file cannot be had here; these checkpoints have its names, shapes and ways of being saved."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inference.model_store import ModelError, load_model
from inference.networks.ie_vnet import ie_vnet
from inference.published_weights import import_ie_vnet

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(2)
    return ie_vnet().eval()


@pytest.fixture
def state(network: nn.Module) -> State:
    return dict(network.state_dict())


def saved(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def as_monai_0_3_named_them(state: State) -> State:
    """Names that MONAI 0.3.0 gives the 63 tensors of this network (read off its `state_dict()`)."""
    return {key.replace(".adn.A.", ".act."): value for key, value in state.items()}


FORMS: dict[str, Callable[[State], object]] = {
    "the published way: a state dict of MONAI 0.3": as_monai_0_3_named_them,
    "a state dict of today's MONAI": lambda state: state,
    "state_dict beside epoch and optimizer": lambda s: {"epoch": 3, "optimizer": {"lr": [3e-4]}, "state_dict": s},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.1},
    "model": lambda state: {"model": state},
    "DataParallel": lambda state: prefixed(state, "module."),
    "DataParallel of MONAI 0.3 inside a dictionary": lambda state: {
        "state_dict": prefixed(as_monai_0_3_named_them(state), "module.")
    },
    "a Lightning module": lambda state: {"state_dict": prefixed(state, "net."), "hyper_parameters": {"lr": 3e-4}},
    "a compiled network": lambda state: prefixed(state, "_orig_mod."),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_ways_in_which_people_save_a_network_are_all_read(
    form: Callable[[State], object], state: State, tmp_path: Path
) -> None:
    import_ie_vnet(saved(form(state), tmp_path / "weights.pth"), tmp_path / "model")
    found = load_model(tmp_path / "model").network.state_dict()
    assert found.keys() == state.keys()
    for key, tensor in state.items():
        kernel = tensor.ndim == 5
        assert torch.equal(found[key], tensor.permute(0, 1, 4, 3, 2) if kernel else tensor), key


def test_the_form_of_torch_before_1_6_is_read_too(state: State, tmp_path: Path) -> None:
    old = saved(state, tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    import_ie_vnet(old, tmp_path / "model")
    assert load_model(tmp_path / "model").description.network == "ie_vnet"


def test_the_imported_network_gives_the_published_answer_with_axes_reversed(
    network: nn.Module, state: State, tmp_path: Path
) -> None:
    """The published network saw (x, y, z); our arrays are (k, j, i)."""
    import_ie_vnet(saved(state, tmp_path / "weights.pth"), tmp_path / "model")
    imported = load_model(tmp_path / "model").network
    xyz = torch.rand(1, 1, 48, 32, 16)
    with torch.no_grad():
        published, ours = network(xyz), imported(xyz.permute(0, 1, 4, 3, 2))
        mistaken = imported(xyz)
    torch.testing.assert_close(ours, published.permute(0, 1, 4, 3, 2), rtol=1e-4, atol=1e-4)
    assert (mistaken - published).abs().max() > 0.01


def test_the_folder_says_where_the_weights_come_from_and_what_they_expect(state: State, tmp_path: Path) -> None:
    described = import_ie_vnet(saved(state, tmp_path / "best_metric_model.pth"), tmp_path / "model")
    written = json.loads((tmp_path / "model" / "model.json").read_text())
    assert written["inputs"] == ["MRC"]
    assert written["shape"] == [112, 160, 208]
    assert written["spacing_mm"] == [0.2, 0.2, 0.2]
    assert written["training"]["file"] == "best_metric_model.pth"
    assert re.fullmatch("[0-9a-f]{64}", written["training"]["file_sha256"])
    assert described.intended_use.startswith("Research use only")
    assert described.interval_scales == {}


# --- What does not fit is refused -------------------------------------------------------------------------------------


def test_missing_and_extra_tensors_are_named(state: State, tmp_path: Path) -> None:
    state["head.weight"] = state.pop("model.2.0.conv.bias")
    with pytest.raises(
        ModelError,
        match=r"weights\.pth: expected the 63 tensors of UNet, found 63; missing: model\.2\.0\.conv\.bias; "
        r"not of this network: head\.weight",
    ):
        import_ie_vnet(saved(state, tmp_path / "weights.pth"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_kernel_of_another_size_is_named_with_both_shapes(state: State, tmp_path: Path) -> None:
    state["model.2.0.conv.weight"] = torch.zeros(32, 1, 5, 5, 5)
    with pytest.raises(ModelError, match=r"conv\.weight: expected 32x1x3x3x3 of float32, found 32x1x5x5x5"):
        import_ie_vnet(saved(state, tmp_path / "weights.pth"), tmp_path / "model")


def test_weights_that_are_not_numbers_are_refused(state: State, tmp_path: Path) -> None:
    state["model.2.0.conv.bias"] = torch.tensor([torch.nan])
    with pytest.raises(ModelError, match=r"model\.2\.0\.conv\.bias: expected finite values, found 1 of 1 that are not"):
        import_ie_vnet(saved(state, tmp_path / "weights.pth"), tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "expected tensors by name, found Tensor"),
        ([1, 2], "expected tensors by name, found list"),
        ({"epoch": 3, "weights": {"a": torch.zeros(1)}}, r"found epoch \(int\), weights \(dict\)"),
        ({}, "missing: .* and 60 more; not of this network: none"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        import_ie_vnet(saved(content, tmp_path / "weights.pth"), tmp_path / "model")


def test_a_whole_pickled_network_is_not_opened(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"would have to run code to be read; save the network's state_dict\(\) alone"):
        import_ie_vnet(saved(network, tmp_path / "weights.pth"), tmp_path / "model")


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["bare", "checkpoint"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_does_not_run(form: str, tmp_path: Path) -> None:
    touched, weights = tmp_path / "touched", tmp_path / "weights.pth"
    if form == "bare":
        weights.write_bytes(pickle.dumps(_Payload(touched)))
    else:
        saved({"state_dict": _Payload(touched)}, weights)
    with pytest.raises(ModelError, match="would have to run code"):
        import_ie_vnet(weights, tmp_path / "model")
    assert not touched.exists()
    with contextlib.suppress(RuntimeError):  # the bare pickle is no checkpoint, which torch notices too late
        torch.load(weights, weights_only=False)  # the same file, opened without care
    assert touched.exists()


@pytest.mark.parametrize("kept", [0, 10, 5_000, 1_000_000])
def test_a_checkpoint_cut_short_is_refused(kept: int, state: State, tmp_path: Path) -> None:
    whole = saved(state, tmp_path / "whole.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[:kept])
    with pytest.raises(ModelError, match=r"weights\.pth: expected "):
        import_ie_vnet(tmp_path / "weights.pth", tmp_path / "model")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_damage_to_a_checkpoint_escapes_as_anything_but_a_clear_error(zipped: bool, tmp_path: Path) -> None:
    """A byte here and there; what the reader lets pass is still no network."""
    whole = saved(
        {"a": torch.arange(6.0).reshape(2, 3), "lr": 1e-3}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped
    ).read_bytes()
    for position in range(0, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[position] ^= 0x86
        (tmp_path / "weights.pth").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"weights\.pth: "):
            import_ie_vnet(tmp_path / "weights.pth", tmp_path / "model")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.pth: expected a torch checkpoint, found: No such file"):
        import_ie_vnet(tmp_path / "absent.pth", tmp_path / "model")


def test_a_file_too_large_for_weights_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "weights.pth").open("wb") as stream:
        stream.truncate(2**40)  # a hole: takes no disk
    with pytest.raises(ModelError, match="expected a checkpoint of at most 268435456 bytes, found 1099511627776"):
        import_ie_vnet(tmp_path / "weights.pth", tmp_path / "model")
