# Weight files seen from PyTorch and transformers: they load what Caravan writes, Caravan reads what they write.
# LABELS python
# TIMEOUT 600
import json
import os
import subprocess
import sys
import tempfile
import warnings

try:
    import safetensors.torch
    import torch
    import transformers
except ImportError as missing:
    print(f"SKIPPED: {missing}")
    sys.exit(77)

warnings.filterwarnings("ignore", category=FutureWarning)  # torch.jit, which files may still come from
PROGRAM = os.environ["CARAVAN_BIN"]
if not os.path.exists(PROGRAM):
    sys.exit(f"{PROGRAM} is not built")

D, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 64, 2, 8, 4, 8, 224, 96
PARAMS = {"dim": D, "n_layers": LAYERS, "n_heads": HEADS, "n_kv_heads": KV_HEADS, "vocab_size": VOCAB,
          "multiple_of": 32, "ffn_dim_multiplier": 1.3, "norm_eps": 1e-5, "rope_theta": 500000.0,
          "use_scaled_rope": True, "rope_scaling_factor": 8.0}


def caravan(*arguments, ok=True):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    assert (done.returncode == 0) == ok, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def random_model(dtype, tied=False, layers=LAYERS):
    torch.manual_seed(3)
    kv = KV_HEADS * HEAD_DIM
    shapes = {"tok_embeddings.weight": (VOCAB, D), "norm.weight": (D,)}
    for i in range(layers):
        inner = {"attention.wq": (D, D), "attention.wk": (kv, D), "attention.wv": (kv, D), "attention.wo": (D, D),
                 "feed_forward.w1": (FFN, D), "feed_forward.w2": (D, FFN), "feed_forward.w3": (FFN, D),
                 "attention_norm": (D,), "ffn_norm": (D,)}
        shapes |= {f"layers.{i}.{name}.weight": shape for name, shape in inner.items()}
    model = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    model["output.weight"] = model["tok_embeddings.weight"] if tied else torch.randn(VOCAB, D).to(dtype)
    return model


def write_meta(folder, model, **params):
    os.makedirs(folder)
    torch.save(model, f"{folder}/consolidated.00.pth")
    with open(f"{folder}/params.json", "w") as file:
        json.dump(PARAMS | params, file)


def same(left, right):
    assert set(left) == set(right), set(left) ^ set(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name


def read_back(folder, name):
    """What Caravan reads from a Meta folder, by converting it to a Meta folder of its own."""
    out = f"{folder}-{name}"
    caravan("convert", "--in", folder, "--out", out, "--to", "meta")
    mapped = torch.load(f"{out}/consolidated.00.pth", weights_only=True, mmap=True)
    loaded = torch.load(f"{out}/consolidated.00.pth", weights_only=True)
    same(mapped, loaded)
    return loaded


def check_dtypes(root):
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        folder = f"{root}/{str(dtype)[6:]}"
        model = random_model(dtype)
        write_meta(folder, model)
        same(read_back(folder, "read"), model)


def check_odd_storages(root):
    """Transposed and sliced tensors, many tensors in one storage, parameters, a state_dict with metadata."""
    model = random_model(torch.float32)
    transposed = model["layers.0.feed_forward.w2.weight"].t().contiguous().t()
    assert not transposed.is_contiguous()
    every_other = torch.randn(2 * D, 2 * D)[::2, ::2]
    pool = torch.randn(10 * D * D)
    odd = dict(model)
    odd["layers.0.feed_forward.w2.weight"] = transposed
    odd["layers.0.attention.wo.weight"] = every_other
    odd["layers.1.attention.wq.weight"] = pool[7:7 + D * D].view(D, D)
    odd["layers.1.attention.wo.weight"] = pool[5000:5000 + D * D].view(D, D)
    odd["norm.weight"] = torch.nn.Parameter(model["norm.weight"])
    odd["layers.0.ffn_norm.weight"] = torch.tensor(1.5).expand(D)
    write_meta(f"{root}/odd", odd)
    same(read_back(f"{root}/odd", "read"), {name: tensor.detach() for name, tensor in odd.items()})

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.RMSNorm(D)

    state = Holder().state_dict()
    assert hasattr(state, "_metadata")
    for name, tensor in model.items():
        state[name] = tensor
    write_meta(f"{root}/state", state)
    same(read_back(f"{root}/state", "read"), model)


def check_tied(root):
    shared = random_model(torch.float32, tied=True)
    copied = dict(shared, **{"output.weight": shared["tok_embeddings.weight"].clone()})
    absent = {name: tensor for name, tensor in shared.items() if name != "output.weight"}
    for kind, model in {"shared": shared, "copied": copied, "absent": absent}.items():
        write_meta(f"{root}/{kind}", model)
        same(read_back(f"{root}/{kind}", "read"), copied)
        caravan("convert", "--in", f"{root}/{kind}", "--out", f"{root}/{kind}-hf", "--to", "hf")
        written = safetensors.torch.load_file(f"{root}/{kind}-hf/model.safetensors")
        assert "lm_head.weight" not in written


def check_parts(root):
    """consolidated.NN.pth for several ranks: what torch would cut, and what torch has cut is merged."""
    columns = ("wo.weight", "w2.weight")
    for tied in (False, True):
        model = random_model(torch.bfloat16, tied=tied)
        base = f"{root}/parts-{tied}"
        write_meta(base, model)
        for count in (2, 4):
            caravan("convert", "--in", base, "--out", f"{base}-{count}", "--tp", str(count))
            cut = {name: [tensor] * count if "norm" in name else tensor.chunk(count, int(name.endswith(columns)))
                   for name, tensor in model.items()}
            os.makedirs(f"{base}-{count}-torch")
            for part in range(count):
                wanted = {name: tensors[part].clone() for name, tensors in cut.items()}
                same(torch.load(f"{base}-{count}/consolidated.{part:02}.pth", weights_only=True), wanted)
                torch.save(wanted, f"{base}-{count}-torch/consolidated.{part:02}.pth")
            with open(f"{base}-{count}-torch/params.json", "w") as file:
                json.dump(PARAMS, file)
            same(read_back(f"{base}-{count}-torch", "read"), model)
        assert "possible here: 1, 2, 4" in caravan("convert", "--in", base, "--out", f"{base}-3", "--tp", "3", ok=False)


def check_many_tensors(root):
    layers = 120  # 9 · 120 + 3 tensors: the pickler splits the dict
    model = random_model(torch.float32, layers=layers)
    assert len(model) > 1000
    write_meta(f"{root}/many", model, n_layers=layers)
    same(read_back(f"{root}/many", "read"), model)


def check_refusals(root):
    class Bad:
        def __reduce__(self):
            return os.system, (f"touch {root}/executed",)

    model = random_model(torch.float32)
    write_meta(f"{root}/bad", dict(model, bad=Bad()))
    assert "system" in caravan("inspect", f"{root}/bad", ok=False)
    assert not os.path.exists(f"{root}/executed")
    torch.save(model, f"{root}/old.pth", _use_new_zipfile_serialization=False)
    assert "1.6" in caravan("inspect", f"{root}/old.pth", ok=False)
    torch.save(model, f"{root}/protocol4.pth", pickle_protocol=4)
    assert "protocol 4" in caravan("inspect", f"{root}/protocol4.pth", ok=False)
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), f"{root}/script.pth")
    assert "TorchScript" in caravan("inspect", f"{root}/script.pth", ok=False)


