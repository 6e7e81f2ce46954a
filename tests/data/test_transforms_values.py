"""Transforms of values and words: SpectralShift and SynonymReplacement."""

import pickle
import re

import pytest
import torch

from fusionlab.data import Chain, SpectralShift, SynonymReplacement
from fusionlab.data.transforms.synonyms import EARTH_OBSERVATION
from fusionlab.errors import InputError
from fusionlab.types import Modality, Schema, TimeSeries


def sample(**inputs):
    return {"inputs": inputs, "available": {name: torch.tensor(True) for name in inputs}}


def shifts(transform, image, number=400):
    """What is added to each band, ``(number, bands)``."""
    return torch.stack(
        [
            (transform(sample(a=image))["inputs"]["a"].double() - image.double())[:, 1, 1]
            for _ in range(number)
        ]
    )


class TestSpectralShift:
    def image(self):
        """Bands of standard deviations 1 and 20, far from the edges of their range at one place."""
        image = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
        image[1] *= 20
        image[0, 0, :2] = torch.tensor([-500.0, 500.0])
        image[:, 1, 1] = 0
        image[0, 0, :2] = 0
        return image

    def test_bands_move_by_shares_of_their_own_deviation(self):
        torch.manual_seed(0)
        image = self.image()
        found = shifts(SpectralShift(0.1), image)
        assert found.std(dim=0).tolist() == pytest.approx([0.1, 2.0], rel=0.15)
        assert found.mean(dim=0).abs().max() < 0.3
        assert torch.corrcoef(found.T)[0, 1].abs() < 0.2

    def test_the_data_set_says_what_the_deviation_is(self):
        torch.manual_seed(0)
        modality = Modality(("r", "g"), 1.0, scale=(0.01, 1.0), mean=(0.0, 0.0), std=(0.5, 4.0))
        transform = SpectralShift(0.1).bound(Schema({"a": modality}, ("x", "y")))
        image = torch.full((2, 4, 4), 1000, dtype=torch.int32)
        assert shifts(transform, image).std(dim=0).tolist() == pytest.approx([5.0, 0.4], rel=0.3)
        plain = Modality(("r", "g"), 1.0)  # no statistics: the image's own, which does not vary
        transform = SpectralShift(0.1).bound(Schema({"a": plain}, ("x", "y")))
        assert not shifts(transform, image, 5).any()

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16])
    def test_integers_stay_in_their_range(self, dtype):
        torch.manual_seed(0)
        limits = torch.iinfo(dtype)
        image = torch.tensor([limits.min, limits.max]).repeat(8).reshape(1, 4, 4).to(dtype)
        for _ in range(20):
            seen = SpectralShift(0.5)(sample(a=image))["inputs"]["a"]
            assert seen.dtype == dtype
            low, high = seen.long().flatten()[::2], seen.long().flatten()[1::2]
            assert (low < high).all()  # nothing wraps around
            assert low.min() == limits.min or high.max() == limits.max

    def test_other_values_stay_in_the_range_of_the_image_and_missing_ones_missing(self):
        torch.manual_seed(0)
        image = torch.rand(3, 8, 8)
        image[0, 2], image[1, 3, 3] = float("nan"), float("inf")
        missing, untouched = ~image.isfinite(), image.clone()
        for _ in range(20):
            seen = SpectralShift(2.0)(sample(a=image))["inputs"]["a"]
            assert torch.equal(seen[missing], image[missing]) or seen[0, 2].isnan().all()
            assert seen[1, 3, 3].isinf()
            inside = seen[~missing]
            assert inside.min() >= image[~missing].min()
            assert inside.max() <= image[~missing].max()
            assert seen.dtype == torch.float32
        torch.testing.assert_close(image, untouched, equal_nan=True, rtol=0, atol=0)

    def test_all_dates_of_a_series_move_alike_and_padding_does_not(self):
        torch.manual_seed(0)
        values = torch.randint(1000, 3000, (4, 2, 6, 6)).to(torch.uint16)
        series = TimeSeries(values, torch.arange(4), torch.tensor([True, True, True, False]))
        moved = SpectralShift()(sample(s2=series))["inputs"]["s2"]
        change = moved.values.int() - values.int()
        assert change[:3].flatten(2).unique(dim=2).shape == (3, 2, 1)
        assert torch.equal(change[0], change[2])
        assert change[0].any()
        assert not change[3].any()
        assert moved.dates is series.dates

    def test_only_images_that_are_there_and_are_no_codes(self):
        torch.manual_seed(0)
        given = sample(
            a=torch.rand(1, 4, 4), gone=torch.rand(1, 4, 4), codes=torch.arange(16).view(1, 4, 4),
            site=torch.rand(3), caption="a lake",
            rain=TimeSeries(torch.rand(5, 2), torch.arange(5), torch.ones(5).bool()),
        )  # fmt: skip
        given["available"]["gone"] = torch.tensor(False)
        seen = SpectralShift()(given)["inputs"]
        assert not torch.equal(seen["a"], given["inputs"]["a"])
        for name in ("gone", "codes", "site", "caption", "rain"):
            assert seen[name] is given["inputs"][name]
        assert SpectralShift(modalities=["gone"])(given)["inputs"]["a"] is given["inputs"]["a"]

    def test_refusals(self):
        with pytest.raises(InputError, match="must be 0 or more, got -1"):
            SpectralShift(-1)
        schema = Schema({"s2": Modality(("b",), 10.0), "text": Modality((), kind="text")})
        for name in ("s1", "text"):
            with pytest.raises(InputError, match=f"no image modality '{name}'.*Known: s2"):
                SpectralShift(modalities=[name]).bound(schema)


