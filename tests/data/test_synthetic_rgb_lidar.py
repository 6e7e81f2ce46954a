"""Synthetic cubes and spheres: both sensors see one scene, by seed, whole or not at all."""

import dataclasses
import os
import runpy
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from synthetic_sets import digests

from fusionlab.data import RgbLidarDataModule
from fusionlab.data.rgb_lidar import xyza
from fusionlab.data.synthetic.rgb_lidar import RgbLidarConfig, contact_sheet, rays, write_rgb_lidar
from fusionlab.data.synthetic.rgb_lidar.scenes import EDGE, SHAPES, draw_scenes
from fusionlab.data.synthetic.rgb_lidar.sensors import (
    GHOSTS,
    NO_RETURN,
    RANGE,
    exact_depths,
    render_images,
    render_scans,
)
from fusionlab.data.synthetic.rgb_lidar.write import BLOCK, render
from fusionlab.errors import InputError

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_rgb_lidar"
TINY = RgbLidarConfig(cubes=6, spheres=5, image_size=24, scan_size=16)
CLEAR = RgbLidarConfig(hard_images=0, hard_scans=0)


def scenes_of(shape, number=24, config=CLEAR, **changes):
    """Scenes at random, of which some properties are the same for all."""
    scenes = draw_scenes(np.random.default_rng(3), shape, number, config)
    fixed = {
        name: np.broadcast_to(np.float32(value), getattr(scenes, name).shape).copy()
        for name, value in changes.items()
    }
    return dataclasses.replace(scenes, **fixed)


def points_of(depths):
    angles = rays.scan_angles(depths.shape[-1])
    return np.moveaxis(xyza(depths, *angles)[..., :3, :, :], -3, -1)


class TestGeometry:
    def test_depth_of_spheres_is_the_analytic_one(self):
        scenes = scenes_of("spheres", ground_depth=np.inf)
        depths = exact_depths(scenes, 65)
        hit = np.isfinite(depths)
        # In the middle of the sphere the surface is one radius nearer than its centre.
        distance = np.linalg.norm(scenes.center, axis=1)
        nearest = np.where(hit, depths, np.inf).min(axis=(1, 2))
        np.testing.assert_allclose(nearest, distance - scenes.radius, atol=2e-2)
        # By the law of cosines, at an angle a from the centre: d cos a - sqrt(r² - d² sin² a).
        directions = rays.scan_rays(*rays.scan_angles(65)).reshape(65, 65, 3).astype(np.float64)
        for i in range(len(scenes)):
            cosine = directions @ (scenes.center[i] / distance[i])
            inside = scenes.radius[i] ** 2 - distance[i] ** 2 * (1 - cosine**2)
            clear = np.abs(inside) > 1e-3
            assert ((inside > 0) == hit[i])[clear].all()
            both = (inside > 1e-3) & hit[i]
            expected = distance[i] * cosine[both] - np.sqrt(inside[both])
            np.testing.assert_allclose(depths[i][both], expected, rtol=1e-3)

    def test_points_of_spheres_lie_on_them(self):
        scenes = scenes_of("spheres", ground_depth=np.inf)
        depths = exact_depths(scenes, 48)
        offset = points_of(depths) - scenes.center[:, None, None]
        away = np.linalg.norm(offset, axis=-1) - scenes.radius[:, None, None]
        assert np.abs(away[np.isfinite(depths)]).max() < 2e-3

    def test_points_of_cubes_lie_on_their_faces(self):
        scenes = scenes_of("cubes", ground_depth=np.inf)
        depths = exact_depths(scenes, 48)
        offset = points_of(depths) - scenes.center[:, None, None]
        inside = np.einsum("nhwk,nkj->nhwj", offset, scenes.rotation)
        reach = np.abs(inside).max(axis=-1) / (EDGE * scenes.radius)[:, None, None]
        hit = np.isfinite(depths)
        assert hit.mean() > 0.03
        np.testing.assert_allclose(reach[hit], 1, atol=2e-3)

    def test_poses_turn_and_tilt_and_do_not_stretch(self):
        rotation = scenes_of("cubes", 200).rotation
        np.testing.assert_allclose(
            rotation @ np.swapaxes(rotation, 1, 2),
            np.broadcast_to(np.eye(3), (200, 3, 3)),
            atol=1e-5,
        )
        np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-5)
        up = rotation[:, 0, 0]
        assert up.min() > np.cos(np.deg2rad(20))
        assert up.std() > 1e-3

    @pytest.mark.parametrize("shape", SHAPES)
    def test_surfaces_face_the_light_as_their_normals_do(self, shape):
        scenes = scenes_of(shape, ground_depth=np.inf)
        directions = rays.scan_rays(*rays.scan_angles(40))
        hits = scenes.hit(directions)
        for i in range(len(scenes)):
            there = np.isfinite(hits.distance[i])
            points = hits.distance[i, there, None] * directions[there] - scenes.center[i]
            if shape == "spheres":
                normals = points / scenes.radius[i]
            else:  # of the face whose plane the point lies in
                inside = points @ scenes.rotation[i]
                axis = np.abs(inside).argmax(axis=1)
                signs = np.sign(np.take_along_axis(inside, axis[:, None], axis=1))
                normals = signs * scenes.rotation[i].T[axis]
                edges = np.sort(np.abs(inside), axis=1)
                normals[edges[:, 2] - edges[:, 1] < 1e-2] = np.nan
            expected = normals @ scenes.light[i]
            clear = np.isfinite(expected)
            assert clear.sum() > 50
            np.testing.assert_allclose(hits.facing[i, there][clear], expected[clear], atol=5e-3)

    def test_points_of_the_ground_are_level(self):
        scenes = scenes_of("spheres", radius=1e-3, ground_depth=1.5)
        depths = exact_depths(scenes, 32)
        height = points_of(depths)[..., 0]
        assert np.abs(height[:, 17:] + 1.5).max() < 1e-3
        assert np.isinf(depths[:, :16]).all()

    def test_size_tells_nothing_about_the_class(self):
        covered = []
        for shape in SHAPES:
            scenes = scenes_of(shape, 400, ground_depth=np.inf)
            covered.append(np.isfinite(exact_depths(scenes, 32)).mean())
        assert covered[0] == pytest.approx(covered[1], rel=0.1)


