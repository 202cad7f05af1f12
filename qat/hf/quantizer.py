"""Students as transformers sees them: `quantization_config` in config.json, and the quantiser that reads it.

A student's folder holds the latent float weights under Hugging Face's names and the quantisers' tensors beside
them. transformers loads the former into the plain model; then the recipe is installed in it and the latter are
put in their place, by the code that loads a run (`qat.checkpoint`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from hwsim.errors import CheckpointError, ConfigError
from qat.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

QUANT_METHOD = "bitwright"


@register_quantization_config(QUANT_METHOD)
class BitwrightConfig(QuantizationConfigMixin):
    """What `config.quantization_config` of a student is: its recipe.

    Args:
        recipe: the recipe, or what it is in JSON.
        quant_method: `bitwright`.

    Raises:
        CheckpointError: the JSON is no recipe.
    """

    def __init__(
        self, recipe: Recipe | Mapping[str, Any], quant_method: str = QUANT_METHOD
    ) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # an enum of transformers' own methods
        try:
            self.recipe = recipe if isinstance(recipe, Recipe) else Recipe.model_validate(recipe)
        except ValidationError as fault:
            raise CheckpointError(f"quantization_config.recipe: damaged: {fault}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return {
            "quant_method": self.quant_method,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
        }


@register_quantizer(QUANT_METHOD)
class BitwrightQuantizer(HfQuantizer):
    """Loads a student with `from_pretrained`, and says how `save_pretrained` writes one."""

    quantization_config: BitwrightConfig
    _quantizer_tensors: dict[str, Tensor]
    _source: Path

    def __init__(self, quantization_config: BitwrightConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise ConfigError(
                "quantization_config: a plain model becomes a student by qat.prepare(model, recipe) and a"
                " training, not while it is loaded"
            )

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Insist on float32: codes depend on the last bit of what is rounded. Raises ConfigError."""
        if dtype != torch.float32:
            raise ConfigError(f"dtype: a quantised student must be torch.float32, not {dtype}")
        return dtype

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        """Take the quantisers' tensors from the file; transformers has no place for them yet."""
        from safetensors.torch import load_file

        stored = (model.config.architectures or ["no model"])[0]
        if stored != type(model).__name__:
            raise CheckpointError(
                f"{model.config.name_or_path}: holds a quantised {stored}; load that class, not"
                f" {type(model).__name__}"
            )
        if checkpoint_files is None or len(checkpoint_files) != 1:
            raise CheckpointError(
                f"{model.config.name_or_path}: a student must be one file of weights, not"
                f" {len(checkpoint_files or ())}"
            )
        self._source = Path(checkpoint_files[0])
        plain = set(model.state_dict())
        tensors = load_file(self._source)
        self._quantizer_tensors = {k: v for k, v in tensors.items() if k not in plain}
        # not unexpected: they are put in their place below
        model._keys_to_ignore_on_load_unexpected = {
            f"^{re.escape(name)}$" for name in self._quantizer_tensors
        }

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> None:
        from qat.checkpoint import load_quantizers
        from qat.student import install

        del model._keys_to_ignore_on_load_unexpected
        install(model, self.quantization_config.recipe)
        load_quantizers(model, self._quantizer_tensors, self._source)
        del self._quantizer_tensors

    def get_state_dict_and_metadata(
        self, model: PreTrainedModel
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return what `save_pretrained` writes: Hugging Face's names and layout, then the quantisers' own."""
        from qat.checkpoint import model_tensors

        return model_tensors(model), {}

    def is_serializable(self) -> bool:
        """`save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """The latent weights are there to be trained."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Training is quantisation-aware."""
        return True


def recipe_of(model: PreTrainedModel) -> Recipe | None:
    """Return the recipe that a student was prepared with; None for a teacher and for a plain model."""
    config = getattr(model.config, "quantization_config", None)
    return config.recipe if isinstance(config, BitwrightConfig) else None