class TestSynonymReplacement:
    def text(self, transform, text, available=True):
        given = {"inputs": {"t": text}, "available": {"t": torch.tensor(available)}}
        return transform(given)["inputs"]["t"]

    def test_whole_words_in_their_case_and_everything_between_stays(self):
        always = SynonymReplacement(
            1.0, synonyms={"forest": ["woodland"], "Bare soil": ["open ground"], "soil": ["earth"]}
        )
        assert self.text(always, "Forest, forests; FOREST!\n(deforested forest)") == (
            "Woodland, forests; WOODLAND!\n(deforested woodland)"
        )
        assert self.text(always, "Bare  soil and soil, BARE SOIL.") == (
            "Open ground and earth, OPEN GROUND."
        )
        assert self.text(always, "rain-forest forest_2 forest's") == (
            "rain-forest forest_2 woodland's"
        )
        assert self.text(always, "лес 森林 Été") == "лес 森林 Été"

    def test_by_chance_and_every_synonym(self):
        torch.manual_seed(0)
        transform = SynonymReplacement(0.3, synonyms={"lake": ["pond", "mere"]})
        words = self.text(transform, " ".join(["lake"] * 3000)).split()
        assert words.count("lake") / 3000 == pytest.approx(0.7, abs=0.03)
        assert words.count("pond") / words.count("mere") == pytest.approx(1, abs=0.2)
        assert self.text(SynonymReplacement(0.0), "a lake near a forest") == "a lake near a forest"

    def test_texts_of_missing_samples_and_other_inputs_are_untouched(self):
        always = SynonymReplacement(1.0)
        assert self.text(always, "", available=False) == ""
        assert self.text(always, "forest", available=False) == "forest"
        image = torch.rand(1, 2, 2)
        assert always(sample(a=image))["inputs"]["a"] is image

    def test_own_words(self):
        torch.manual_seed(0)
        text = "An aerial image of a small village near a river; no Roads."
        seen = {self.text(SynonymReplacement(1.0), text) for _ in range(40)}
        assert len(seen) > 4
        assert all(
            re.fullmatch(r"An airborne image of .*; no (Streets|Roadways)\.", t) for t in seen
        )
        for word, others in EARTH_OBSERVATION.items():
            assert word == word.lower()
            assert word not in others
            for other in () if word.endswith("s") else others:  # "a" and "an" stay right
                assert (word[0] in "aeiou") == (other[0] in "aeiou"), (word, other)

    def test_long_texts_and_pickles(self):
        transform = pickle.loads(pickle.dumps(Chain([SynonymReplacement(1.0)])))
        assert len(self.text(transform, "forest " * 1500)) >= 1500 * 5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"probability": 1.5}, r"lies in \[0, 1\], got 1.5"),
            ({"synonyms": {}}, "no synonyms for any word"),
            ({"synonyms": {"lake": []}}, r"no synonyms for \['lake'\]"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(InputError, match=message):
            SynonymReplacement(**options)
