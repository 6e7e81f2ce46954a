"""Registries: where names are looked up, what is listed, which mistakes are explained."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from fusionlab.backbones import BACKBONES, SmpBackbone, TimmBackbone
from fusionlab.errors import InputError
from fusionlab.registry import Entry, Registry


class Plain(nn.Module):
    """A part of one line.

    And more.
    """

    def __init__(self, channels, *, width, depth=2):
        super().__init__()
        self.options = (channels, width, depth)


class Anything(nn.Module):
    def __init__(self, channels, **options):
        super().__init__()
        self.options = options


class Broken(nn.Module):
    def __init__(self, channels):
        super().__init__()
        channels("as if it were a function")


def no_module(channels):
    return channels


class Library:
    prefix = "lib"

    def __init__(self, *names):
        self.known = names

    def names(self):
        return self.known

    def find(self, name):
        return partial(Plain, width=7) if name in self.known else None

    def describe(self, name):
        return f"the {name} of a library"


@pytest.fixture
def registry():
    made = Registry("neck", sources=[Library("ladder", "plain")])
    made.register(Plain)
    made.register(Broken)
    made.register(no_module)
    return made


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package with entry points, while a test lasts."""

    def install(name, **points):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[fusionlab.necks]", *lines]))
        (tmp_path / f"{name}.py").write_text(
            "from torch import nn\n\n\nclass Neck(nn.Module):\n"
            "    def __init__(self, channels):\n        super().__init__()\n"
        )

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield install
    for module in set(sys.modules) - before:
        if Path(getattr(sys.modules[module], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[module]


class TestNames:
    def test_own_parts(self, registry):
        assert registry.find("Plain") is registry.find("fusionlab/Plain") is Plain

    def test_registered_under_another_name(self, registry):
        @registry.register(name="twin")
        class Twin(nn.Module):
            pass

        assert registry.find("twin") is Twin
        assert "Twin" not in registry

    def test_a_name_belongs_to_one(self, registry):
        registry.register(Plain)  # the same again
        with pytest.raises(InputError, match=r"'Plain' already.*register\(name=…\)"):
            registry.register(Anything, name="Plain")
        with pytest.raises(InputError, match="without slash"):
            registry.register(Anything, name="a/b")

    def test_libraries(self, registry):
        for name in ("ladder", "lib/ladder"):
            assert registry.build(name, 3).options == (3, 7, 2)
        assert registry.find("plain") is not Plain

    def test_own_parts_before_entry_points_before_libraries(self, registry, package):
        package("thirdparty", Plain="thirdparty:Neck", ladder="thirdparty:Neck")
        assert registry.find("Plain") is Plain
        assert registry.find("ladder").__module__ == "thirdparty"
        assert registry.find("lib/ladder").func is Plain
        assert registry.find("thirdparty/Plain") is registry.find("ladder")

    def test_entry_points_are_loaded_only_when_asked_for(self, registry, package):
        package("thirdparty", sound="thirdparty:Neck", broken="thirdparty:Nothing")
        names = [entry.full_name for entry in registry.list("thirdparty")]
        assert names == ["thirdparty/broken", "thirdparty/sound"]
        assert "thirdparty" not in sys.modules
        assert isinstance(registry.build("sound", 3), nn.Module)
        with pytest.raises(InputError, match=r"'broken' of the package thirdparty.*Nothing"):
            registry.find("broken")
        assert "thirdparty/broken" in registry.broken

    def test_several_packages_with_one_name(self, registry, package):
        package("first", sound="first:Neck")
        package("second", sound="second:Neck")
        with pytest.raises(InputError, match=r"Several packages.*say .*first/sound"):
            registry.find("sound")
        assert registry.find("second/sound").__module__ == "second"

    def test_paths_of_classes(self, registry):
        assert registry.find("torch.nn.Identity") is nn.Identity
        assert registry.find(f"{__name__}.Anything") is Anything

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("os.system", "derives from torch.nn.Module"),
            ("torch.nn.functional.relu", "derives from torch.nn.Module"),
            ("collections.OrderedDict", "derives from torch.nn.Module"),
            ("torch.nn.Identty", r"no 'Identty'. Did you mean Identity"),
            ("torch.nowhere.Identity", "no neck 'torch.nowhere.Identity'"),
            ("nowhere.Identity", "no neck 'nowhere.Identity'"),
            ("a.b-c.d", "no neck"),
        ],
    )
    def test_paths_that_name_no_part(self, registry, path, message):
        with pytest.raises(InputError, match=message):
            registry.find(path)

    def test_a_module_that_fails_says_so_itself(self, registry, tmp_path, monkeypatch):
        (tmp_path / "failing_neck.py").write_text("import not_installed_anywhere\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
            registry.find("failing_neck.Neck")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("plian", r"no neck 'plian'\. Similar names: .*'fusionlab/Plain'.*`fusionlab necks`"),
            ("lib/lader", r"Similar names: \['lib/ladder'\]"),
            ("lb/ladder", r"no source 'lb' of necks. Did you mean lib.*\['fusionlab', 'lib'\]"),
            ("xyz", r"no neck 'xyz'\. `fusionlab necks` lists all"),
            ("", "no neck ''"),
        ],
    )
    def test_unknown_names(self, registry, name, message):
        with pytest.raises(InputError, match=message):
            registry.find(name)
        assert name not in registry