def hf_model(tied):
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        hidden_size=D, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, vocab_size=VOCAB, rms_norm_eps=1e-5,
        max_position_embeddings=131072, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
        rope_theta=500000.0,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192})
    return transformers.LlamaForCausalLM(config).eval()


def check_transformers(root):
    """transformers -> Meta -> transformers: the same tensors, configuration and logits."""
    ids = torch.arange(40).reshape(2, 20) % VOCAB
    for tied in (False, True):
        for shard in ("5GB", "100KB"):
            base = f"{root}/hf-{tied}-{shard}"
            model = hf_model(tied)
            model.save_pretrained(base, max_shard_size=shard)
            assert os.path.exists(f"{base}/model.safetensors.index.json") == (shard == "100KB")
            caravan("convert", "--in", base, "--out", f"{base}-meta", "--to", "meta")
            caravan("convert", "--in", f"{base}-meta", "--out", f"{base}-back", "--to", "hf")
            back, report = transformers.LlamaForCausalLM.from_pretrained(f"{base}-back", output_loading_info=True)
            assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
            assert back.config.tie_word_embeddings == tied
            same(dict(back.state_dict()), dict(model.state_dict()))
            with torch.no_grad():
                assert torch.equal(back.eval()(ids).logits, model(ids).logits)
            meta = torch.load(f"{base}-meta/consolidated.00.pth", weights_only=True)
            rows = meta["layers.0.attention.wk.weight"].view(KV_HEADS, HEAD_DIM // 2, 2, D)
            stored = model.state_dict()["model.layers.0.self_attn.k_proj.weight"]
            assert torch.equal(rows.transpose(1, 2).reshape(KV_HEADS * HEAD_DIM, D), stored)


def check_safetensors(root):
    tensors = {"half": torch.randn(3, 5).half(), "brain": torch.randn(7).bfloat16(), "none": torch.zeros(0, 4),
               "scalar": torch.tensor(2.5), "long": torch.arange(6).reshape(1, 2, 3), "flag": torch.tensor([True])}
    safetensors.torch.save_file(tensors, f"{root}/mixed.safetensors", metadata={"a": "b"})
    text = caravan("inspect", f"{root}/mixed.safetensors")
    for line in ("half    float16   [3, 5]", "none    float32   [0, 4]", "long    int64     [1, 2, 3]", "6 tensors"):
        assert line in text, text


with tempfile.TemporaryDirectory() as root:
    check_dtypes(root)
    check_odd_storages(root)
    check_tied(root)
    check_parts(root)
    check_many_tensors(root)
    check_refusals(root)
    check_transformers(root)
    check_safetensors(root)
print("PyTorch and transformers agree with Caravan about weight files")
