"""Data sets of the training side: scikit-learn's digits, GLUE folders, the user's own tables, plain text."""
