"""Synthetic pairs of an RGB image and a LiDAR scan that show a cube or a sphere.

Both come from one scene, by ray casting from one point: the same object, pose, size and place. Some
images are dark or pale, some scans sparse and full of false returns, and these are not the same
pairs: neither sensor suffices always.
"""

from fusionlab.data.synthetic.rgb_lidar.config import RgbLidarConfig
from fusionlab.data.synthetic.rgb_lidar.sheet import contact_sheet
from fusionlab.data.synthetic.rgb_lidar.write import RgbLidarSet, write_rgb_lidar

__all__ = ["RgbLidarConfig", "RgbLidarSet", "contact_sheet", "write_rgb_lidar"]
