"""One TFDS builder per data set."""
