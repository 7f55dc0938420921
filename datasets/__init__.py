"""Data sets: readers, the phantom, tasks and metrics. This is not the Hugging Face package of the same name."""
