from functools import partial

import pytest
import torch
from small_models import PixelExpert
from torch import nn

from fusionlab.component import Component, build
from fusionlab.errors import InputError
from fusionlab.experts import UNetFormer
from fusionlab.experts.base import ExpertFactory
from fusionlab.fusion import ClassWeighted, FusionFactory
from fusionlab.models import CentreCrop, LateFusion
from fusionlab.types import Modality, Schema

SCHEMA = Schema({"a": Modality(("r", "g"), 1.0), "b": Modality(("x",), 1.0)}, ("wood", "road"))


def test_a_described_expert_is_built_again_with_its_options():
    expert = PixelExpert(SCHEMA, width=5, modality="a", bands=["g"])
    again = build(expert.describe(), ExpertFactory, SCHEMA, where="here")
    again.load_state_dict(expert.state_dict())
    assert again.inputs.bands == ("g",)
    assert expert.describe()["init_args"] == {"width": 5, "modality": "a", "bands": ["g"]}


def test_a_composition_describes_its_parts():
    fused = LateFusion(
        SCHEMA,
        experts={"a": partial(PixelExpert, width=3), "b": PixelExpert},
        fusion=partial(ClassWeighted, init_class_weights={"road": [0.2, 0.8]}),
        alignment=partial(CentreCrop, size={"b": 4}),
    )
    described = fused.describe()
    assert described["init_args"]["experts"]["a"]["init_args"] == {"width": 3}
    from fusionlab.component import Model
    from fusionlab.tasks import ModelFactory

    again = build(described, ModelFactory, SCHEMA, where="here")
    assert isinstance(again, Model)
    again.load_state_dict(fused.state_dict())
    assert again.alignment.size == {"b": (4, 4)}
    assert torch.equal(again.fusion.weight, fused.fusion.weight)


def test_only_classes_of_the_right_kind_are_built():
    with pytest.raises(InputError, match="a checkpoint"):
        build({"class_path": "torch.nn.Linear"}, ExpertFactory, SCHEMA, where="a checkpoint")
    with pytest.raises(InputError, match="ClassWeighted"):
        build({"class_path": "fusionlab.fusion.ClassWeighted"}, ExpertFactory, SCHEMA, where="here")
    with pytest.raises(InputError, match="here"):
        build({"class_path": "fusionlab.fusion.Nonsense"}, FusionFactory, ["a"], where="here")


def test_an_argument_a_checkpoint_cannot_hold_is_named():
    class Odd(Component):
        def __init__(self, schema, *, layer):
            super().__init__()
            self.other_name = layer

    with pytest.raises(TypeError, match="argument 'layer' of Odd"):
        Odd(SCHEMA, layer=nn.ReLU()).describe()


def test_describe_survives_deepcopy_and_pickle():
    import copy
    import pickle

    expert = UNetFormer(SCHEMA.only("a"), decode_channels=16, heads=4)
    for twin in (copy.deepcopy(expert), pickle.loads(pickle.dumps(expert))):
        twin.load_state_dict(expert.state_dict())
        assert twin.describe() == expert.describe()


def test_lists_of_parts_are_described():
    class Stack(Component):
        def __init__(self, schema, *, parts):
            super().__init__()
            self.parts = nn.ModuleList(make(schema.only("a")) for make in parts)

    described = Stack(SCHEMA, parts=[partial(PixelExpert, width=2), PixelExpert]).describe()
    assert [part["init_args"] for part in described["init_args"]["parts"]] == [{"width": 2}, {}]


def test_a_model_that_no_checkpoint_could_hold_is_refused_before_training():
    from fusionlab.tasks import SegmentationTask

    class Odd(PixelExpert):
        def __init__(self, schema, *, layer, **contract):
            super().__init__(schema, **contract)

    with pytest.raises(InputError, match=r"No checkpoint could be saved.*'layer'"):
        SegmentationTask(SCHEMA.only("a"), partial(Odd, layer=nn.ReLU()))
