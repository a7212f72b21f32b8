#include "caravan/io/yaml_config.h"

#include <fmt/format.h>

#include <sys/stat.h>
#include <algorithm>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "caravan/core/error.h"

using namespace caravan;

namespace {

namespace fs = std::filesystem;

/// A folder of its own for the files of one test.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "caravan_config_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;

  std::string write(const std::string& name, const std::string& text) const {
    const fs::path file = path_ / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
    return file.string();
  }
  std::string str() const { return path_.string(); }

 private:
  fs::path path_;
};

constexpr const char* kGood =
    "model: {preset: tiny}\n"
    "data: {train: train.jsonl, eval: eval.jsonl}\n";

/// A whole configuration with `text` in front of what every one needs.
RunConfig parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return parse_run_config(text, "run.yaml", overrides);
}

std::string message_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    parse(text, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::string load_message(const std::string& path) {
  try {
    load_run_config(path, {});
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

std::size_t count_lines(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("the keys fixed for users are all read", "[io][config]") {
  const RunConfig config = parse(R"(mode: federated            # or: synchronous
dtype: float32
seed: 43
model: {checkpoint: DIR, tie_embeddings: auto}
tokenizer: PATH
data: {train: FILE, eval: EVAL, max_seq_len: 256, pad_id: null, shuffle: false, pack: true}
optimizer: {name: adamw, lr: 2.0e-5, weight_decay: 0.02, betas: [0.8, 0.99], eps: 1.0e-7, no_decay: ["*norm*"]}
federated: {world_size: null, rounds: 6, local_epochs: 2, batch_size: 5, enable_swapping: true}
training: {steps: 101, batch_size: 6, eval_every: 7, clip_norm: null}
checkpoint: {every: 20, keep: 2, async: true}
output: {dir: runs/NAME, name: null}
)");
  RunConfig wanted;
  wanted.seed = 43;
  wanted.model.checkpoint = "DIR";
  wanted.tokenizer = "PATH";
  wanted.data.train = {"FILE"};
  wanted.data.eval = {"EVAL"};
  wanted.data.max_seq_len = 256;
  wanted.data.shuffle = false;
  wanted.data.pack = true;
  wanted.optimizer.lr = 2.0e-5;
  wanted.optimizer.weight_decay = 0.02;
  wanted.optimizer.betas = {0.8, 0.99};
  wanted.optimizer.eps = 1.0e-7;
  wanted.optimizer.no_decay = {"*norm*"};
  wanted.federated.rounds = 6;
  wanted.federated.local_epochs = 2;
  wanted.federated.batch_size = 5;
  wanted.federated.enable_swapping = true;
  wanted.training.steps = 101;
  wanted.training.batch_size = 6;
  wanted.training.eval_every = 7;
  wanted.checkpoint = {20, 2, true};
  wanted.output.dir = "runs/NAME";
  CHECK(config == wanted);
}

TEST_CASE("what is left out has its documented default", "[io][config]") {
  const RunConfig config = parse(kGood);
  CHECK(config.mode == TrainMode::kFederated);
  CHECK(config.dtype == DType::kFloat32);
  CHECK(config.seed == 42);
  CHECK(config.data.max_seq_len == 512);
  CHECK_FALSE(config.data.pad_id.has_value());
  CHECK(config.data.shuffle);
  CHECK_FALSE(config.data.pack);
  CHECK(config.optimizer.lr == 1.0e-5);
  CHECK(config.optimizer.betas == std::vector<double>{0.9, 0.999});
  CHECK(config.federated.rounds == 5);
  CHECK_FALSE(config.federated.enable_swapping);
  CHECK(config.federated.optimizer_state == OptimizerState::kFresh);
  CHECK_FALSE(config.training.clip_norm.has_value());
  CHECK(config.resume == "never");
  CHECK(config.checkpoint.every == 0);
  CHECK(config.checkpoint.keep == 3);
  CHECK_FALSE(config.checkpoint.is_async);
}

TEST_CASE("each wrong input is reported with place, key, value and remedy", "[io][config]") {
  struct Case {
    std::string text;
    std::vector<std::string> words;
  };
  const std::string good = kGood;
  const std::vector<Case> cases = {
      {"mod: federated\n" + good, {"run.yaml:1:1: mod: unknown key; did you mean mode?"}},
      {"mode: fed\n" + good, {"run.yaml:1:7: mode: got fed; expected one of federated, synchronous"}},
      {"dtype: int8\n" + good, {"run.yaml:1:8: dtype: got int8; expected one of float64, float32"}},
      {"dtype: float16\n" + good, {"run.yaml:1:8: dtype: is float16, which mode synchronous trains in"}},
      {"comm: {backend: nvshmem}\n" + good,
       {"run.yaml:1:17: comm.backend: got nvshmem; expected one of auto, nccl, mpi"}},
      {"seed: -1\n" + good, {"run.yaml:1:7: seed: is -1; it must be at least 0"}},
      {"seed: 1.5\n" + good, {"run.yaml:1:7: seed: got 1.5; expected a whole number at least 0"}},
      {"seed: 99999999999999999999\n" + good, {"seed: got 99999999999999999999, which does not fit 64 bits"}},
      {"seed: '42'\n" + good, {"run.yaml:1:7: seed: got \"42\"; expected a whole number"}},
      {"seed:\n" + good, {"seed: got null; expected a whole number"}},
      {"seed: [1]\n" + good, {"run.yaml:1:7: seed: got a list; expected a whole number"}},
      {"seed: 1\nseed: 2\n" + good, {"run.yaml:2:1: seed: given twice, first in line 1; remove one"}},
      {"lr: 0.1\n" + good, {"run.yaml:1:1: lr: unknown key; did you mean optimizer.lr?"}},
      {"quantum: 1\n" + good,
       {"quantum: unknown key; known here: mode, device, dtype, attention, cuda_graphs, seed"}},
      {"optimizer: {lr: fast}\n" + good,
       {"run.yaml:1:17: optimizer.lr: got fast; expected a number greater than 0"}},
      {"optimizer:\n  lr: 0\n" + good, {"run.yaml:2:7: optimizer.lr: is 0; it must be greater than 0"}},
      {"optimizer: {lr: -1e-5}\n" + good, {"optimizer.lr: is -1e-05; it must be greater than 0"}},
      {"optimizer: {lr: .nan}\n" + good, {"optimizer.lr: got .nan; expected a number greater than 0"}},
      {"optimizer: {lr: nan}\n" + good, {"optimizer.lr: got nan; expected a number greater than 0"}},
      {"optimizer: {lr: 1e999}\n" + good, {"optimizer.lr: got 1e999, which is too large or too small"}},
      {"optimizer: {lr: 1e-5x}\n" + good, {"optimizer.lr: got 1e-5x; expected a number"}},
      {"optimizer: {betas: [0.9]}\n" + good, {"optimizer.betas: has 1 numbers; it must have two"}},
      {"optimizer: {betas: [0.9, 1.0]}\n" + good,
       {"optimizer.betas: is 1; it must be at least 0 and less than 1"}},
      {"optimizer: {betas: 0.9}\n" + good,
       {"optimizer.betas: got 0.9; expected a list of numbers at least 0 and less than 1"}},
      {"optimizer: {betas: [0.9, x]}\n" + good, {"run.yaml:1:26: optimizer.betas: got x"}},
      {"optimizer: {eps: 0}\n" + good, {"optimizer.eps: is 0; it must be greater than 0"}},
      {"optimizer: {weight_decay: -0.1}\n" + good,
       {"optimizer.weight_decay: is -0.1; it must be at least 0"}},
      {"optimizer: {name: sgd}\n" + good, {"optimizer.name: is 'sgd'; adamw is the only one"}},
      {"optimizer: {no_decay: {a: b}}\n" + good,
       {"optimizer.no_decay: got a section; expected a text or a list"}},
      {"optimizer: adamw\n" + good, {"run.yaml:1:12: optimizer: got adamw; expected a section of keys"}},
      {"optimizer: {lerning_rate: 1}\n" + good,
       {"optimizer.lerning_rate: unknown key; known here: name, lr"}},
      {"federated: {batchsize: 1}\n" + good,
       {"run.yaml:1:13: federated.batchsize: unknown key; did you mean federated.batch_size?"}},
      {"federated: {rounds: -1}\n" + good, {"federated.rounds: is -1; it must be from 0 to 1000000000"}},
      {"federated: {local_epochs: 0}\n" + good, {"federated.local_epochs: is 0; it must be from 1"}},
      {"federated: {batch_size: 0}\n" + good, {"federated.batch_size: is 0; it must be from 1 to 1048576"}},
      {"federated: {world_size: 0}\n" + good, {"federated.world_size: is 0; it must be from 1"}},
      {"federated: {enable_swapping: yes}\n" + good, {"enable_swapping: got yes; expected true or false"}},
      {"federated: {enable_swapping: 'true'}\n" + good,
       {"enable_swapping: got \"true\"; expected true or false"}},
      {"federated: {optimizer_state: old}\n" + good, {"got old; expected one of fresh, keep"}},
      {"federated: {delta_scale: 0}\n" + good, {"federated.delta_scale: is 0; it must be greater than 0"}},
      {"federated: {outer: {momentum: 1}}\n" + good,
       {"federated.outer.momentum: is 1; it must be at least 0"}},
      {"federated: {outer: {nesterov: true}}\n" + good,
       {"run.yaml:1:31: federated.outer.nesterov: is true without momentum"}},
      {"federated: {outer: {momentom: 0.5}}\n" + good, {"did you mean federated.outer.momentum?"}},
      {"training: {steps: 0}\n" + good, {"training.steps: is 0; it must be from 1"}},
      {"training: {clip_norm: 0}\n" + good, {"training.clip_norm: is 0; it must be greater than 0"}},
      {"training: {dropout: 1}\n" + good,
       {"run.yaml:1:21: training.dropout: is 1; it must be at least 0 and less than 1"}},
      {"training: {dropout: -0.1}\n" + good, {"training.dropout: is -0.1; it must be at least 0"}},
      {"training: {eval_every: -1}\n" + good, {"training.eval_every: is -1; it must be at least 0"}},
      {"threads: 0\n" + good, {"threads: is 0; it must be from 1 to 4096"}},
      {"resume: lastest\n" + good,
       {"run.yaml:1:9: resume: is lastest; in mode federated it is never or latest"}},
      {"resume: [latest]\n" + good, {"resume: got a list; expected never, latest or a path"}},
      {"resume: ''\n" + good, {"resume: is empty"}},
      {"checkpoint: {every: -1}\n" + good, {"checkpoint.every: is -1; it must be from 0 to"}},
      {"checkpoint: {keep: 0}\n" + good, {"checkpoint.keep: is 0; it must be from 1 to"}},
      {"checkpoint: {async: often}\n" + good, {"checkpoint.async: got often; expected true or false"}},
      {"checkpoint: {evry: 5}\n" + good, {"did you mean checkpoint.every?"}},
      {"output: {dir: ''}\n" + good, {"run.yaml:1:15: output.dir: is empty"}},
      {"output: {name: a/b}\n" + good, {"output.name: is 'a/b'; it becomes part of a folder's name"}},
      {"tokenizer: \"a\\0b\"\n" + good, {"tokenizer: holds a zero byte"}},
      {"tokenizer: ~root/x\n" + good, {"tokenizer: got ~root/x; only ~/ is known"}},
      {"seed: !!int 4\n" + good, {"run.yaml:1:7: the tag", "has no meaning here"}},
      {"? [a, b]\n: 1\n" + good, {"a key must be a word, here stands a list"}},
      {"seed: {\n" + good, {"run.yaml:", "is not YAML: "}},
      {"seed: *nothing\n" + good, {"run.yaml:1:7: is not YAML: "}},
      {"\tseed: 1\n", {"is not YAML: "}},
      {"- 1\n- 2\n", {"run.yaml:1:1: got a list; a configuration is a section of keys"}},
      {"just words\n", {"run.yaml:1:1: got just words; a configuration is a section of keys"}},
      {good + "---\nseed: 1\n", {"run.yaml: holds more than one YAML document"}},
      {"", {"run.yaml: model: no weights", "run.yaml: data.train: is missing", "data.eval: is missing"}},
      {"data: {train: a, eval: b}\n", {"run.yaml: model: no weights: give model.checkpoint"}},
      {"data: {train: a, eval: b}\nmodel: {preset: tiny, checkpoint: x}\n",
       {"run.yaml:2:8: model: model.checkpoint and model.preset are given; keep one"}},
      {"data: {train: a, eval: b}\nmodel: {preset: llama3.2-3B}\n",
       {"run.yaml:2:17: model.preset: is 'llama3.2-3B', which is none of", "did you mean llama3.2-3b?"}},
      {"data: {train: a, eval: b}\nmodel: {checkpoint: x, vocab_size: 5}\n",
       {"model.vocab_size: is 5, but a checkpoint brings its own"}},
      {"data: {train: a, eval: b}\nmodel: {preset: tiny, tie_embeddings: maybe}\n",
       {"model.tie_embeddings: got maybe; expected one of auto, true, false"}},
      {"data: {train: a, eval: b}\nmodel: {preset: tiny, rope_scaling_factor: 0.5}\n",
       {"model.rope_scaling_factor: is 0.5; it must be at least 1"}},
      {"model: {preset: tiny}\ndata: {train: [], eval: b}\n", {"run.yaml:2:15: data.train: is missing"}},
      {"model: {preset: tiny}\ndata: {train: [a, [b]], eval: b}\n",
       {"run.yaml:2:19: data.train: got a list; expected a path"}},
      {"model: {preset: tiny}\ndata: {train: [a, null], eval: b}\n", {"data.train: got null"}},
      {"model: {preset: tiny}\ndata: {train: a, eval: b, max_seq_len: 1}\n",
       {"data.max_seq_len: is 1; it must be from 2 to 16777216"}},
      {"model: {preset: tiny}\ndata: {train: a, eval: b, max_seq_len: 2097152}\nfederated: {batch_size: "
       "1025}\n",
       {"run.yaml:3:25: federated.batch_size: is 1025 for samples of data.max_seq_len 2097152: 2149580800 "
        "tokens "
        "in a step, 2147483647 are possible"}},
      {"model: {preset: tiny}\ndata: {train: a, eval: b, pad_id: -1}\n",
       {"data.pad_id: is -1; it must be at least 0"}},
  };
  for (const Case& one : cases) {
    INFO(one.text);
    const std::string message = message_of(one.text);
    INFO(message);
    CHECK(count_lines(message) == (one.text.empty() ? 3 : 1));
    for (const std::string& words : one.words) {
      CHECK(message.find(words) != std::string::npos);
    }
  }
}

TEST_CASE("all problems of a configuration are reported at once", "[io][config]") {
  const std::string message = message_of(
      "sead: 1\n"
      "dtype: int8\n"
      "model: {preset: tini}\n"
      "optimizer: {lr: -1, betas: [2, 0.5], epsilon: 1}\n"
      "federated:\n"
      "  rounds: many\n");
  INFO(message);
  CHECK(message.find("the configuration run.yaml has 9 problems:") == 0);
  for (const std::string words :
       {"run.yaml:1:1: sead: unknown key; did you mean seed?", "run.yaml:2:8: dtype: got int8",
        "run.yaml:3:17: model.preset: is 'tini'", "did you mean tiny?", "run.yaml:4:17: optimizer.lr: is -1",
        "run.yaml:4:28: optimizer.betas: is 2", "run.yaml:4:38: optimizer.epsilon: unknown key",
        "run.yaml:6:11: federated.rounds: got many", "data.train: is missing", "data.eval: is missing"}) {
    CHECK(message.find(words) != std::string::npos);
  }
}

TEST_CASE("a file of nothing but mistakes is told in a hundred lines, each cut and printable",
          "[io][config]") {
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    text += "key" + std::to_string(i) + ": 1\n";
  }
  const std::string message = message_of(text + kGood);
  CHECK(message.find("the configuration run.yaml has 5000 problems:") == 0);
  CHECK(count_lines(message) == 101);
  CHECK(message.ends_with("\n  and 4900 more"));
  const std::string one = message_of("\"a\\e[2J" + std::string(500, 'b') + "\": 1\n" + kGood);
  CHECK(one.find("run.yaml:1:1: a\\x1B[2Jbbb") != std::string::npos);
  const std::string cut = message_of("? " + std::string(100'000, 'b') + "\n: 1\n" + kGood);
  CHECK(cut.size() < 1200);
}

TEST_CASE("nothing is derived from a value that could not be read", "[io][config]") {
  const std::string message = message_of("model: {checkpoint: [1]}\ndata: {train: {a: b}, eval: c}\n");
  INFO(message);
  CHECK(message.find("2 problems") != std::string::npos);
  CHECK(message.find("model.checkpoint: got a list") != std::string::npos);
  CHECK(message.find("data.train: got a section") != std::string::npos);
}

TEST_CASE("overrides are read as YAML and win over the file", "[io][config]") {
  const RunConfig config =
      parse(kGood, {"optimizer.lr=1e-3", "data.train=[a.gz, b.gz]", "data.eval=*.gz", "model.preset=null",
                    "model.checkpoint=/models/3b", "federated.outer={momentum: 0.5, nesterov: true}",
                    "federated.outer.lr=0.7", "optimizer.lr=2e-3", "output.name=a=b"});
  CHECK(config.optimizer.lr == 2e-3);
  CHECK(config.data.train == std::vector<std::string>{"a.gz", "b.gz"});
  CHECK(config.data.eval == std::vector<std::string>{"*.gz"});
  CHECK_FALSE(config.model.preset.has_value());
  CHECK(config.model.checkpoint == "/models/3b");
  CHECK(config.federated.outer == OuterSection{0.5, true, 0.7});
  CHECK(config.output.name == "a=b");
}

TEST_CASE("a wrong override is reported under its own text", "[io][config]") {
  CHECK(message_of(kGood, {"optimizer.lr"}).find("--set optimizer.lr: is not of the form key=value") !=
        std::string::npos);
  CHECK(message_of(kGood, {"=3"}).find("--set =3: is not of the form") != std::string::npos);
  CHECK(message_of(kGood, {"a..b=3"}).find("is not of the form") != std::string::npos);
  CHECK(message_of(kGood, {"optimizer.ler=3"})
            .find("--set optimizer.ler=3: optimizer.ler: unknown key; did you mean optimizer.lr?") !=
        std::string::npos);
  CHECK(message_of(kGood, {"optimizer.lr=-3"}).find("--set optimizer.lr=-3: optimizer.lr: is -3") !=
        std::string::npos);
  CHECK(
      message_of(kGood, {"seed.x=3"}).find("--set seed.x=3: seed: got a section; expected a whole number") !=
      std::string::npos);
  CHECK(message_of(kGood, {"seed=[1"}).find("--set seed=[1:1:") != std::string::npos);
  CHECK(message_of(kGood, {"include=x.yaml"}).find("include: unknown key") != std::string::npos);
}

TEST_CASE("included files lie below the including one, section by section", "[io][config]") {
  const Folder folder;
  folder.write("base/model.yaml", "model: {preset: tiny, vocab_size: 300}\nseed: 1\n");
  folder.write("base/data.yaml",
               "include: model.yaml\ndata: {train: [a, b], eval: c, max_seq_len: 64}\nseed: 2\n");
  folder.write("base/late.yaml", "optimizer: {lr: 0.5}\nseed: 3\n");
  const std::string path = folder.write("run/run.yaml",
                                        "include: [../base/data.yaml, ../base/late.yaml]\n"
                                        "data: {train: d}\n"
                                        "model: {vocab_size: 400}\n"
                                        "optimizer:\n");
  const RunConfig config = load_run_config(path, {"data.max_seq_len=32"});
  CHECK(config.model.preset == "tiny");
  CHECK(config.model.vocab_size == 400);
  CHECK(config.data.train == std::vector<std::string>{"d"});
  CHECK(config.data.eval == std::vector<std::string>{"c"});
  CHECK(config.data.max_seq_len == 32);
  CHECK(config.optimizer.lr == 0.5);
  CHECK(config.seed == 3);
}

TEST_CASE("a problem in an included file is reported where it stands", "[io][config]") {
  const Folder folder;
  const std::string base = folder.write("base.yaml", std::string(kGood) + "optimizer:\n  lr: -3\n");
  const std::string path = folder.write("run.yaml", "include: base.yaml\n");
  CHECK(load_message(path).find(base + ":4:7: optimizer.lr: is -3") != std::string::npos);
}

TEST_CASE("files that include themselves or are not there are errors", "[io][config]") {
  const Folder folder;
  const std::string a = folder.write("a.yaml", std::string("include: b.yaml\n") + kGood);
  const std::string b = folder.write("b.yaml", "include: ./a.yaml\n");
  CHECK(load_message(a).find(b + ":1:10: include: ") != std::string::npos);
  CHECK(load_message(a).find("includes itself") != std::string::npos);
  const std::string c =
      folder.write("c.yaml", std::string("include:\n  - gone.yaml\n  - 7up/\n  - {a: b}\n") + kGood);
  const std::string message = load_message(c);
  INFO(message);
  CHECK(message.find(c + ":2:5: include: ") != std::string::npos);
  CHECK(message.find("gone.yaml cannot be read: No such file") != std::string::npos);
  CHECK(message.find(c + ":4:5: include: got a section; expected the name of a file") != std::string::npos);
  CHECK(count_lines(message) == 3);
  const std::string missing = folder.str() + "/none.yaml";
  CHECK(load_message(missing).find(missing + ": cannot be read: No such file") != std::string::npos);
  CHECK(load_message(folder.str()).find("is a folder") != std::string::npos);
}

TEST_CASE("a pipe given for a configuration is refused, not waited for", "[io][config]") {
  const Folder folder;
  const std::string pipe = folder.str() + "/pipe.yaml";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(load_message(pipe).find(pipe + ": is a device or pipe") != std::string::npos);
}

TEST_CASE("files that include each other twice over are stopped", "[io][config]") {
  const Folder folder;
  for (int i = 0; i < 20; ++i) {
    folder.write(fmt::format("{}.yaml", i), fmt::format("include: [{}.yaml, {}.yaml]\n", i + 1, i + 1));
  }
  folder.write("20.yaml", kGood);
  const std::string message = load_message(folder.str() + "/0.yaml");
  CHECK(message.find("include: more than 256 files") != std::string::npos);
  CHECK(count_lines(message) == 1);
}

TEST_CASE("aliases work and cannot be used to fill memory", "[io][config]") {
  const RunConfig config = parse("data: {train: &files [a, b], eval: *files}\nmodel: {preset: tiny}\n");
  CHECK(config.data.eval == std::vector<std::string>{"a", "b"});
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    bomb += fmt::format("a{}: &a{} [*a{}", i, i, i - 1);
    for (int j = 1; j < 10; ++j) {
      bomb += fmt::format(", *a{}", i - 1);
    }
    bomb += "]\n";
  }
  CHECK(message_of(bomb).find("more than 20000 values") != std::string::npos);
  CHECK(message_of("seed: &a [*a]\n").find("holds the alias itself") != std::string::npos);
  std::string nested;
  for (int i = 0; i < 400; ++i) {
    nested += fmt::format("&n{} [", i);
  }
  for (int i = 0; i < 5000; ++i) {
    nested += "1,";
  }
  nested += std::string(400, ']');
  CHECK(message_of("seed: " + nested).find("more than 20000 values") != std::string::npos);
}

TEST_CASE("hostile text ends in an error, not in a crash", "[io][config]") {
  CHECK(message_of(std::string(100000, '[')).find("problem") != std::string::npos);
  CHECK(message_of(std::string(2 << 20, 'a')).find("a configuration has at most 1048576") !=
        std::string::npos);
  CHECK(message_of(std::string("\0\0\0", 3)).find("problem") != std::string::npos);
  CHECK(message_of("seed: \xFF\xFE\n").find("problem") != std::string::npos);
  std::string repeated;
  for (int i = 0; i < 30000; ++i) {
    repeated += fmt::format("k{}: 1\n", i);
  }
  CHECK(message_of(repeated).find("more than 20000 values") != std::string::npos);
}

TEST_CASE("a path may start at the home folder", "[io][config]") {
  REQUIRE(setenv("HOME", "/home/someone", 1) == 0);
  const RunConfig config =
      parse(std::string(kGood) + "tokenizer: ~/llama/tokenizer.model\n", {"output.dir=~/runs"});
  CHECK(config.tokenizer == "/home/someone/llama/tokenizer.model");
  CHECK(config.output.dir == "/home/someone/runs");
}

TEST_CASE("the effective configuration reads back to the same values", "[io][config]") {
  RunConfig config = parse(kGood);
  CHECK(parse(to_yaml(config)) == config);
  config.mode = TrainMode::kSynchronous;
  config.dtype = DType::kFloat64;
  config.threads = 3;
  config.tokenizer = "a \"quoted\" path: with\t#signs\\ and \xC3\xA9/tokenizer.model";
  config.model = {};
  config.model.config = "null";
  config.model.vocab_size = 77;
  config.model.tie_embeddings = Tie::kUntied;
  config.model.rope_scaling_factor = 32.0;
  config.data.train = {"a,b", "*.gz", "- x", "[c]"};
  config.data.eval = {"true"};
  config.data.pad_id = 128004;
  config.optimizer.lr = 0.1 + 0.2;
  config.optimizer.eps = 5e-324;
  config.optimizer.weight_decay = 1e22;
  config.optimizer.no_decay = {"*norm*", "tok_embeddings.weight"};
  config.federated.world_size = 4;
  config.federated.optimizer_state = OptimizerState::kKeep;
  config.federated.outer = {0.9, true, 0.7};
  config.training.clip_norm = 1.0;
  config.checkpoint = {7, 1, true};
  config.output.name = "42";
  INFO(to_yaml(config));
  CHECK(parse(to_yaml(config)) == config);
}

TEST_CASE("the key reference names every key with default and help", "[io][config]") {
  const std::string reference = key_reference();
  CHECK(reference.find("optimizer.lr: 1.0e-05\n    Learning rate.\n    Takes a number greater than 0.\n") !=
        std::string::npos);
  CHECK(reference.find("model.tie_embeddings: auto\n") != std::string::npos);
  CHECK(reference.find("Takes one of llama3.2-1b, llama3.2-3b,") != std::string::npos);
  CHECK(reference.find("federated.outer.momentum: 0.0\n") != std::string::npos);
  CHECK(reference.find("training.clip_norm: null\n") != std::string::npos);
}
