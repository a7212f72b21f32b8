"""The texts in configs/quickstart/data, generated: see scripts/make_corpora.py."""
