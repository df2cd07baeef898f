"""Reading any JAX function: its graph, the evaluation of it, and values marked by name."""
