// The subcommands: each file adds one to the program. A command's callback throws caravan::Error; main prints
// it once and ends all ranks.
#pragma once

#include <CLI/CLI.hpp>

namespace caravan::app {

void add_train_command(CLI::App& program);
void add_eval_command(CLI::App& program);
void add_generate_command(CLI::App& program);
void add_convert_command(CLI::App& program);
void add_tokenizer_command(CLI::App& program);
void add_inspect_command(CLI::App& program);
void add_verify_command(CLI::App& program);
void add_bench_command(CLI::App& program);

}  // namespace caravan::app
