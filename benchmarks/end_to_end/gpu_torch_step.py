#!/usr/bin/env python3
"""The training step of benchmark_gpu_step in PyTorch: the same shapes, read from that program's output, and the same
figures, as lines "key: value".

  build/release/bin/benchmark_gpu_step --model llama3.2-1b | tee step.log
  benchmarks/end_to_end/gpu_torch_step.py --like step.log

transformers' Llama (where transformers is absent, the plain module of torch_llama.py) with
scaled_dot_product_attention, torch.compile of each layer and of head with loss, gradients clipped to norm 1, fused
AdamW. All in the log's dtype, AdamW's moments too: with bfloat16 8 bytes per parameter, where Caravan keeps float32
master weights and moments, 16 bytes or more. Where the GPU's memory does not suffice, micro-batches are halved and twice
as many. Ends with 77 where there is no GPU."""

import argparse
import gc
import json
import resource
import statistics
import sys
import time

PEAK_FLOPS = 989e12  # dense bfloat16, H100 and H200 SXM, as benchmark_gpu_step
WARM_UP_STEPS = 3
DTYPES = ("bfloat16", "float32")


def read_log(path):
    with open(path, encoding="utf-8") as file:
        facts = dict(line.rstrip("\n").split(": ", 1) for line in file if ": " in line)
    missing = [key for key in ("model", "config", "dtype", "recompute", "seq_len", "rows", "micro_batches",
                               "flops_per_token_causal", "flops_per_token_full") if key not in facts]
    if missing:
        sys.exit(f"gpu_torch_step.py: {path} has no {', '.join(missing)}; it must be the output of benchmark_gpu_step")
    if facts["recompute"] != "none" or facts["dtype"] not in DTYPES:
        sys.exit(f"gpu_torch_step.py: {path} has recompute {facts['recompute']} and dtype {facts['dtype']}; "
                 f"only none and {' or '.join(DTYPES)} have a counterpart here")
    return facts


class Model:
    """hidden(ids) and head(hidden) of transformers' Llama or of the plain one."""

    def __init__(self, config, seq_len, dtype, device):
        torch.manual_seed(1)
        torch.set_default_dtype(dtype)  # so that no float32 copy is made first
        with torch.device(device):
            if transformers is None:
                self.module = torch_llama.Llama(config, seq_len)
                self.hidden, self.head, self.layers = self.module.hidden, self.module.output, self.module.layers
            else:
                made = transformers.LlamaConfig(**config, max_position_embeddings=seq_len,
                                                attn_implementation="sdpa", use_cache=False)
                self.module = transformers.LlamaForCausalLM(made)
                self.hidden = lambda ids: self.module.model(input_ids=ids).last_hidden_state
                self.head, self.layers = self.module.lm_head, self.module.model.layers
            for parameter in self.module.parameters():
                if parameter.dim() == 2:
                    torch.nn.init.normal_(parameter, std=0.02)
        torch.set_default_dtype(torch.float32)
        others = {parameter.dtype for parameter in self.module.parameters()} - {dtype}
        assert not others, f"some parameters are {others}, not {dtype}"
        self.module.train()


