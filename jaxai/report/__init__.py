"""What the command and `jaxai.explain` share: from photos to maps, pictures, files and pages."""
