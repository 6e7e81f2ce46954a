"""TextExpert: any text goes through, and the tokenizer is the model's."""

import json

import pytest
import torch
from embedding_experts import save_expert
from hypothesis import given, settings
from hypothesis import strategies as st
from part_samples import MODALITIES, SCHEMA, TEXTS, expert, word_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from fusionlab.cli_facts import denied_facts, without_facts
from fusionlab.component import build
from fusionlab.errors import InputError
from fusionlab.experts import FrozenExpert, TextExpert
from fusionlab.experts.base import ExpertFactory
from fusionlab.experts.tokenizer import TextReader, pack, unpack
from fusionlab.types import Modality, Schema

SMALL = {"width": 8, "depth": 1, "heads": 2}


def texts_schema(tokenizer: str = "") -> Schema:
    modality = Modality((), kind="text", tokenizer=tokenizer)
    return Schema({"caption": modality}, SCHEMA.classes, target="multiclass")


def pieces(texts=TEXTS, **options) -> str:
    """A vocabulary of bytes and pieces of words, that adds a beginning and an end."""
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer.to_str()


STRANGE = [
    "x" * 10_000,
    "forest " * 2_000,
    "森林と湖の近く",
    "غابة كثيفة بالقرب من بحيرة",
    "дремучий лес",
    "🛰️🌲\u200d\u0000\ufeff",
    "\ud800",  # half of a surrogate pair, as damaged files hold it
    " \n\t ",
    "",
]


@pytest.mark.parametrize("vocabulary", [word_tokenizer(), pieces()], ids=["words", "pieces"])
@pytest.mark.parametrize("training", [True, False])
def test_any_text_goes_through(vocabulary, training):
    model = TextExpert(texts_schema(vocabulary), **SMALL, max_length=20).train(training)
    output = model.answer(STRANGE)
    assert output.logits.isfinite().all()
    tokens = model.tokens(STRANGE)
    assert tokens.values.shape[1] <= 21
    assert tokens.valid[:, 0].all()
    assert len(torch.unique(output.logits[:3], dim=0)) >= 2


