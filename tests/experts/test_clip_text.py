"""ClipTextExpert against transformers, with a tiny CLIP of random weights in a folder."""

import importlib.util
import json
import sys
from functools import partial

import pytest
import torch
from embedding_experts import PooledExpert, save_expert
from part_samples import BARE, CLASSES, MODALITIES, SCHEMA, TEXTS, batch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fusionlab.checkpoints import fingerprint
from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import ClipTextExpert, FrozenExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.models import FeatureFusion
from fusionlab.types import Schema

transformers = pytest.importorskip("transformers", reason="needs fusionlab[clip]")

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 12,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip


def clip_tokenizer() -> Tokenizer:
    words = sorted({word for text in TEXTS for word in text.lower().split()})
    names = ["<unk>", *words, "<start>", "<end>"]  # the end has the highest number, as in CLIP
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(name, ids[name]) for name in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=special
    )
    return tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A text tower alone, and a whole CLIP with the same one."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    last = tokenizer.get_vocab_size() - 1
    tokens = {"vocab_size": last + 1, "bos_token_id": last - 1, "eos_token_id": last}
    config = transformers.CLIPTextConfig(**SIZES, **tokens, pad_token_id=last)
    tower = transformers.CLIPTextModel(config)
    whole = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=config.to_dict(), vision_config=VISION)
    )
    with torch.no_grad():
        for weight in tower.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    getattr(whole.text_model, "text_model", whole.text_model).load_state_dict(
        getattr(tower, "text_model", tower).state_dict()
    )
    made = {}
    for name, model in (("tower", tower), ("whole", whole)):
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
        tokenizer.save(str(made[name] / "tokenizer.json"))
    return made


@pytest.fixture(scope="module")
def folder(folders) -> str:
    return str(folders["tower"])


def expert(folder, schema=SCHEMA, **options):
    torch.manual_seed(0)
    return ClipTextExpert(schema, modality="caption", pretrained=folder, **options).eval()


def test_the_embedding_is_that_of_transformers(folder):
    tower = transformers.CLIPTextModel.from_pretrained(folder).eval()
    tokenizer = clip_tokenizer()
    tokenizer.enable_padding(pad_id=tower.config.eos_token_id)
    encoded = tokenizer.encode_batch(TEXTS)
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    with torch.no_grad():
        expected = tower(input_ids=ids, attention_mask=mask)
        model = expert(folder)
        torch.testing.assert_close(model.features(TEXTS), expected.pooler_output)
        tokens = model.tokens(TEXTS)
    assert torch.equal(tokens.valid, mask.bool())
    states = expected.last_hidden_state
    torch.testing.assert_close(tokens.values[tokens.valid], states[tokens.valid])
    assert (tokens.values[~tokens.valid] == 0).all()
    assert model.embedding_dim == 16


def test_the_tower_of_a_whole_clip_is_the_same(folders):
    whole, tower = (expert(str(folders[name])) for name in ("whole", "tower"))
    assert torch.equal(whole.features(TEXTS), tower.features(TEXTS))
    assert whole.tower_sizes == tower.tower_sizes


def test_names_of_weights_of_other_versions(folders, tmp_path):
    """With the prefix of CLIP and without, with the positions that older files hold."""
    expected = expert(str(folders["tower"])).features(TEXTS)
    weights = load_file(folders["tower"] / "model.safetensors")
    bare = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    bare["embeddings.position_ids"] = torch.arange(12)[None]
    for prefix in ("", "text_model."):
        save_file({prefix + n: w for n, w in bare.items()}, tmp_path / "model.safetensors")
        for name in ("config.json", "tokenizer.json"):
            (tmp_path / name).write_text((folders["tower"] / name).read_text())
        assert torch.equal(expert(str(tmp_path)).features(TEXTS), expected)


def test_strange_texts(folder):
    model = expert(folder)
    output = model.answer(["x" * 10_000, "forest " * 999, "森林", "", "\ud800"])
    assert output.logits.isfinite().all()
    assert model.tokens(["forest " * 999]).valid.sum() == 12
    assert expert(folder, max_length=5).tokens(["forest " * 999]).valid.sum() == 5


