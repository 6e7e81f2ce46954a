"""What tokens are called in pictures: words, columns and dates, one name for each token."""

import torch
from part_samples import BARE, EXPERTS, SCHEMA, TEXTS, expert, samples
from test_text import pieces, texts_schema

from fusionlab.experts import FrozenExpert, TextExpert
from fusionlab.fusion.features import CrossAttention
from fusionlab.models import FeatureFusion


def test_words_of_the_text_as_written():
    """In capitals and with signs, though the vocabulary knows neither."""
    names = expert("caption").token_names(["Lake, forest", "", "森 a road"])
    assert names == [["(text)", "Lake", ",", "forest"], ["(text)"], ["(text)", "森", "a", "road"]]


def test_pieces_of_words_and_what_the_tokenizer_adds():
    model = TextExpert(texts_schema(pieces()), width=8, depth=1, heads=2)
    (names,) = model.token_names(["dense forest \ud800"])
    assert names[:2] == ["(text)", "<s>"]
    assert names[-1] == "</s>"
    assert "".join(names[2:-1]).startswith("denseforest")


def test_columns_and_dates():
    values = samples()
    columns = expert("site", bands=["soil", "latitude"]).token_names(values["site"])
    assert columns == [["soil", "latitude"]] * 4
    dates = expert("weather").token_names(values["weather"])
    assert dates[0][:2] == ["2019-04-14", "2019-04-21"]
    assert dates[1][3:] == ["", ""]


def test_there_is_a_name_for_every_valid_token():
    values = samples()
    for name in EXPERTS:
        model = expert(name)
        names, valid = model.token_names(values[name]), model.tokens(values[name]).valid
        for listed, there in zip(names, valid.tolist(), strict=True):
            assert [bool(one) for one in listed] == there[: len(listed)]
            assert not any(there[len(listed) :])
    trained = {"expert": EXPERTS["caption"], "trained_on": BARE.only("caption").to_dict()}
    frozen = FrozenExpert(BARE.only("caption"), **trained)
    assert frozen.token_names(TEXTS) == expert("caption").token_names(TEXTS)


def test_attention_over_words_columns_and_dates():
    """The experts go together, and every parameter learns, with dates that only pad."""
    torch.manual_seed(0)
    made = FeatureFusion(
        SCHEMA, experts=EXPERTS, fusion=lambda widths: CrossAttention(widths, width=8, heads=2)
    )
    there = {name: torch.ones(4, dtype=torch.bool) for name in EXPERTS}
    there["caption"] = torch.tensor([True, False, False, True])
    given = {"inputs": samples(), "available": there}
    output = made.eval()(given)
    weights = output.attention["caption", "weather"]
    assert (weights[0].sum(dim=1)[:6] - 1).abs().max() < 1e-5
    assert (weights[1:3] == 0).all()
    made.train()(given).logits.square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []
