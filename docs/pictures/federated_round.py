"""One federated round on four ranks; drawn by scripts/draw_pictures.py."""


def rank_card(picture, rank, x):
    y = 52
    picture.card(x, y, 216, 276)
    picture.text(x + 14, y + 26, f"rank {rank}" + (" (aggregator)" if rank == 0 else ""), "head")
    for top, words in ((54, "attention heads"), (110, "FFN rows")):
        picture.text(x + 14, y + top, words, "soft")
        for slot in range(4):
            left = x + 14 + 47 * slot
            picture.box(f"s{rank}" if slot == rank else "none", left, y + top + 7, 44, 24)
            if slot == rank:
                picture.text(left + 22, y + top + 23, f"slot {rank}", "on", "middle")
    picture.text(x + 14, y + 166, "full copy", "soft")
    picture.box("copy", x + 14, y + 173, 185, 24)
    picture.text(x + 106, y + 189, "embedding, norms, output", "on", "middle")
    picture.text(x + 14, y + 223, "trains alone, fresh AdamW,")
    picture.text(x + 14, y + 242, f"on part {rank} of the data")
    picture.text(x + 14, y + 263, "sends and receives nothing", "soft")


def draw(new_picture):
    picture = new_picture(960, 656, "One federated round on four ranks",
                          "Each rank holds a quarter of the attention heads and of the MLP rows and a full copy of the "
                          "rest, and trains alone on its own part of the data. At the end of the round rank 0 gathers "
                          "the slices with MPI_Gatherv, the full copies are averaged by an all-reduce, and rank 0 "
                          "evaluates the assembled model on held-out data.")
    picture.text(24, 34, "One round, N = 4 ranks", "head")
    picture.text(936, 34, "a slot: heads and FFN rows [s/N, (s+1)/N) of every layer", "soft", "end")
    for rank in range(4):
        x = 24 + 232 * rank
        rank_card(picture, rank, x)
        picture.arrow(f"M{x + 62} 328 V362")
        picture.arrow(f"M{x + 158} 328 V422", dashed=True)

    for y, call, words in ((364, "MPI_Gatherv", "the slices, one tensor at a time, in slot order, to rank 0"),
                           (424, "all-reduce", "the mean of the full copies; it stays on every rank")):
        picture.card(24, y, 912, 37)
        picture.text(40, y + 23, call, "mono")
        picture.text(140, y + 23, words)

    picture.arrow("M132 461 V488")
    picture.card(24, 490, 448, 96)
    picture.text(38, 516, "rank 0: the assembled model", "head")
    for slot in range(4):
        picture.box(f"s{slot}", 38 + 62 * slot, 530, 59, 40)
        picture.text(67.5 + 62 * slot, 554, f"slot {slot}", "on", "middle")
    picture.box("copy", 286, 530, 170, 40)
    picture.text(371, 554, "mean of the copies", "on", "middle")

    picture.arrow("M473 538 H500")
    picture.card(504, 490, 432, 96)
    picture.text(518, 516, "evaluation on held-out data", "head")
    picture.text(518, 542, "loss, perplexity = exp(loss)")
    picture.text(518, 566, "*results.h5*, the log of rounds, a checkpoint of the round", "soft")
    picture.text(24, 614, "Next round: every rank goes on with the slice it has, so no slice is sent back.")
    picture.text(24, 634, "With *enable_swapping* each rank moves to the next slot before every even round and receives "
                 "that slice.")
    return picture
