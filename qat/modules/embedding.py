"""The swapped word embedding: quantised table, one scale a row or one for all."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from qat import ops
from qat.quantizers.weight import AnyWeightQuantizer


class QuantEmbedding(nn.Embedding):
    """An embedding whose table is quantised. The latent float table stays the parameter `weight`.

    Unlike `nn.Embedding`, the padding row gets a gradient where padded positions take part in a loss;
    the losses here exclude them.
    """

    weight_quantizer: AnyWeightQuantizer

    @classmethod
    def from_float(cls, module: nn.Embedding, quantizer: AnyWeightQuantizer) -> Self:
        """Take over the table of a float embedding; a weight tied to it stays tied."""
        with torch.device("meta"):
            new = cls(module.num_embeddings, module.embedding_dim, module.padding_idx)
        new.weight = module.weight
        new.weight_quantizer = quantizer
        new.training = module.training
        return new

    def to_float(self) -> nn.Embedding:
        """The float embedding with the latent table."""
        with torch.device("meta"):
            plain = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx)
        plain.weight = self.weight
        return plain.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        """Ids [B, T] -> [B, T, C]."""
        if self.training and self.weight_quantizer.rows_stand_alone:
            # of a table of 30,000 rows a batch needs a few hundred
            rows = nn.functional.embedding(input.reshape(-1), self.weight)
            codes, scale = self.weight_quantizer(rows)
            input = torch.arange(len(rows), device=input.device).reshape(input.shape)
        else:
            codes, scale = self.weight_quantizer(self.weight)
        return ops.embedding(input, codes, scale)
