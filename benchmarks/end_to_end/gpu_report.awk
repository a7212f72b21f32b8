# The speed part of gpu_check.sh's report, from the programs' own output:
#   awk -f gpu_report.awk gpu_goals.txt [step_ID.log torch_ID.log ops_ID.log ... benchmark_cuda_kernels.log benchmark_cuda_attention.log]
# A figure that no log has is "not measured".

function trim(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); return text }

FNR == 1 { file = FILENAME; sub(/^.*\//, "", file); sub(/\.log$/, "", file)
           section = file == "benchmark_cuda_attention" ? "attention" : "" }

file == "gpu_goals.txt" {
  if ($0 ~ /^#/ || $0 !~ /\|/) next
  split($0, field, "|")
  ++goals
  kind[goals] = trim(field[1]); id[goals] = trim(field[2]); what[goals] = trim(field[3]); given[goals] = trim(field[4])
  figure[goals] = trim(field[5]); floor[goals] = trim(field[6]); goal[goals] = trim(field[7])
  next
}

# "llama3.2-1b, 16384 tokens ..." begins a model's kernels; a row is the kernel's name, two spaces or more, and the rest.
file == "benchmark_cuda_kernels" || file == "benchmark_cuda_attention" {
  if ($0 ~ /^[^ ]+, [0-9]+ tokens/) { section = $1; sub(/,$/, "", section) }
  else if (match($0, / [0-9.]+ TFLOP\/s/)) {
    rate = substr($0, RSTART, RLENGTH) + 0
    name = $0; sub(/  .*$/, "", name)
    kernel[section ": " name] = rate
  }
  next
}

match($0, /^[a-z_]+: /) {
  key = substr($0, 1, RLENGTH - 2)
  log_of[file, key] = substr($0, RLENGTH + 1)
  if (key ~ /^op_.*_ms$/ && !(key in is_op)) { is_op[key] = 1; op[++ops] = key }
}

function value(program, number, key) {
  return ((program "_" id[number], key) in log_of) ? log_of[program "_" id[number], key] : ""
}
function shown(text, format) { return text == "" ? "–" : sprintf(format, text) }
function ratio_of(number,  ours, theirs) {
  ours = value("step", number, "tokens_per_second"); theirs = value("torch", number, "tokens_per_second")
  return ours == "" || theirs == "" ? "" : ours / theirs
}
function line(program, name, number, ratio,  milliseconds, batch) {
  milliseconds = batch = "–"
  if (value(program, number, "step_ms") != "") {
    milliseconds = sprintf("%.0f (%.0f to %.0f, %d)", value(program, number, "step_ms"),
                           value(program, number, "step_ms_least"), value(program, number, "step_ms_most"),
                           value(program, number, "steps"))
    batch = value(program, number, "rows") " × " value(program, number, "seq_len") " × " value(program, number, "micro_batches")
  }
  printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", what[number], name,
         shown(value(program, number, "tokens_per_second"), "%.0f"), ratio, milliseconds,
         shown(value(program, number, "mfu_causal_percent"), "%.1f %%"),
         shown(value(program, number, "mfu_full_percent"), "%.1f %%"),
         shown(value(program, number, "peak_memory_gib"), "%.1f"), batch
}
function verdict(measured, number) {
  if (measured == "") return "not measured"
  if (measured + 0 >= goal[number] + 0) return "goal met"
  if (measured + 0 >= floor[number] + 0) return "floor met, goal missed"
  return "**floor missed**"
}
function judge(number, text, measured) {
  printf "| %s | %s | %s | %s | %s | %s |\n", text, figure[number], floor[number], goal[number],
         measured == "" ? "–" : sprintf("%.4g", measured), verdict(measured, number)
}

# Kinds of ops are those that the logs have, in their order.
function ops_table(  n, k, all, name, head, rule) {
  head = "| ms | all |"; rule = "|---|---|"
  for (k = 1; k <= ops; ++k) {
    name = op[k]; sub(/^op_/, "", name); sub(/_ms$/, "", name); gsub(/_/, " ", name)
    head = head " " name " |"; rule = rule "---|"
  }
  print "\n### Where the time of a step goes\n"
  print "One micro-batch and one update, where a step has several and one. Each op alone with its launch and the host\x27s wait, at a" \
        " higher clock than in a step.\n"
  print head; print rule
  for (n = 1; n <= goals; ++n) if (kind[n] == "step" && value("ops", n, op[1]) != "") {
    all = 0
    for (k = 1; k <= ops; ++k) all += value("ops", n, op[k])
    printf "| %s | %.2f |", what[n], all
    for (k = 1; k <= ops; ++k) printf " %.2f |", value("ops", n, op[k])
    print ""
  }
}

END {
  if (ops > 0) ops_table()
  print "\n### Step beside PyTorch\n"
  print "ms per step: the median of n steps (least to most, n). Memory: what the program took of the GPU, libraries included; for PyTorch what its allocator reserved. Model FLOP" \
        " utilisation is of 989 TFLOP/s. The ratio is of tokens/s, Caravan's over PyTorch's.\n"
  print "| | program | tokens/s | ratio | ms per step | MFU, causal half | MFU, full square | GiB | rows × T × micro-batches |"
  print "|---|---|---|---|---|---|---|---|---|"
  for (n = 1; n <= goals; ++n) if (kind[n] == "step") {
    line("step", "Caravan", n, shown(ratio_of(n), "%.2f"))
    line("torch", "PyTorch", n, "")
  }
  print ""
  for (n = 1; n <= goals; ++n) if (kind[n] == "step" && value("step", n, "program") != "") {
    printf "- %s on %s: product %s TFLOP/s, of which the step reaches %s %%, and %s TFLOP/s after seconds of products alone," \
           " of which it reaches %s %%; copy %s TB/s; ", what[n], value("step", n, "device"), value("step", n, "product_tflops"),
           value("step", n, "of_product_percent"), value("step", n, "sustained_product_tflops"),
           value("step", n, "of_sustained_product_percent"), value("step", n, "copy_tb_per_second")
    if (("clocks_" id[n], "sm_mhz") in log_of)
      printf "while it was measured, median %s MHz and %s W; ", log_of["clocks_" id[n], "sm_mhz"], log_of["clocks_" id[n], "watts"]
    printf "%s", value("step", n, "program")
    if (value("torch", n, "program") != "")
      printf "; %s, torch.compile: %s", value("torch", n, "program"), value("torch", n, "compile")
    print ""
  }
  print "\n### Floors and goals\n"
  print "| | figure | floor | goal | measured | |"
  print "|---|---|---|---|---|---|"
  for (n = 1; n <= goals; ++n) {
    if (kind[n] == "step") judge(n, what[n], value("step", n, figure[n]))
    else if (kind[n] == "absent") judge(n, what[n] " (" given[n] ")", "")
    else if (kind[n] == "torch") {
      for (m = 1; m <= goals; ++m) if (kind[m] == "step") {
        compiled = value("torch", m, "compile")
        judge(n, what[n] (compiled ~ /^(layers)?$/ ? "" : " (which could not be used: without it)") ", " what[m], ratio_of(m))
      }
    } else if (kind[n] == "kernel") {
      split(given[n], part, ": "); split(part[2], row, ", ")
      ours = part[1] ": " row[1]; theirs = part[1] ": " row[2]
      judge(n, what[n], (ours in kernel) && (theirs in kernel) ? kernel[ours] / kernel[theirs] : "")
    }
  }
}
