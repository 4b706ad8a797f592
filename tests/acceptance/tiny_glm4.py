"""Makes tiny GLM-4 text weights, random and the same each time: `python tiny_glm4.py FOLDER`, in vLLM's environment.

vLLM's attention on processors takes heads of 32 elements and more. The tokenizer has one token per byte.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Glm4Config, Glm4ForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|user|>", "<|assistant|>")
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
SIZES = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}


def save_tokenizer(folder: str) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([], trainers.BpeTrainer(special_tokens=list(SPECIAL), initial_alphabet=alphabet))
    saved = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    saved.chat_template = TEMPLATE
    saved.save_pretrained(folder)


def save_weights(folder: str) -> None:
    torch.manual_seed(0)
    config = Glm4Config(**SIZES, pad_token_id=0, eos_token_id=0)
    Glm4ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    save_tokenizer(sys.argv[1])
    save_weights(sys.argv[1])
