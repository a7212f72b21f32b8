"""The model of cpu_step.cpp in PyTorch: the plain module of torch_llama.py, cross_entropy and AdamW as they come.
Speaks cpu_step.cpp's protocol: a command per line in, a line of JSON out.

Usage: torch_step.py THREADS [plain|fused]. Commands: step, products, generate, generate-whole."""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from torch_llama import Llama

V, D, L, H, G, FF, B, S = 8192, 768, 12, 12, 4, 2048, 4, 256
E = D // H
PROMPT, NEW = 32, 64
SHAPE = {"vocab_size": V, "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": L, "num_attention_heads": H,
         "num_key_value_heads": G, "head_dim": E, "rms_norm_eps": 1e-5}


class Training:
    def __init__(self, optimizer):
        torch.manual_seed(1)
        self.model = Llama(SHAPE, S)
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
        config = LlamaConfig(**SHAPE, max_position_embeddings=S)
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
