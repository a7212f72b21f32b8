"""The model of cpu_step.cpp in PyTorch: a plain Llama module with scaled_dot_product_attention, cross_entropy
and AdamW as they come. Speaks cpu_step.cpp's protocol: a command per line in, a line of JSON out.

Usage: torch_step.py THREADS [plain|fused]. Commands: step, products, generate, generate-whole."""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

V, D, L, H, G, FF, B, S = 8192, 768, 12, 12, 4, 2048, 4, 256
E = D // H
PROMPT, NEW = 32, 64


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(D, eps=1e-5), nn.RMSNorm(D, eps=1e-5)
        self.wq, self.wo = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.wk, self.wv = nn.Linear(D, G * E, bias=False), nn.Linear(D, G * E, bias=False)
        self.w1, self.w3 = nn.Linear(D, FF, bias=False), nn.Linear(D, FF, bias=False)
        self.w2 = nn.Linear(FF, D, bias=False)

    def forward(self, x, cos, sin):
        n = self.norm1(x)
        rows, length = x.shape[:2]
        q = rotate(self.wq(n).view(rows, length, H, E).transpose(1, 2), cos, sin)
        k = rotate(self.wk(n).view(rows, length, G, E).transpose(1, 2), cos, sin)
        v = self.wv(n).view(rows, length, G, E).transpose(1, 2)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(o.transpose(1, 2).reshape(rows, length, D))
        n = self.norm2(x)
        return x + self.w2(F.silu(self.w1(n)) * self.w3(n))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm, self.output = nn.RMSNorm(D, eps=1e-5), nn.Linear(D, V, bias=False)
        angle = torch.outer(torch.arange(S), 500000.0 ** (-torch.arange(0, E, 2) / E))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, ids):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.output(self.norm(x))


class Training:
    def __init__(self, optimizer):
        torch.manual_seed(1)
        self.model = Llama()
        for parameter in self.model.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        # AdamW takes the for-each form or the plain loop by itself; fused is its one kernel per parameter.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=optimizer == "fused" or None)
        self.ids, self.targets = torch.randint(V, (B, S)), torch.randint(V, (B, S))

    def step(self):
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.ids).view(-1, V), self.targets.view(-1))
        loss.backward()
        middle = time.perf_counter()
        self.optimizer.step()
        end = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": end - start, "optimizer_seconds": end - middle, "loss": loss.item(), "tokens": B * S,
                "peak_bytes": peak}


def products():
    rates = {}
    for n, k in ((D, D), (G * E, D), (FF, D), (D, FF), (V, D)):
        a, b = torch.randn(B * S, k), torch.randn(n, k)
        start = time.perf_counter()
        torch.mm(a, b.T)
        rates[f"nt {B * S}x{n}x{k}"] = 2e-9 * B * S * n * k / (time.perf_counter() - start)
    return {"best": max(rates.values()), "gflops": rates}


class Decoding:
    """transformers' Llama of the same shape; `generate` with a static loop of its own would be no faster."""

    def __init__(self):
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(vocab_size=V, hidden_size=D, intermediate_size=FF, num_hidden_layers=L,
                             num_attention_heads=H, num_key_value_heads=G, head_dim=E, max_position_embeddings=S)
        self.model = LlamaForCausalLM(config).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = 0

    @torch.inference_mode()
    def run(self, use_cache):
        ids = torch.arange(10, 10 + PROMPT)[None]
        seconds = []
        for new in (1, NEW):
            start = time.perf_counter()
            self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                                do_sample=False, use_cache=use_cache)
            seconds.append(time.perf_counter() - start)
        return {"prompt_seconds": seconds[0], "seconds": seconds[1], "tokens": NEW,
                "tokens_per_second": (NEW - 1) / (seconds[1] - seconds[0])}


def main():
    torch.set_num_threads(int(sys.argv[1]))
    optimizer = sys.argv[2] if len(sys.argv) > 2 else "plain"
    training, decoding = None, None
    print(json.dumps({"backend": f"PyTorch {torch.__version__}, AdamW {optimizer}", "threads": int(sys.argv[1])}),
          flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            if training is None:
                training = Training(optimizer)
                training.step()
            answer = training.step()
        elif command == "products":
            answer = products()
        elif command in ("generate", "generate-whole"):
            if decoding is None:
                decoding = Decoding()
                decoding.run(True)
            answer = decoding.run(command == "generate")
        else:
            answer = {"error": f"unknown command {command}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
