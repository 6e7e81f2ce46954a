"""Pairs of an RGB image and a LiDAR scan of one object, in one folder per class."""

from fusionlab.data.rgb_lidar.datamodule import RgbLidarDataModule
from fusionlab.data.rgb_lidar.dataset import RgbLidarDataset
from fusionlab.data.rgb_lidar.mirror import MirrorPairs
from fusionlab.data.rgb_lidar.scan import xyza

__all__ = ["MirrorPairs", "RgbLidarDataModule", "RgbLidarDataset", "xyza"]