class Training:
    def __init__(self, facts, rows, micro_batches, device, compiles):
        config = json.loads(facts["config"])
        seq_len, dtype = int(facts["seq_len"]), getattr(torch, facts["dtype"])
        self.model = Model(config, seq_len, dtype, device)
        self.optimizer = torch.optim.AdamW(self.model.module.parameters(), lr=1e-4, fused=True)
        self.loss = self.loss_of
        if compiles:
            for layer in self.model.layers:
                layer.compile()
            self.loss = torch.compile(self.loss_of)
        vocab = config["vocab_size"]
        draw = lambda: torch.randint(vocab, (rows, seq_len), device=device)
        self.batches = [(draw(), draw()) for _ in range(micro_batches)]
        self.device = device

    def loss_of(self, hidden, targets):
        logits = self.model.head(hidden).float()
        return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def step(self, batches):
        """Seconds and mean loss."""
        synchronize(self.device)
        start = time.perf_counter()
        total = torch.zeros((), device=self.device)
        for ids, targets in batches:
            loss = self.loss(self.model.hidden(ids), targets) / len(batches)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss = total.item()
        synchronize(self.device)
        return time.perf_counter() - start, loss


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure(facts, rows, micro_batches, options, compiles):
    training = Training(facts, rows, micro_batches, options.device, compiles)
    for _ in range(WARM_UP_STEPS):  # of one micro-batch
        training.step(training.batches[:1])
    begin, times = time.perf_counter(), []
    while not times or (len(times) < options.steps and time.perf_counter() - begin < options.seconds):
        seconds, loss = training.step(training.batches)
        times.append(seconds)
    return times, loss


def forget():
    """Gives back the memory of a failed try."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure_what_fits(facts, options):
    """Also says whether it was compiled, and with how many rows."""
    rows, micro_batches, compiles = int(facts["rows"]), int(facts["micro_batches"]), options.compile == "layers"
    how = options.compile
    while True:
        try:
            return rows, micro_batches, how, *measure(facts, rows, micro_batches, options, compiles)
        except torch.cuda.OutOfMemoryError:
            if rows % 2 != 0:
                raise
            rows, micro_batches = rows // 2, micro_batches * 2
        except Exception as error:  # whatever the compiler throws
            if not compiles:
                raise
            compiles, how = False, f"failed, so without it ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        forget()


def report(facts, options):
    rows, micro_batches, how, times, loss = measure_what_fits(facts, options)
    tokens = rows * micro_batches * int(facts["seq_len"])
    median = statistics.median_low(times)
    rate = tokens / median
    if options.device == "cuda":
        peak = torch.cuda.max_memory_reserved()
        versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        device = torch.cuda.get_device_name()
    else:
        peak, versions, device = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "CPU", "CPU"
    model = f"transformers {transformers.__version__}" if transformers else f"plain module ({no_transformers})"
    for key, value in [
        ("program", f"PyTorch {torch.__version__}, {versions}, {model}"), ("device", device),
        ("model", facts["model"]), ("compile", how), ("dtype", facts["dtype"]), ("seq_len", facts["seq_len"]),
        ("rows", rows), ("micro_batches", micro_batches), ("tokens_per_step", tokens), ("steps", len(times)),
        ("step_ms", f"{1e3 * median:.1f}"), ("step_ms_least", f"{1e3 * min(times):.1f}"),
        ("step_ms_most", f"{1e3 * max(times):.1f}"), ("tokens_per_second", f"{rate:.1f}"),
        ("mfu_causal_percent", f"{100 * rate * float(facts['flops_per_token_causal']) / PEAK_FLOPS:.4g}"),
        ("mfu_full_percent", f"{100 * rate * float(facts['flops_per_token_full']) / PEAK_FLOPS:.4g}"),
        ("peak_memory_gib", f"{peak / 2**30:.3f}"), ("loss", f"{loss:.4f}"),
    ]:
        print(f"{key}: {value}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", required=True, help="output of benchmark_gpu_step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1e9, help="no step begins later than this after the first")
    parser.add_argument("--compile", choices=["layers", "none"], default="layers")
    parser.add_argument("--model", choices=["transformers", "plain"], default="transformers")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    choice = parser.parse_args()
    like = read_log(choice.like)
    try:
        import torch
    except ImportError as missing:
        print(f"skipped: no PyTorch: {missing}")
        sys.exit(77)
    if choice.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU")
        sys.exit(77)
    import torch_llama
    transformers, no_transformers = None, "asked for"
    if choice.model == "transformers":
        try:
            import transformers
        except ImportError as missing:
            no_transformers = str(missing)
    report(like, choice)
