"""Packing of data sets from their originals: a module of the data set's name with `prepare(spec, root) -> Path`."""
