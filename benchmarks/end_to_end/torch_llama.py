"""Llama in plain PyTorch, for torch_step.py (CPUs) and gpu_torch_step.py: scaled_dot_product_attention and the rest
as it comes. Sizes are those of a Hugging Face config.json."""

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.heads, self.kv_heads, self.head_dim = (
            config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"])
        queries, keys, eps = self.heads * self.head_dim, self.kv_heads * self.head_dim, config["rms_norm_eps"]
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=eps), nn.RMSNorm(width, eps=eps)
        self.wq, self.wo = nn.Linear(width, queries, bias=False), nn.Linear(queries, width, bias=False)
        self.wk, self.wv = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.w1, self.w3 = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)

    def forward(self, x, cos, sin):
        n = self.norm1(x)
        rows, length = x.shape[:2]
        q = rotate(self.wq(n).view(rows, length, self.heads, self.head_dim).transpose(1, 2), cos, sin)
        k = rotate(self.wk(n).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2), cos, sin)
        v = self.wv(n).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(o.transpose(1, 2).reshape(rows, length, -1))
        n = self.norm2(x)
        return x + self.w2(F.silu(self.w1(n)) * self.w3(n))


class Llama(nn.Module):
    """hidden(ids) gives what the output layer reads, forward(ids) the logits."""

    def __init__(self, config, seq_len):
        super().__init__()
        width, vocab, head_dim = config["hidden_size"], config["vocab_size"], config["head_dim"]
        self.embedding = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.norm, self.output = nn.RMSNorm(width, eps=config["rms_norm_eps"]), nn.Linear(width, vocab, bias=False)
        if config.get("tie_word_embeddings", False):
            self.output.weight = self.embedding.weight
        angle = torch.outer(torch.arange(seq_len), 500000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def hidden(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.norm(x)

    def forward(self, ids):
        return self.output(self.hidden(ids))
