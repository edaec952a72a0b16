"""Shared by all packages: named errors, checks and conversions, files that are written whole or not at all."""
