"""One training step on one rank, from file to update; drawn by scripts/draw_pictures.py. The letters are those of
include/caravan/core/shape.h, the other names those of docs/tour.md."""

STRIP = 96  # parameters on the left edge, their gradients on the right
LEFT, RIGHT, WIDTH = 144, 572, 300  # columns of the forward and the backward pass
RIGHT_STRIP = RIGHT + WIDTH + 24
MIDDLE = (LEFT + WIDTH + RIGHT) / 2
TOP, HEAD = 196, 678  # of the strips, of the head


def data_row(picture):
    picture.text(24, 64, "data, in a thread a few batches ahead", "soft")
    picture.text(RIGHT_STRIP + STRIP, 64, "T = B · S tokens", "soft", "end")
    cards = [
        (24, 158, "files", ["lines of text", "or JSONL, also .gz"]),
        (206, 160, "sampler", ["order: a function of", "(seed, part, epoch)"]),
        (390, 178, "document stream", ["shuffle buffer,", "tokenizer"]),
        (592, 160, "packing", ["inputs ids[:-1],", "targets ids[1:]"]),
        (776, 216, "TokenBatch", ["ids, targets, weights,", "index, start, position  [T]"]),
    ]
    for i, (x, width, head, lines) in enumerate(cards):
        picture.card(x, 76, width, 78)
        picture.text(x + 12, 99, head, "head")
        for j, words in enumerate(lines):
            picture.text(x + 12, 121 + 18 * j, words, "soft")
        if i > 0:
            picture.arrow(f"M{x - 24} 115 H{x - 2}")
    picture.arrow(f"M884 154 V175 H{LEFT + WIDTH / 2} V{TOP - 2}")
    picture.text(LEFT + WIDTH / 2 + 12, 190, "ids here, index and start to attention, targets and weights to the head",
                 "soft")


def strip(picture, x, name):
    picture.card(x, TOP, STRIP, HEAD + 110 - TOP)
    picture.text(x + STRIP / 2, TOP + 24, name, "head strip", "middle")


def segment(picture, y, name, forward, saved, backward, strips):
    """Forward on the left, what is kept in the middle, backward (read upwards) on the right, parameters and their
    gradients at the edges."""
    height = 42 + 23 * len(forward)
    middle = y + height / 2
    for x, head in ((LEFT + 34, name), (RIGHT + 14, "backward, read upwards" if len(backward) > 1 else "backward")):
        picture.card(x - (34 if x < RIGHT else 14), y, WIDTH, height)
        picture.text(x, y + 23, head, "head")
    for i, line in enumerate(forward):
        picture.formula(LEFT + 34, y + 48 + 23 * i, line)
    for i, line in enumerate(backward):
        picture.formula(RIGHT + 14, y + 48 + 23 * i, line)
    for i, words in enumerate(saved):
        top = middle - 21 * len(saved) / 2 + 21 * i
        picture.box("copy", MIDDLE - 42, top, 84, 18, 4)
        picture.text(MIDDLE, top + 13, words, "on", "middle")
    if saved:
        picture.arrow(f"M{LEFT + WIDTH} {middle} H{MIDDLE - 44}")
        picture.arrow(f"M{MIDDLE + 42} {middle} H{RIGHT - 2}")
    picture.arrow(f"M{24 + STRIP} {middle} H{LEFT - 2}")
    picture.arrow(f"M{RIGHT + WIDTH} {middle} H{RIGHT_STRIP - 2}")
    for x, lines in zip((24 + STRIP / 2, RIGHT_STRIP + STRIP / 2), strips):
        for i, words in enumerate(lines):
            picture.text(x, middle - 8 * (len(lines) - 1) + 5 + 16 * i, words, "mono small", "middle")


def head(picture):
    """The head turns the flow round: loss and gradient of a chunk in one go."""
    picture.card(LEFT, HEAD, RIGHT + WIDTH - LEFT, 110)
    picture.text(LEFT + 34, HEAD + 23, "head: x += delta, final norm, then in chunks of C tokens", "head")
    for i, line in enumerate(["logits = xf outputᵀ     [C, V]", "max, Σexp, target: {VocabReduce}",
                              "losses = weight · (lse − logit[target])"]):
        picture.formula(LEFT + 34, HEAD + 48 + 23 * i, line)
    for i, line in enumerate(["p = exp(logit − lse)", "dlogits = (p − [v is target]) · weight / valid",
                              "dxf = dlogits output"]):
        picture.formula(RIGHT - 38, HEAD + 48 + 23 * i, line)
    picture.arrow(f"M{MIDDLE - 20} {HEAD + 67} H{RIGHT - 48}")
    picture.arrow(f"M{24 + STRIP} {HEAD + 55} H{LEFT - 2}")
    picture.arrow(f"M{RIGHT + WIDTH} {HEAD + 55} H{RIGHT_STRIP - 2}")
    for i, words in enumerate(["norm [D]", "output", "[V, D]"]):
        picture.text(24 + STRIP / 2, HEAD + 44 + 16 * i, words, "mono small", "middle")
    for i, words in enumerate(["dnorm", "doutput", "[V, D]"]):
        picture.text(RIGHT_STRIP + STRIP / 2, HEAD + 44 + 16 * i, words, "mono small", "middle")


