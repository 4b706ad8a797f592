"""Makes tiny GLM-4 text weights, the same each time: `python tiny_glm4.py FOLDER`, in vLLM's environment.

They are random but for what makes the answer certain: random weights alone have near ties, which the batch that a
request is computed in decides. Each token's successor stands in the last matrix, the layers add little to it: the model
says TEXT from its beginning. vLLM's attention on processors takes heads of 32 elements and more. One token is one byte.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Glm4Config, Glm4ForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|user|>", "<|assistant|>")
TEXT = "abcdefghijklm nopqrstuvwxyz\nABCDEFGHIJKLM\tNOPQRSTUVWXYZ\r0123456789\x0b,.;:!?+-*/=%&#@$"
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


def save_tokenizer(folder: str) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([], trainers.BpeTrainer(special_tokens=list(SPECIAL), initial_alphabet=alphabet))
    saved = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    saved.chat_template = TEMPLATE
    saved.save_pretrained(folder)
    return saved


def save_weights(folder: str, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    config = Glm4Config(**SIZES, pad_token_id=0, eos_token_id=0)
    model = Glm4ForCausalLM(config)
    said = [tokenizer.encode(one, add_special_tokens=False)[0] for one in TEXT]
    before = [tokenizer.convert_tokens_to_ids(SPECIAL[2]), *said]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_self_attn_layernorm.weight.fill_(0.01)
            layer.post_mlp_layernorm.weight.fill_(0.01)
        embedded = torch.nn.functional.normalize(torch.randn(SIZES["vocab_size"], SIZES["hidden_size"]), dim=1)
        model.model.embed_tokens.weight.copy_(embedded)
        for token, successor in zip(before, [*said, said[0]], strict=True):
            model.lm_head.weight[successor] = embedded[token]
        model.lm_head.weight[said[0]] = embedded[before[0]] + embedded[said[-1]]
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    save_weights(sys.argv[1], save_tokenizer(sys.argv[1]))
