"""Tests of families that run whole audits."""
