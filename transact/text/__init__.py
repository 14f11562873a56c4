"""Text as token sequences, to and from a model: files, tokenizing, calibration sets, generation."""