class TestSensors:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_both_see_the_same_object(self, shape):
        size = 48
        scenes = scenes_of(
            shape, image_noise=0, texture=0, ambient=1, exposure=1, ground_depth=np.inf, sky=0,
            returns=1.1, range_noise=0, ghosts=0,
        )  # fmt: skip
        images = render_images(scenes, size, np.random.default_rng(0))
        scans = render_scans(scenes, size, np.random.default_rng(0))
        seen, scanned = images[:, :3].max(axis=1) > 0, scans < RANGE
        union = (seen | scanned).sum(axis=(1, 2))
        overlap = (seen & scanned).sum(axis=(1, 2)) / union
        assert union.min() > 100
        assert overlap.min() > 0.85
        # That is no accident: other objects overlap less.
        other = np.roll(scanned, 1, axis=0)
        assert (seen & other).sum() / (seen | other).sum() < overlap.mean() - 0.1
        rows, columns = np.mgrid[:size, :size]
        for axis in (rows, columns):  # nothing is turned or mirrored
            middle = [(mask * axis).sum((1, 2)) / mask.sum((1, 2)) for mask in (seen, scanned)]
            np.testing.assert_allclose(*middle, atol=1.0)

    def test_colours_are_those_of_the_scene(self):
        scenes = scenes_of("spheres", image_noise=0, texture=0, ambient=1, exposure=1)
        images = render_images(scenes, 48, np.random.default_rng(0))
        assert (images[:, 3] == 255).all()
        hit = scenes.hit(rays.camera_rays(48)).distance < np.inf
        for pixels, mask, albedo in zip(
            images[:, :3].reshape(-1, 3, 48 * 48), hit, scenes.albedo, strict=True
        ):
            np.testing.assert_allclose(
                np.median(pixels[:, mask], axis=1), albedo.clip(0, 1) * 255, atol=1
            )

    def test_light_falls_from_its_side(self):
        light = np.float32([0.0, -1.0, 1.0]) / np.sqrt(2)  # from the left, as from the camera
        scenes = scenes_of(
            "spheres", image_noise=0, texture=0, ambient=0, exposure=1, light=light, sky=0,
            ground_depth=np.inf, albedo=1,
        )  # fmt: skip
        images = render_images(scenes, 48, np.random.default_rng(0))[:, 0].astype(float)
        columns = np.arange(48)
        lit = (images * columns).sum((1, 2)) / images.sum((1, 2))
        hit = np.isfinite(scenes.hit(rays.camera_rays(48)).distance).reshape(-1, 48, 48)
        middle = (hit * columns).sum((1, 2)) / hit.sum((1, 2))
        assert (lit < middle - 1).all()

    def test_objects_cast_shadows_on_the_ground(self):
        up = np.float32([1.0, 0.0, 0.0])
        for shape in SHAPES:
            scenes = scenes_of(shape, 8, light=up)
            below = scenes.center.copy()
            below[:, 0] -= 3
            beside = below + np.float32([0, 4, 0])
            above = scenes.center + np.float32([3, 0, 0])
            points = np.stack([below, beside, above], axis=1)
            assert scenes.shaded(points).tolist() == [[True, False, False]] * 8

    def test_misses_and_drop_outs_lie_beyond_the_range(self):
        scenes = scenes_of("cubes", 40, returns=0.6, range_noise=0.02, ghosts=0)
        exact = exact_depths(scenes, 40)
        scans = render_scans(scenes, 40, np.random.default_rng(0))
        assert scans.dtype == np.float32
        back = scans < RANGE
        assert (scans[~back] == NO_RETURN).all()
        assert not back[exact >= RANGE].any()
        assert back[exact < RANGE].mean() == pytest.approx(0.6, abs=0.02)
        assert (scans - exact)[back].std() == pytest.approx(0.02, rel=0.05)

    def test_ghosts_lie_before_what_they_hide(self):
        scenes = scenes_of("spheres", 40, returns=1.1, range_noise=0, ghosts=0.1)
        exact = exact_depths(scenes, 40)
        scans = render_scans(scenes, 40, np.random.default_rng(0))
        ghosts = scans != np.where(exact < RANGE, exact, NO_RETURN)
        assert (scans[ghosts] < exact[ghosts]).all()
        assert (scans[ghosts] < GHOSTS[1]).all()
        assert ghosts[exact >= RANGE].mean() == pytest.approx(0.1, abs=0.01)

    def test_hard_ones_are_drawn_apart(self):
        config = RgbLidarConfig(hard_images=0.3, hard_scans=0.2)
        scenes = draw_scenes(np.random.default_rng(0), "cubes", 4000, config)
        assert scenes.hard_image.mean() == pytest.approx(0.3, abs=0.03)
        assert scenes.hard_scan.mean() == pytest.approx(0.2, abs=0.03)
        both = (scenes.hard_image & scenes.hard_scan).mean()
        assert both == pytest.approx(0.06, abs=0.015)
        assert scenes.returns[scenes.hard_scan].max() < scenes.returns[~scenes.hard_scan].min()


