"""Photographs that come with scikit-image."""

# Their names there by what they show.
SAMPLES = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "astronaut": "astronaut"}