def update_row(picture):
    y = HEAD + 132
    picture.arrow(f"M{MIDDLE} {HEAD + 110} V{y - 2}")
    picture.card(LEFT, y, RIGHT + WIDTH - LEFT, 62)
    picture.text(LEFT + 14, y + 24, "results", "head")
    picture.text(LEFT + 14, y + 47, "loss = Σ losses / valid, gradient norm, tokens, seconds: into *results.h5*, the log of "
                 "rounds, the console", "soft")
    y += 86
    below = HEAD + 110
    picture.card(RIGHT, y, WIDTH, 62)
    picture.text(RIGHT + 14, y + 24, "norm and clipping", "head")
    picture.formula(RIGHT + 14, y + 48, "clip_factor = min(1, clip_norm / norm)")
    picture.arrow(f"M{RIGHT_STRIP + STRIP / 2} {below} V{y + 31} H{RIGHT + WIDTH + 2}")
    picture.arrow(f"M{RIGHT + WIDTH / 2} {y} V{y - 22}")
    picture.card(LEFT, y, WIDTH, 62)
    picture.text(LEFT + 14, y + 24, "AdamW", "head")
    picture.formula(LEFT + 14, y + 48, "m, v: two numbers per parameter")
    picture.arrow(f"M{RIGHT} {y + 31} H{LEFT + WIDTH + 2}")
    picture.arrow(f"M{LEFT} {y + 31} H{24 + STRIP / 2} V{below + 2}")


def draw(new_picture):
    picture = new_picture(RIGHT_STRIP + STRIP + 24, 1008, "One training step on one rank",
                          "Files are read, shuffled, encoded and packed into a batch of token rows. The embedding starts "
                          "the residual stream, which every attention and MLP segment of the L layers reads through a "
                          "norm and adds to. The head computes logits, loss and their gradient in chunks of tokens. The "
                          "gradient of the stream flows back through the segments, which use what they kept and add "
                          "their weights' gradients. AdamW updates the parameters; loss and norm go to the results.")
    picture.text(24, 34, "One training step on one rank", "head")
    picture.formula(RIGHT_STRIP + STRIP - 370, 34, "{port}")
    picture.text(RIGHT_STRIP + STRIP, 34, "where other ranks, or a K/V cache, would come in", "soft", "end")
    data_row(picture)
    strip(picture, 24, "parameters")
    strip(picture, RIGHT_STRIP, "gradients")
    picture.text(24 + STRIP / 2, TOP + 84, "leased by", "soft", "middle")
    picture.pill("s3", 24 + STRIP / 2 - 41.1, TOP + 104, "ParamStore")

    segment(picture, TOP, "embedding", ["x = tok_embeddings[ids]    [T, D]"], [], ["dweight[ids[t]] += g[t]"],
            (["", "[V, D]"], ["", "[V, D]"]))
    segment(picture, 300, "attention segment",
            ["x += delta;  xn = rmsnorm(x)", "xf = {enter}(xn)             [T, D]", "q, k, v = xf Wqᵀ, xf Wkᵀ, xf Wvᵀ",
             "q, k = rope(q), rope(k)", "o, lse = {attention}(q, k, v)", "delta = {leave}(o Woᵀ)"],
            ["x [T, D]", "xn, rstd", "q [T, H·E]", "k, v [T, G·E]", "o [T, H·E]", "lse [H, T]"],
            ["g += rmsnorm_backward(dxn)", "dxn = {enter_backward}(dx)", "dx = dq Wq + dk Wk + dv Wv",
             "dq, dk = rope⁻¹(dq), rope⁻¹(dk)", "dq, dk, dv = {attention.backward}(do)",
             "do = {leave_backward}(g) Wo"],
            (["norm [D]", "Wq Wk Wv", "Wo"], ["dnorm", "dWq dWk", "dWv dWo"]))
    segment(picture, 490, "MLP segment",
            ["x += delta;  xn = rmsnorm(x)", "xf = {enter}(xn)             [T, D]", "gate, up = xf W1ᵀ, xf W3ᵀ",
             "h = swiglu(gate, up)         [T, F]", "delta = {leave}(h W2ᵀ)"],
            ["x [T, D]", "xn, rstd", "gate, up", "h [T, F]"],
            ["g += rmsnorm_backward(dxn)", "dxn = {enter_backward}(dx)", "dx = dgate W1 + dup W3",
             "dgate, dup = swiglu_backward(dh)", "dh = {leave_backward}(g) W2"],
            (["norm [D]", "W1 W3", "W2"], ["dnorm", "dW1 dW3", "dW2"]))
    head(picture)
    picture.stream("forward", "s0", LEFT + 17, TOP + 65, HEAD, (348, 538))
    picture.stream("backward", "s2", RIGHT + WIDTH - 17, HEAD, TOP + 65, (348, 538))
    picture.text(LEFT + 34, 285, "residual stream: x, delta not yet added", "soft")
    picture.text(RIGHT + 14, 285, "gradient of the stream: g  [T, D]", "soft")
    picture.text(MIDDLE, 285, "kept", "soft", "middle")
    picture.text(MIDDLE, 665, "L layers of these two", "soft", "middle")
    update_row(picture)
    picture.text(24, 990, "B batch, S sequence, T tokens, D hidden, F intermediate, H heads, G kv heads, E head width, V "
                 "vocabulary, C chunk; valid: the targets that count", "soft")
    return picture
