import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fusionlab.checkpoints import NESTED_KEYS, load_weights, read_checkpoint, strip_prefixes
from fusionlab.errors import InputError


def layer() -> nn.Linear:
    return nn.Linear(3, 2)


@pytest.mark.parametrize("key", [None, *NESTED_KEYS])
def test_state_dicts_are_found_where_people_put_them(tmp_path, key):
    state = layer().state_dict()
    path = tmp_path / "weights.pt"
    torch.save(state if key is None else {key: state, "epoch": 3}, path)
    read = read_checkpoint(path)
    assert read.state_dict.keys() == state.keys()
    assert not read.describes_model


def test_safetensors_are_read(tmp_path):
    state = layer().state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    assert torch.equal(
        read_checkpoint(tmp_path / "weights.safetensors").state_dict["weight"], state["weight"]
    )


@pytest.mark.parametrize("name", ["weights", "weights.ckpt", "weights.bin"])
def test_safetensors_are_known_by_their_content(tmp_path, name):
    state = layer().state_dict()
    save_file(state, tmp_path / name)
    assert torch.equal(read_checkpoint(tmp_path / name).state_dict["bias"], state["bias"])


def test_other_checkpoints_may_be_called_safetensors(tmp_path):
    state = layer().state_dict()
    torch.save(state, tmp_path / "weights.safetensors")
    read = read_checkpoint(tmp_path / "weights.safetensors")
    assert torch.equal(read.state_dict["bias"], state["bias"])


@pytest.mark.parametrize("name", ["weights.ckpt", "weights.safetensors"])
@pytest.mark.parametrize("lost", [1, 30, 60])
def test_safetensors_that_are_cut_off_are_named(tmp_path, name, lost):
    path = tmp_path / name
    save_file(layer().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-lost])
    expected = rf"{name} is not a readable checkpoint.* not copied whole.*download it again"
    with pytest.raises(InputError, match=expected):
        read_checkpoint(path)


def test_a_prefix_is_stripped_only_if_every_key_has_it():
    one = torch.zeros(1)
    assert strip_prefixes({"module.a": one, "module.b": one}).keys() == {"a", "b"}
    assert strip_prefixes({"module.model.a": one}).keys() == {"a"}
    assert strip_prefixes({"module.a": one, "b": one}).keys() == {"module.a", "b"}


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("name", ["evil.ckpt", "evil.pt"])
def test_pickled_code_is_not_run(tmp_path, capsys, name):
    torch.save({"state_dict": layer().state_dict(), "extra": Evil()}, tmp_path / name)
    with pytest.raises(InputError, match="could run code"):
        read_checkpoint(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        read_checkpoint(tmp_path / name)
    assert "never" not in capsys.readouterr().out


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(InputError, match=r"text\.ckpt"):
        read_checkpoint(tmp_path / "text.ckpt")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "text.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list"):
        read_checkpoint(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(InputError, match=r"No state dict found.*\['epoch'\]"):
        read_checkpoint(tmp_path / "empty.pt")


def test_weights_are_loaded_whole_or_not_at_all():
    module = layer()
    before = module.weight.clone()
    state = {name: value + 1 for name, value in layer().state_dict().items()}

    with pytest.raises(InputError, match="Not one of the 1 tensors"):
        load_weights(module, {"other": torch.zeros(1)}, where="file")
    with pytest.raises(InputError, match=r"weight: file \(5, 5\), model \(2, 3\)"):
        load_weights(module, {**state, "weight": torch.zeros(5, 5)}, where="file")
    with pytest.raises(InputError, match=r"1 of the model's are missing \(bias\)"):
        load_weights(module, {"weight": state["weight"]}, where="file")
    with pytest.raises(InputError, match=r"1 of the file's are left over \(more\)"):
        load_weights(module, {**state, "more": torch.zeros(1)}, where="file")
    assert torch.equal(module.weight, before)

    with pytest.warns(UserWarning, match="1 tensors match, 1 of the model's are missing"):
        load_weights(module, {"weight": state["weight"]}, where="file", strict=False)
    assert torch.equal(module.weight, state["weight"])
    load_weights(module, state, where="file")
    assert torch.equal(module.bias, state["bias"])
