"""The machine room: the only importer of torch."""
