#!/usr/bin/env python3
"""Ranks times threads on one machine: R processes of T threads each train the model of cpu_step.cpp at the same
time, and the slowest of them ends the step. The layouts take turns; no messages are exchanged, so this is what
the cores give, before any communication.

  benchmarks/end_to_end/ranks_threads.py 1x2 2x1 2x2 --rounds 7
"""

import argparse
import statistics
import time

from compare_step import PROGRAM, Turn, spread


def step(turns):
    start = time.perf_counter()
    for turn in turns:
        turn.send("step")
    for turn in turns:
        turn.receive("step", keep=False)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layouts", nargs="+", help="RxT: ranks times threads of each")
    parser.add_argument("--program", default=PROGRAM, help="benchmark_cpu_step")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    layouts = {}
    for layout in options.layouts:
        ranks, threads = layout.split("x")
        layouts[layout] = [Turn(f"rank {rank} of {layout}", [options.program, threads])
                           for rank in range(int(ranks))]
        step(layouts[layout])
    seconds = {layout: [] for layout in layouts}
    for _ in range(options.rounds):
        for layout, turns in layouts.items():
            seconds[layout].append(step(turns))
    print("| ranks x threads | s per step of all ranks, median (quartiles) | tokens/s of all ranks |")
    print("|---|---|---|")
    for layout, turns in layouts.items():
        tokens = 1024 * len(turns)
        print(f"| {layout} | {spread(seconds[layout])} | {tokens / statistics.median(seconds[layout]):.0f} |")
        for turn in turns:
            turn.end()


if __name__ == "__main__":
    main()