class TestWriting:
    def test_layout(self, tmp_path):
        made = write_rgb_lidar(tmp_path / "set", TINY)
        assert made.pairs == {"cubes": 6, "spheres": 5}
        files = {str(p.relative_to(made.root)) for p in made.root.rglob("*") if p.is_file()}
        assert files == {
            "synthetic.json",
            *(f"{name}/{kind}.npy" for name in made.pairs for kind in ("azimuth", "zenith")),
            *(f"{n}/rgb/{i:04d}.png" for n, count in made.pairs.items() for i in range(count)),
            *(f"{n}/lidar/{i:04d}.npy" for n, count in made.pairs.items() for i in range(count)),
        }
        scan = np.load(made.root / "cubes" / "lidar" / "0003.npy")
        assert (scan.shape, scan.dtype) == ((16, 16), np.float32)
        pixels = matplotlib.image.imread(made.root / "spheres" / "rgb" / "0004.png")
        assert pixels.shape == (24, 24, 4)
        for name in ("azimuth", "zenith"):
            angles = np.load(made.root / "cubes" / f"{name}.npy")
            assert angles.shape == (16,)
            assert (np.diff(angles) > 0).all()

    def test_the_data_module_reads_it(self, tmp_path):
        made = write_rgb_lidar(tmp_path / "set", TINY)
        data = RgbLidarDataModule(made.root, size=16)
        dataset = data.dataset("train")
        for i in range(len(dataset)):
            sample = dataset[i]
            name, stem = sample["sample_id"].split("/")
            _, _, scans = render(TINY, name, 0)
            lidar = sample["inputs"]["lidar"].numpy()
            np.testing.assert_allclose(
                np.linalg.norm(lidar[:3], axis=0), scans[int(stem)], rtol=1e-4
            )
            np.testing.assert_array_equal(lidar[3], scans[int(stem)] < RANGE)
        assert write_rgb_lidar(made.root, TINY).written is False  # statistics are no foreign files

    def test_the_seed_decides(self, tmp_path):
        for name in ("one", "two"):
            write_rgb_lidar(tmp_path / name, TINY)
        one = digests(tmp_path / "one")
        assert one == digests(tmp_path / "two")
        assert len(set(one.values())) == len(one) - 3  # angles of rows, columns and classes agree
        other = dataclasses.replace(TINY, seed=1)
        theirs = digests(write_rgb_lidar(tmp_path / "other", other).root)
        assert not {n for n in one if n[-8:-4].isdigit() and one[n] == theirs[n]}

    def test_a_larger_set_begins_with_the_smaller(self, tmp_path):
        small = digests(write_rgb_lidar(tmp_path / "small", TINY).root)
        larger = dataclasses.replace(TINY, cubes=BLOCK + 2)
        large = digests(write_rgb_lidar(tmp_path / "large", larger).root)
        assert len(large) == len(small) + 2 * (BLOCK + 2 - 6)
        assert all(large[name] == small[name] for name in small if name != "synthetic.json")

    def test_what_is_there_is_not_overwritten(self, tmp_path):
        target = tmp_path / "set"
        assert write_rgb_lidar(target, TINY).written
        assert not write_rgb_lidar(target, TINY).written
        other = dataclasses.replace(TINY, seed=1)
        with pytest.raises(InputError, match=r"another configuration.*--overwrite"):
            write_rgb_lidar(target, other)
        assert write_rgb_lidar(target, other, overwrite=True).written

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"cubes": -1}, "cubes must be 0 to"),
            ({"cubes": 0, "spheres": 0}, "At least one"),
            ({"image_size": 4}, "image_size must be 8 to"),
            ({"scan_size": 4096}, "scan_size"),
            ({"hard_scans": 1.5}, "hard_scans is a share"),
        ],
    )
    def test_what_cannot_be_rendered_is_refused(self, values, message):
        with pytest.raises(InputError, match=message):
            RgbLidarConfig(**values)

    def test_script(self, tmp_path, monkeypatch, capsys):
        assert os.access(SCRIPT, os.X_OK)
        args = [
            str(SCRIPT), str(tmp_path / "set"), "--cubes", "3", "--spheres", "2",
            "--image-size", "16", "--scan-size", "8", "--sheet", str(tmp_path / "s" / "sheet.png"),
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", args)
        for verb in ("wrote", "already there:"):
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(SCRIPT), run_name="__main__")
            assert ended.value.code == 0
            out = capsys.readouterr().out
            assert f"{verb} {tmp_path / 'set'} (3 cubes, 2 spheres)" in out
        assert (tmp_path / "s" / "sheet.png").is_file()
        monkeypatch.setattr(sys, "argv", [*args, "--seed", "5"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert ended.value.code == 2
        assert "make_rgb_lidar: " in capsys.readouterr().err


def test_contact_sheet():
    figure = contact_sheet(TINY, rows=2, columns=3)
    titles = [axes.get_title() for axes in figure.axes]
    shown = [title.split(",")[0] for title in titles]
    assert shown == [
        "cubes 0000", "LiDAR", "spheres 0000", "LiDAR", "cubes 0001", "LiDAR",
        "spheres 0001", "LiDAR", "cubes 0002", "LiDAR", "spheres 0002", "LiDAR",
    ]  # fmt: skip
    _, images, scans = render(TINY, "spheres", 0)
    np.testing.assert_array_equal(
        figure.axes[2].images[0].get_array(), np.moveaxis(images[0, :3], 0, -1)
    )
    dark = (np.asarray(figure.axes[3].images[0].get_array()) == 0).all(axis=-1)
    np.testing.assert_array_equal(dark, scans[0] >= RANGE)