@given(st.lists(st.text(max_size=40), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_neighbours_in_the_batch_change_nothing(texts):
    model = expert("caption")
    together = model.features([*texts, "forest " * 16])
    for i, text in enumerate(texts):
        torch.testing.assert_close(model.features([text])[0], together[i], atol=1e-5, rtol=1e-4)


def test_long_texts_are_cut():
    model = expert("caption")
    long = "forest road lake field " * 10
    assert torch.equal(model.features([long]), model.features([long + "dense"]))
    assert not torch.equal(model.features(["dense " + long]), model.features([long]))
    assert model.tokens([long]).valid.sum() == 1 + 16


def test_special_tokens_are_kept_when_a_text_is_cut():
    reader = TextReader(pieces(), max_length=5, where="test")
    numbers, valid = reader(["a very long text of many pieces", ""])
    assert valid.sum(dim=1).tolist() == [5, 2]
    assert (numbers[0, 0], numbers[0, -1]) == (0, 1)
    assert numbers[1, :2].tolist() == [0, 1]


def test_the_order_of_words_matters_and_unknown_words_are_one():
    model = expert("caption")
    assert not torch.allclose(model.features(["a road"]), model.features(["road a"]))
    unknown = model.features(["volcano", "glacier"])
    assert torch.equal(unknown[0], unknown[1])
    assert not torch.allclose(unknown[0], model.features(["road"])[0])


def test_an_empty_text_is_the_learned_token():
    model = expert("caption").train()
    tokens = model.tokens([""])
    assert tokens.values.shape == (1, 1, 8)
    assert tokens.valid.all()
    model.features(["", ""]).sum().backward()
    assert model.encoder.first.grad.abs().sum() > 0
    assert model.words.weight.grad.abs().sum() == 0


def test_pooling():
    values = ["dense forest near a lake", ""]
    average = expert("caption")
    first = expert("caption", pooling="first")
    first.load_state_dict(average.state_dict())
    tokens = average.tokens(values)
    assert torch.equal(first.features(values), tokens.values[:, 0])
    mean = tokens.values.sum(dim=1) / tokens.valid.sum(dim=1, keepdim=True)
    assert torch.equal(average.features(values), mean)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions(positions):
    model = expert("caption", positions=positions)
    assert ("positions" in dict(model.named_parameters())) == (positions == "learned")
    assert ("positions" in model.state_dict()) == (positions == "learned")
    assert not torch.allclose(model.features(["a road"]), model.features(["road a"]))


def test_word_dropout_hides_words_while_training():
    model = expert("caption", word_dropout=0.5, dropout=0.0).train()
    torch.manual_seed(0)
    answers = torch.cat([model.features(["dense forest near a lake"]) for _ in range(20)])
    assert len(torch.unique(answers, dim=0)) > 5
    answers.sum().backward()
    assert model.words.weight.grad[0].abs().sum() > 0
    model.eval()
    assert torch.equal(model.features(["a road"]), model.features(["a road"]))


# ---- whose tokenizer -------------------------------------------------------------------------


def test_without_a_tokenizer_it_says_what_to_do():
    with pytest.raises(InputError, match=r"needs a tokenizer.*`tokenizer:`"):
        TextExpert(texts_schema())


def test_a_file_counts_more_than_the_data(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(pieces(), encoding="utf-8")
    for schema in (texts_schema(), SCHEMA):
        model = TextExpert(schema, tokenizer=str(path), modality="caption", **SMALL)
        assert model.reader.vocabulary == TextReader(pieces(), max_length=9, where="").vocabulary


def test_a_tokenizer_from_a_file_is_in_the_checkpoint(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(pieces(), encoding="utf-8")
    model = TextExpert(texts_schema(), tokenizer=str(path), **SMALL).eval()
    checkpoint = save_expert(model, tmp_path / "expert.ckpt", texts_schema())
    path.unlink()
    description = model.describe()
    assert "tokenizer" not in description["init_args"]
    for schema in (texts_schema(), texts_schema(word_tokenizer(["other words"]))):
        frozen = FrozenExpert(schema, checkpoint=checkpoint)
        assert torch.equal(frozen.logits(TEXTS), model.logits(TEXTS))
        again = build(frozen.describe(), ExpertFactory, schema, where="test").eval()
        again.load_state_dict(frozen.state_dict())
        assert torch.equal(again.logits(TEXTS), model.logits(TEXTS))


def test_other_data_do_not_change_the_tokenizer():
    model = expert("caption")
    expected = model.logits(TEXTS)
    model.rebind(texts_schema(word_tokenizer(["lake road forest something else", "near"])))
    assert torch.equal(model.logits(TEXTS), expected)
    model.rebind(texts_schema())  # data that bring none, such as those of a prediction
    assert torch.equal(model.logits(TEXTS), expected)


def test_another_file_is_refused_for_a_restored_model(tmp_path):
    ours, other = tmp_path / "ours.json", tmp_path / "other.json"
    ours.write_text(json.dumps(json.loads(pieces()), indent=2), encoding="utf-8")
    other.write_text(word_tokenizer(), encoding="utf-8")
    known = TextExpert(texts_schema(), tokenizer=str(ours), **SMALL).describe()["init_args"]
    packed = known["packed_tokenizer"]
    for path in (ours, tmp_path / "gone.json"):  # written otherwise, but the same
        TextExpert(texts_schema(), tokenizer=str(path), packed_tokenizer=packed, **SMALL)
    with pytest.raises(InputError, match=r"other\.json is not the tokenizer.*trained with"):
        TextExpert(texts_schema(), tokenizer=str(other), packed_tokenizer=packed, **SMALL)


def test_the_tokenizer_is_a_fact_of_the_checkpoint():
    stated = {"class_path": "TextExpert", "init_args": expert("caption").describe()["init_args"]}
    said = {"class_path": "TextExpert", "init_args": {"packed_tokenizer": None, "width": 8}}
    kept = {"packed_tokenizer": stated["init_args"]["packed_tokenizer"]}
    assert denied_facts({"model": said}, {"model": stated}) == {"model": {"init_args": kept}}
    assert without_facts(said) == {"class_path": "TextExpert", "init_args": {"width": 8}}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_packing(text):
    packed = pack(text)
    assert packed.isascii()
    assert unpack(packed, where="test") == text


@pytest.mark.parametrize("packed", ["", "abc", "e30=", pack("x" * 999)[:-8]])
def test_a_damaged_packed_tokenizer_is_refused(packed):
    with pytest.raises(InputError, match=r"filled in by checkpoints.*`tokenizer:`"):
        TextExpert(texts_schema(), packed_tokenizer=packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not in the JSON format of the library `tokenizers`"),
        ("no json", "not in the JSON format"),
        (Tokenizer(models.WordLevel({}, unk_token="[UNK]")).to_str(), "empty vocabulary"),
        (Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]")).to_str(), "unknown token"),
    ],
)
def test_unusable_tokenizers(content, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        TextExpert(texts_schema(), tokenizer=str(path))
    with pytest.raises(InputError, match=message):
        TextExpert(texts_schema(content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json cannot be read"):
        TextExpert(texts_schema(), tokenizer=str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "even and a multiple of heads"),
        ({"width": 8, "heads": 3}, r"width \(8\).*heads \(3\)"),
        ({"depth": 0}, "depth must be 1 or more, got 0"),
        ({"max_length": 0}, "at least 1; got 0"),
        ({"dropout": 1.0}, r"dropout is a probability in \[0, 1\)"),
        ({"word_dropout": -0.1}, "word dropout is a probability"),
        ({"positions": "random"}, "positions is one of"),
        ({"pooling": "max"}, "pools by one of"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        TextExpert(texts_schema(word_tokenizer()), **options)


def test_no_room_beside_special_tokens():
    with pytest.raises(InputError, match=r"adds 2 by itself, so at least 3; got 2"):
        TextExpert(texts_schema(pieces()), **SMALL, max_length=2)


def test_the_kind_of_modality_is_named():
    with pytest.raises(InputError, match=r"'site' is a table: use TabularExpert"):
        TextExpert(Schema({"site": MODALITIES["site"]}, SCHEMA.classes, target="multiclass"))
