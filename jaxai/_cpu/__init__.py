"""Kernels and settings for the CPU."""
