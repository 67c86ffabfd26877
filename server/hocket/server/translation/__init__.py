"""Translators that are no language models: sentences in, sentences out."""
