"""The Hugging Face side: importing it lets `from_pretrained` and `pipeline` load quantised students.

import qat.hf
AutoModelForSequenceClassification.from_pretrained("RUN")     # the student, quantisers and all
"""

from qat.hf.quantizer import BitwrightConfig, BitwrightQuantizer

__all__ = ["BitwrightConfig", "BitwrightQuantizer"]
