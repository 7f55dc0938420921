"""Records of evaluation cells: their schema, their store, what they amount to; no torch."""