def test_frozen_is_frozen_and_otherwise_it_learns(folder):
    model = expert(folder).train()
    before = fingerprint(model.body.state_dict())
    model.logits(TEXTS).sum().backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None} == {"head"}
    assert not model.body.training
    assert fingerprint(model.body.state_dict()) == before
    for ask in ("features", "tokens"):
        tuned = expert(folder, BARE, frozen=False).train()
        result = getattr(tuned, ask)(TEXTS)
        (result if ask == "features" else result.values).square().sum().backward()
        assert all(p.grad is not None for p in tuned.parameters())


def test_fingerprint(folder):
    assert expert(folder).fingerprint() is None  # its head learns
    assert expert(folder, BARE, frozen=False).fingerprint() is None
    assert expert(folder, BARE).fingerprint() == expert(folder, BARE).fingerprint() is not None


@pytest.mark.parametrize("frozen", [True, False])
def test_a_checkpoint_needs_no_folder(folder, frozen, tmp_path):
    model = expert(folder, frozen=frozen)
    model.pretrained = model._given[1]["pretrained"] = "gone"
    path = save_expert(model, tmp_path / "clip.ckpt", SCHEMA)
    turned = Schema({"caption": MODALITIES["caption"]}, CLASSES[::-1], target="multiclass")
    loaded = FrozenExpert(turned, checkpoint=path)
    assert torch.equal(loaded.logits(TEXTS), model.logits(TEXTS).flip(1))
    again = build(loaded.describe(), ExpertFactory, turned, where="test").eval()
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.features(TEXTS), model.features(TEXTS))


def test_stripped_it_asks_for_the_weights_again(folder):
    model = expert(folder)
    assert model.restorable == ("body",)
    model.stripped = True
    again = build(model.describe(), ExpertFactory, SCHEMA, where="test").eval()
    assert torch.equal(again.features(TEXTS), model.features(TEXTS))
    assert not expert(folder, frozen=False).restorable


def test_in_a_fusion_with_an_image_and_a_cache(folder, tmp_path):
    experts = {
        "image": PooledExpert,
        "caption": partial(FrozenExpert, expert=partial(ClipTextExpert, pretrained=folder)),
    }
    model = FeatureFusion(SCHEMA, experts=experts, cache=str(tmp_path)).eval()
    data = batch(4, caption=[True, False, True, True])
    with torch.no_grad():
        expected = model(data).logits
        assert len(list(tmp_path.rglob("*.npy"))) == 4
        assert torch.equal(model(data).logits, expected)
        data["inputs"]["caption"][1] = "other"
        assert torch.equal(model(data).logits, expected)


def test_half_precision_is_near(folder):
    model = expert(folder)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        half = model.features(TEXTS)
    torch.testing.assert_close(half.float(), model.features(TEXTS), atol=0.1, rtol=0.1)


# ---- mistakes --------------------------------------------------------------------------------


def test_a_hub_out_of_reach(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"no/such.*no folder here.*hf download no/such.*folder"):
        expert("no/such")


def test_files_that_are_not_there(folders, tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        expert(str(tmp_path))
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text((folders["tower"] / name).read_text())
    with pytest.raises(InputError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        expert(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [({"model_type": "bert"}, "of the type 'bert', not of a CLIP"), ([], "type None"), (None, "")],
)
def test_configurations_of_something_else(content, message, tmp_path):
    text = "no json" if content is None else json.dumps(content)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message or "cannot be read"):
        expert(str(tmp_path))


def test_a_tokenizer_of_another_model(folders, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["tower"] / name).read_bytes())
    bare = clip_tokenizer()
    larger = clip_tokenizer()
    larger.add_tokens(["more", "words"])
    bare.post_processor = processors.TemplateProcessing(single="$A")
    for tokenizer in (bare, larger):
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(InputError, match=r"does not go with the tower.*end of a text"):
            expert(str(tmp_path))


def test_options(folder):
    with pytest.raises(InputError, match=r"max_length is 13, but .* takes 12 tokens"):
        expert(folder, max_length=13)
    with pytest.raises(InputError, match="`restored` is set by checkpoints"):
        expert(folder, restored=True)


def test_without_the_library_it_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'fusionlab\[clip\]'.*TextExpert"):
        expert(folder)


def test_the_library_is_imported_only_when_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    spec = importlib.util.find_spec("fusionlab.experts.clip_text")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
