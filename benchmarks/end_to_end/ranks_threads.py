#!/usr/bin/env python3
"""Ranks times threads on one machine: R processes of T threads each train the model of cpu_step.cpp at the same
time, and the slowest of them ends the step. The layouts take turns; no messages are exchanged, so this is what
the cores give, before any communication.

  benchmarks/end_to_end/ranks_threads.py 1x2 2x1 2x2 --rounds 7
"""

import argparse
import statistics
import sys
import time

from compare_step import PROGRAM, Turn, Watch, spread


def step(layout, turns):
    start = time.perf_counter()
    for turn in turns:
        turn.send("step")
    for turn in turns:
        turn.receive("step", keep=False)
    turns[0].answers.setdefault(layout, []).append(time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layouts", nargs="+", help="RxT: ranks times threads of each")
    parser.add_argument("--program", default=PROGRAM, help="benchmark_cpu_step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no round after this long")
    options = parser.parse_args()
    layouts = {}
    for layout in options.layouts:
        ranks, threads = layout.split("x")
        layouts[layout] = [Turn(f"rank {rank} of {layout}", [options.program, threads])
                           for rank in range(int(ranks))]
        step(None, layouts[layout])
    watch = Watch([turn for turns in layouts.values() for turn in turns])
    begin = time.monotonic()
    while watch.good < options.rounds and time.monotonic() - begin < options.seconds:
        watch.run(lambda: [step(layout, turns) for layout, turns in layouts.items()])
    if watch.good == 0:
        sys.exit(f"{watch}: the machine is too busy to measure anything")
    print(f"{watch}, commit {next(iter(layouts.values()))[0].about['commit']}\n")
    print("| ranks x threads | s per step of all ranks, median (quartiles) | tokens/s of all ranks |")
    print("|---|---|---|")
    for layout, turns in layouts.items():
        seconds = turns[0].answers[layout]
        tokens = 1024 * len(turns)
        print(f"| {layout} | {spread(seconds)} | {tokens / statistics.median(seconds):.0f} |")
        for turn in turns:
            turn.end()


if __name__ == "__main__":
    main()
