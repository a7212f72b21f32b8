#!/usr/bin/env python3
"""Training step and decoding on CPUs: Caravan and PyTorch in turns on the same cores, as a Markdown table.

Every program is started once and waits for its turn, so what else the machine does meets all of them alike. A
round is: our products, our step, STREAM, PyTorch's step, each once. A round in which programs beside these took
more than 3 % of the machine is left out, and said. Reported are medians and the quartiles of the others.

  cmake --preset release -DCARAVAN_BUILD_BENCHMARKS=ON && cmake --build build/release --target benchmark_cpu_step
  python3 -m venv V && V/bin/pip install torch transformers
  benchmarks/end_to_end/compare_step.py --python V/bin/python --threads 1 2 --rounds 7
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE.parents[1] / "build/release/bin/benchmark_cpu_step"


class Turn:
    """A program that answers commands with lines of JSON."""

    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})})
        self.about = json.loads(self.process.stdout.readline())
        self.answers = {}

    def ask(self, command, keep=True):
        self.send(command)
        return self.receive(command, keep)

    def send(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def receive(self, command, keep=True):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} died at '{command}'")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"{self.name}: {answer['error']}")
        if keep:
            self.answers.setdefault(command, []).append(answer)
        return answer

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def values(self, command, *path):
        result = []
        for answer in self.answers[command]:
            for key in path:
                answer = answer[key]
            result.append(answer)
        return result

    def median(self, command, *path):
        return statistics.median(self.values(command, *path))


def busy_ticks():
    """Clock ticks all cores have spent working since boot, those taken by other virtual machines included."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4]


