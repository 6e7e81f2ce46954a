"""Generators of data sets in published layouts, for demonstrations and tests without downloads."""
