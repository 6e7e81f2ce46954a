"""fusionlab: late fusion of frozen unimodal experts for Earth observation."""

__version__ = "0.1.0"
