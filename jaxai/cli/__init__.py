"""The `jaxai` command."""
