"""Readers of any JAX function: its graph, evaluation of the graph, and values marked by name."""
