"""The same products on the same machines in other tools: `python -m studies.crosstool`. See docs/crosstool.md."""
