"""Training methods: the terms of distillation and Teacher Intervention."""