class Watch:
    """How much of the machine programs other than `turns` take between begin and end."""

    LIMIT = 0.03

    def __init__(self, turns):
        self.turns = turns
        self.good = self.disturbed = 0

    def ours(self):
        ticks = 0
        for turn in self.turns:
            fields = pathlib.Path(f"/proc/{turn.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks

    def run(self, work):
        """Does `work`; forgets its answers when the machine was disturbed meanwhile."""
        before = [{command: len(answers) for command, answers in turn.answers.items()} for turn in self.turns]
        start, busy, ours = time.monotonic(), busy_ticks(), self.ours()
        work()
        others = (busy_ticks() - busy) - (self.ours() - ours)
        ticks = (time.monotonic() - start) * os.sysconf("SC_CLK_TCK") * os.cpu_count()
        if others <= self.LIMIT * ticks:
            self.good += 1
            return
        self.disturbed += 1
        for turn, counts in zip(self.turns, before):
            for command in turn.answers:
                del turn.answers[command][counts.get(command, 0):]

    def __str__(self):
        return f"{self.good} rounds, {self.disturbed} more left out as disturbed"


def spread(values):
    if len(values) < 2:
        return f"{values[0]:.3g}"
    low, _, high = statistics.quantiles(values, n=4)
    return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"


def report_steps(ours, others, watch):
    if watch.good == 0:
        sys.exit(f"{watch}: the machine is too busy to measure anything")
    steps = ours.answers["step"]
    flops, tokens = steps[0]["flops"], steps[0]["tokens"]
    sgemm = ours.median("products", "best")
    ratios = [flops * 1e-9 / step["seconds"] / rate["best"]
              for step, rate in zip(steps, ours.answers["products"])]
    print(f"\n### {ours.about['threads']} thread(s), {watch}, {ours.about['backend']}, "
          f"commit {ours.about['commit']}, {ours.about['compiler']}\n")
    print("| program | s per step, median (quartiles) | tokens/s | GFLOP/s | of sgemm | peak memory |")
    print("|---|---|---|---|---|---|")
    for turn in [ours, *others]:
        seconds = turn.median("step", "seconds")
        ratio = statistics.median(ratios) if turn is ours else flops * 1e-9 / seconds / sgemm
        print(f"| {turn.name} | {spread(turn.values('step', 'seconds'))} | {tokens / seconds:.0f} | "
              f"{flops * 1e-9 / seconds:.1f} | {100 * ratio:.0f} % | {turn.step_alone['peak_bytes'] / 2**20:.0f} MiB |")
    print(f"\nsgemm, best of the step's own shapes: {spread(ours.values('products', 'best'))} GFLOP/s.")
    for other in others:
        factors = [b / a for a, b in zip(ours.values("step", "seconds"), other.values("step", "seconds"))]
        print(f"Caravan against {other.name} ({other.about['backend']}): faster by a factor of {spread(factors)}.")
    print(f"Allocations inside a step after the first: {max(ours.values('step', 'allocations'))}. "
          f"Loss {steps[-1]['loss']:.4f}.")
    report_ops(ours)


def report_ops(ours):
    total = ours.median("step", "seconds")
    print("\n| part of the step | ms | share | rate |")
    print("|---|---|---|---|")
    rest = total
    for name in ours.answers["step"][0]["ops"]:
        seconds = ours.median("step", "ops", name, "seconds")
        amount = ours.median("step", "ops", name, "amount")
        rest -= seconds
        unit = "GFLOP/s" if name == "products" else "GB/s"
        rate = f"{amount * 1e-9 / seconds:.1f} {unit}" if amount > 0 and seconds > 0 else ""
        print(f"| {name} | {1e3 * seconds:.1f} | {100 * seconds / total:.1f} % | {rate} |")
    print(f"| outside ops | {1e3 * rest:.1f} | {100 * rest / total:.1f} % | |")
    report_stream(ours)
    print("| product (form, m x n x k) | ms per step | GFLOP/s in the step | apart | apart, OpenBLAS's own threads |")
    print("|---|---|---|---|---|")
    for shape in ours.answers["step"][0]["products"]:
        seconds = statistics.median(answer["products"][shape][0] for answer in ours.answers["step"])
        work = ours.answers["step"][0]["products"][shape][1]
        print(f"| {shape} | {1e3 * seconds:.1f} | {work / seconds:.1f} | "
              f"{ours.median('products', 'gflops', shape):.1f} | "
              f"{ours.median('products-blas', 'gflops', shape):.1f} |")


def report_stream(ours):
    print("\nSTREAM: " + ", ".join(f"{name} {spread(ours.values('stream', name))} GB/s"
                                   for name in ours.answers["stream"][0]) + ".\n")


def report_decoding(ours, others, watch):
    if watch.good == 0:
        sys.exit(f"{watch}: the machine is too busy to measure anything")
    print(f"\n{ours.about['threads']} thread(s), {watch}, {ours.about['backend']}")
    print("\n| greedy decoding | tokens/s with cache | GB/s of weights | tokens/s without |")
    print("|---|---|---|---|")
    for turn in [ours, *others]:
        rate = turn.median("generate", "tokens_per_second")
        weights = ours.answers["generate"][0]["weight_bytes"]
        print(f"| {turn.name} | {rate:.1f} | {rate * weights * 1e-9:.1f} | "
              f"{turn.median('generate-whole', 'tokens_per_second'):.1f} |")
    report_stream(ours)


def one_round(ours, others):
    for command in ("products-blas", "products", "step", "stream"):
        ours.ask(command)
    for other in others:
        other.ask("step")


def decode_round(ours, turns):
    ours.ask("stream")
    for turn in turns:
        turn.ask("generate")
        turn.ask("generate-whole")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=PROGRAM, help="benchmark_cpu_step")
    parser.add_argument("--baseline", help="another build of benchmark_cpu_step, to compare with")
    parser.add_argument("--python", help="a Python with torch (and transformers); none: Caravan alone")
    parser.add_argument("--torch", nargs="+", default=["fused"], choices=["plain", "fused"], help="AdamW of PyTorch")
    parser.add_argument("--preload", help="library for a second PyTorch, e.g. one that lets MKL use AVX-512")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after this long, for each number of threads")
    parser.add_argument("--no-decoding", action="store_true")
    parser.add_argument("--no-steps", action="store_true", help="decoding only")
    options = parser.parse_args()
    if options.preload and any(letter in options.preload for letter in " :"):
        parser.error(f"--preload {options.preload}: the loader takes spaces and colons for ends of names")
    for threads in options.threads:
        begin = time.monotonic()
        ours = Turn("Caravan", [options.program, str(threads)])
        others = []
        if options.baseline:
            others.append(Turn("baseline build", [options.baseline, str(threads)]))
        if options.python:
            script = [options.python, HERE / "torch_step.py", str(threads)]
            limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
            others += [Turn(f"PyTorch, {kind}", [*script, kind], limits) for kind in options.torch]
            if options.preload:
                others.append(Turn(f"PyTorch, {pathlib.Path(options.preload).stem}", [*script, options.torch[-1]],
                                   {**limits, "LD_PRELOAD": options.preload}))
        turns = [ours, *others]
        if not options.no_steps:
            for turn in turns:  # the peak memory of training, before products and STREAM take theirs
                turn.step_alone = turn.ask("step", keep=False)
            watch = Watch(turns)
            while watch.good < options.rounds and time.monotonic() - begin < options.seconds:
                watch.run(lambda: one_round(ours, others))
            report_steps(ours, others, watch)
        if not options.no_decoding:
            watch = Watch(turns)
            while watch.good < options.rounds and time.monotonic() - begin < options.seconds:
                watch.run(lambda: decode_round(ours, turns))
            report_decoding(ours, others, watch)
        for turn in turns:
            turn.end()


if __name__ == "__main__":
    main()
