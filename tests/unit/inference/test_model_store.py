"""Model folders: what was saved comes back, and whatever was changed on the way is refused by name."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.model_store import ModelDescription, ModelError, load_model, read_description, save_model
from inference.networks import build_network

OPTIONS: dict[str, dict[str, object]] = {
    "ear_unet": {"channels": [16, 32], "inputs": 2},
    "oto_unet": {"as_printed": True},
    "ie_vnet": {},
}
INPUTS = {"ear_unet": ("MRC", "HYDROPS"), "oto_unet": ("MRC", "HYDROPS_MI2"), "ie_vnet": ("MRC",)}


def describe(network: str = "ear_unet", **changes: Any) -> ModelDescription:
    values = {
        "name": "ear",
        "version": "1",
        "network": network,
        "network_options": OPTIONS[network],
        "inputs": INPUTS[network],
        "spacing_mm": (1.0, 0.5, 0.5),
        "shape": (24, 48, 48),
        "interval_scales": {"PPI_PEI": 1.0},
        "training": {},
        "intended_use": "Research use only.",
    }
    return ModelDescription(**(values | changes))


def trained(name: str = "ear_unet") -> nn.Module:
    """A network whose weights and running statistics are not those of a fresh one."""
    torch.manual_seed(5)
    network = build_network(name, **OPTIONS[name])
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 3)
    return network


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, trained(), describe())
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model folder that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def rehash(folder: Path) -> None:
    """Make model.json agree with the weights file, so that only what is inside can be found wrong."""
    content = json.loads((folder / "model.json").read_text())
    content["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(content))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "weights.safetensors")
    rehash(folder)


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | changes))


# --- What was saved comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ear_unet", "oto_unet", "ie_vnet"])
def test_every_network_comes_back_with_its_weights_in_half_precision(name: str, tmp_path: Path) -> None:
    network = trained(name)
    save_model(tmp_path, network, describe(name))
    loaded = load_model(tmp_path).network
    assert type(loaded) is type(network)
    expected, found = network.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        half = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[key], half), key
        assert found[key].dtype == tensor.dtype


def test_a_loaded_network_answers_as_the_saved_one(saved: Path) -> None:
    original, loaded = trained().eval(), load_model(saved).network
    for parameter in original.state_dict().values():
        parameter.copy_(parameter.half() if parameter.is_floating_point() else parameter)
    images = torch.rand(2, 2, 8, 8, 8)
    with torch.no_grad():
        for one, other in zip(original(images), loaded(images), strict=True):
            torch.testing.assert_close(one, other)


def test_a_loaded_network_is_ready_to_be_asked(saved: Path) -> None:
    network = load_model(saved).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_float32_weights_can_be_kept_exactly(tmp_path: Path) -> None:
    network = trained()
    save_model(tmp_path, network, describe(), dtype=torch.float32)
    for key, tensor in load_model(tmp_path).network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[key]), key


def test_a_channels_last_network_saves_like_any_other(saved: Path, tmp_path: Path) -> None:
    save_model(tmp_path, trained().to(memory_format=torch.channels_last_3d), describe())
    assert (tmp_path / "weights.safetensors").read_bytes() == (saved / "weights.safetensors").read_bytes()


def test_equal_weights_give_equal_files(saved: Path, tmp_path: Path) -> None:
    save_model(tmp_path, trained(), describe())
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()


def test_saving_tells_the_hash_and_leaves_two_files(tmp_path: Path) -> None:
    described = save_model(tmp_path / "new" / "model", trained(), describe())
    files = {path.name: path for path in (tmp_path / "new" / "model").iterdir()}
    assert set(files) == {"model.json", "weights.safetensors"}
    assert described.weights_sha256 == hashlib.sha256(files["weights.safetensors"].read_bytes()).hexdigest()
    assert read_description(tmp_path / "new" / "model") == described


def test_the_identity_is_the_description_s(saved: Path) -> None:
    model = load_model(saved)
    assert model.identity == model.description.identity == read_description(saved).identity


def test_loading_draws_nothing_from_the_random_generator(saved: Path) -> None:
    torch.manual_seed(11)
    load_model(saved)
    after = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(1))


# --- What does not fit is refused -------------------------------------------------------------------------------------


def test_one_flipped_bit_in_the_weights_is_noticed(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    weights.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ModelError, match=rf"weights\.safetensors: expected the SHA-256 {expected} .*, found {found}"):
        load_model(folder)


def test_truncated_weights_are_noticed_by_their_hash(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"expected the SHA-256 .* bytes\); the file is damaged"):
        load_model(folder)


@pytest.mark.parametrize("kept", [0, 4, 200, 30_000])
def test_truncated_weights_with_a_fitting_hash_are_no_safetensors_file(folder: Path, kept: int) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    rehash(folder)
    with pytest.raises(ModelError, match=r"weights\.safetensors: expected a safetensors file, found: "):
        load_model(folder)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(folder: Path) -> None:
    torch.save(trained().state_dict(), folder / "weights.safetensors")
    rehash(folder)
    with pytest.raises(ModelError, match="expected a safetensors file"):
        load_model(folder)


SPOILED: list[tuple[str, Callable[[dict[str, Tensor]], object], str]] = [
    ("a missing tensor", lambda t: t.pop("head.bias"), r"missing: head\.bias; not of this network: none"),
    ("an extra tensor", lambda t: t.update(gate=torch.ones(1)), "missing: none; not of this network: gate"),
    (
        "another shape",
        lambda t: t.update({"head.weight": torch.zeros(2, 16, 1, 1)}),
        r"head\.weight: expected 2x16x1x1x1 of float32, found 2x16x1x1 of float32",
    ),
    (
        "another kind of number",
        lambda t: t.update({"head.bias": torch.zeros(2, dtype=torch.int64)}),
        r"head\.bias: expected 2 of float32, found 2 of int64",
    ),
    ("NaN", lambda t: t["head.weight"][0, 0].fill_(torch.nan), "expected finite values, found 1 of 32 that are not"),
    ("infinity", lambda t: t["head.bias"].fill_(torch.inf), r"head\.bias: expected finite values, found 2 of 2"),
]


@pytest.mark.parametrize(("change", "message"), [pytest.param(*rest, id=name) for name, *rest in SPOILED])
def test_tensors_of_another_network_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(ModelError, match=rf"^{re.escape(str(folder))}/weights\.safetensors: .*{message}"):
        load_model(folder)


def test_a_long_list_of_missing_tensors_is_shortened(folder: Path) -> None:
    edit(folder, network_options={"channels": [16, 32, 64], "inputs": 2})
    with pytest.raises(ModelError, match=r"missing: down\.2\.0\.weight, down\.2\.1\.bias, .* and \d+ more"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "nnunet"}, r"network 'nnunet' .* expected one of the networks ear_unet,"),
        ({"network_options": {"depth": 3}}, "network ear_unet has the options channels, inputs, found 'depth'"),
        ({"network_options": {"channels": "wide"}}, "network 'ear_unet' with options {'channels': 'wide'}: "),
        ({"network_options": {"channels": [16, 0.5]}}, r"network 'ear_unet' with options .*0\.5"),
        ({"network_options": {"name": 1}}, "network 'ear_unet' with options {'name': 1}: "),
        ({"inputs": ["MRC"]}, r"network 'ear_unet' takes 2 image\(s\), found the inputs MRC"),
        ({"network_options": {"channels": [10**7, 10**7], "inputs": 2}}, "expected 10000000x2x3x3x3 of float32, found"),
        ({"flavor": 1}, r"unknown: \['flavor'\]"),
        ({"shape": "24"}, "shape: expected three positive integers"),
    ],
)
def test_a_model_json_that_fits_no_network_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ModelError, match=rf"^{re.escape(str(folder))}/(model\.json|weights\.safetensors): .*{message}"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_model_json_that_is_no_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json: "):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}: expected a model folder with .*, found: No such file"):
        load_model(folder)


def test_a_file_too_large_for_weights_is_not_read(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as stream:
        stream.truncate(2**40)  # a hole: takes no disk
    with pytest.raises(ModelError, match=r"expected at most 268435456 bytes, found 1099511627776"):
        load_model(folder)


# --- What cannot be loaded is not saved -------------------------------------------------------------------------------


def test_weights_too_large_for_half_precision_are_not_saved(tmp_path: Path) -> None:
    network = trained()
    network.get_parameter("head.bias").data.fill_(70_000.0)
    with pytest.raises(ModelError, match=r"head\.bias: expected finite values up to 65504 \(float16\), found 70000"):
        save_model(tmp_path / "model", network, describe())
    assert not (tmp_path / "model").exists()


def test_a_network_that_went_nan_is_not_saved(tmp_path: Path) -> None:
    network = trained()
    network.get_parameter("head.bias").data.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"head\.bias: expected finite values .*, found nan"):
        save_model(tmp_path / "model", network, describe())
    assert not (tmp_path / "model").exists()


def test_a_network_other_than_the_described_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing: .*; not of this network: "):
        save_model(tmp_path / "model", trained("oto_unet"), describe("ear_unet"))
    assert not (tmp_path / "model").exists()
