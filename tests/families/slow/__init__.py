"""Tests of families that draw."""
