"""Machine descriptions as package data: one YAML file a machine, shared constants in `base/`."""