class TestListing:
    def test_with_source_and_description(self, registry):
        assert registry.list("*plain") == [
            Entry("Plain", "fusionlab", "A part of one line."),
            Entry("plain", "lib", "the plain of a library"),
        ]

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("lib/*", ["lib/ladder", "lib/plain"]),
            ("LADD", ["lib/ladder"]),
            ("lad*", ["lib/ladder"]),
            ("*add", []),
            ("[lp]*", ["fusionlab/Plain", "lib/ladder", "lib/plain"]),
        ],
    )
    def test_globs_and_parts_of_names(self, registry, pattern, names):
        assert [entry.full_name for entry in registry.list(pattern)] == names

    def test_descriptions_are_searched_too(self, registry):
        assert [entry.name for entry in registry.search("OF ONE")] == ["Plain"]
        assert {entry.name for entry in registry.search("lib*")} == {"ladder", "plain"}


class TestBuilding:
    def test_a_class_a_function_and_a_module(self, registry):
        assert registry.build(Plain, 3, width=1, depth=4).options == (3, 1, 4)
        assert registry.build(partial(Plain, width=2), 3).options == (3, 2, 2)
        ready = Plain(1, width=1)
        assert registry.build(ready, 3) is ready

    @pytest.mark.parametrize(
        ("part", "options", "message"),
        [
            (
                "Plain",
                {"width": 1, "deptj": 2},
                r"'Plain' has no option 'deptj'. Did you mean dept",
            ),
            ("Plain", {"a": 1, "b": 2}, r"no options 'a', 'b'\. It has \['depth', 'width'\]"),
            ("Plain", {}, "'Plain' needs the option 'width'"),
            ("Plain", {"width": 1, "channels": 2}, "no option 'channels'"),
            ("ladder", {"width": 1}, r"no option 'width'.*\['depth'\]"),
            (Anything, {"channels": 1}, "no option 'channels'"),
            (nn.Identity(), {"width": 1}, r"Identity is built already.*\['width'\]"),
            ("no_module", {}, "'no_module' gave a int"),
        ],
    )
    def test_options_that_do_not_fit(self, registry, part, options, message):
        with pytest.raises(InputError, match=message):
            registry.build(part, 3, **options)

    def test_any_options_where_a_part_takes_any(self, registry):
        assert registry.build(Anything, 3, colour="red").options == {"colour": "red"}

    def test_errors_of_a_part_are_its_own(self, registry):
        with pytest.raises(TypeError, match="'int' object is not callable"):
            registry.build("Broken", 3)


class TestBackbones:
    @pytest.mark.parametrize("name", ["test_resnet", "timm/test_resnet", "test_resnet.r160_in1k"])
    def test_of_timm(self, name):
        model = BACKBONES.build(name, 5, out_indices=[-1])
        assert isinstance(model, TimmBackbone)
        assert model(torch.zeros(1, 5, 64, 64))[0].shape[-2:] == (2, 2)

    def test_of_segmentation_models_pytorch(self):
        assert isinstance(BACKBONES.build("mit_b0", 5, depth=3), SmpBackbone)
        # Both have this one; timm comes first.
        assert BACKBONES.find("resnet18").func is TimmBackbone
        assert BACKBONES.find("smp/resnet18").func is SmpBackbone

    def test_own_classes_by_their_name(self):
        assert isinstance(BACKBONES.build("TimmBackbone", 3, name="test_vit"), TimmBackbone)

    def test_listed(self):
        entries = {entry.full_name: entry for entry in BACKBONES.list()}
        assert len(entries) > 500
        assert "TimmBackbone" in {entry.name for entry in BACKBONES.list("fusionlab/")}
        assert "lvd1689m" in entries["timm/vit_small_patch16_dinov3"].description
        assert "imagenet" in entries["smp/mit_b0"].description
        assert {e.source for e in BACKBONES.list("*dinov3*")} == {"timm"}
        assert len(BACKBONES.list("*dinov3*")) > 3

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("resnet_18", "Similar names: .*'timm/resnet18'"),
            ("resnet_18.a1_in1k", "'timm/resnet18'"),
            ("smp/mit_b", r"'smp/mit_b\d'"),
            ("vit_small_patch16_dinov33", "'timm/vit_small_patch16_dinov3'.*`fusionlab backbones`"),
        ],
    )
    def test_misspelt(self, name, message):
        with pytest.raises(InputError, match=message):
            BACKBONES.build(name, 3)

    def test_options(self):
        with pytest.raises(InputError, match=r"no option 'indices'.*'out_indices'"):
            BACKBONES.build("resnet18", 3, indices=[1])
        with pytest.raises(InputError, match=r"no option 'pretrained'.*'weights'"):
            BACKBONES.build("mit_b0", 3, pretrained=True)
