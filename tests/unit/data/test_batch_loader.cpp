#include "caravan/data/batch_loader.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <vector>

#include "caravan/core/clock.h"
#include "support/data_files.h"
#include "support/tokenizer_files.h"

using namespace caravan;
using caravan::test::ByteEncoder;
using caravan::test::gzip;
using caravan::test::message_of;
using caravan::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Ids = std::vector<std::int32_t>;

namespace {

// Sample i: ids i+1, i+1, ... of a length that varies from 1 to 12.
std::string varied_lines(int count) {
  std::string content;
  for (int i = 0; i < count; ++i) {
    content += "{\"ids\": [" + std::to_string(i + 1);
    for (int extra = 0; extra < (i * 7) % 12; ++extra) {
      content += ", " + std::to_string(i + 1);
    }
    content += "]}\n";
  }
  return content;
}

bool same(const Batch& a, const Batch& b) {
  return a.batch == b.batch && a.seq_len == b.seq_len && a.ids == b.ids && a.targets == b.targets &&
         a.target_weights == b.target_weights && a.index == b.index && a.document_start == b.document_start &&
         a.valid_tokens == b.valid_tokens;
}

std::vector<Batch> rest_of_epoch(BatchLoader& loader) {
  std::vector<Batch> batches;
  Batch batch;
  while (loader.next(batch)) {
    batches.push_back(batch);
  }
  return batches;
}

std::vector<Batch> epoch_of(BatchLoader& loader, std::int64_t epoch) {
  loader.start_epoch(epoch);
  return rest_of_epoch(loader);
}

// The first id of each row, 0 for rows without targets.
Ids first_ids(const std::vector<Batch>& batches) {
  Ids ids;
  for (const Batch& batch : batches) {
    for (std::int64_t row = 0; row < batch.batch; ++row) {
      ids.push_back(batch.ids[static_cast<std::size_t>(row * batch.seq_len)]);
    }
  }
  return ids;
}

bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Batch& x, const Batch& y) { return same(x, y); });
}

SamplePart whole(const Dataset& dataset) {
  return {0, dataset.size(), 0};
}

}  // namespace

TEST_CASE("rows are truncated to max_seq_len and shifted by one", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.txt", "abc\nabcdefgh\n\nx\n")});
  const ByteEncoder encoder;
  BatchLoader loader(dataset, &encoder, whole(dataset), {.batch_size = 2, .max_seq_len = 6});
  const auto batches = epoch_of(loader, 0);
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].seq_len == 5);
  CHECK(batches[0].ids == Ids{1, 107, 108, 109, 0, 1, 107, 108, 109, 110});
  CHECK(batches[0].targets == Ids{107, 108, 109, 2, 0, 107, 108, 109, 110, 111});
  CHECK(batches[0].valid_tokens == 9);
  CHECK(batches[1].batch == 1);
  CHECK(batches[1].ids == Ids{1, 130});
  CHECK(loader.counts().samples == 3);
  CHECK(loader.counts().truncated == 1);
  CHECK(loader.counts().without_target == 0);
  CHECK(loader.counts().valid_tokens == 11);
}

TEST_CASE("samples with fewer than two tokens stay rows without valid targets", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", "{\"ids\": []}\n{\"ids\": [5]}\n{\"ids\": [6, 7]}\n")});
  BatchLoader loader(dataset, nullptr, whole(dataset), {.batch_size = 2});
  const auto batches = epoch_of(loader, 0);
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].batch == 2);
  CHECK(batches[0].valid_tokens == 0);
  CHECK(batches[1].valid_tokens == 1);
  CHECK(loader.counts().without_target == 2);
}

TEST_CASE("shuffled epochs are permutations of the part that repeat exactly", "[data][loader]") {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 403; ++i) {
    content += "{\"ids\": [" + std::to_string(i) + ", 9]}\n";
  }
  const Dataset plain({folder.write("a.jsonl", content)});
  const Dataset compressed({folder.write("a.jsonl.gz", gzip(content))});
  const SamplePart part = part_of(2, 4, plain.size());
  for (const std::int64_t buffer : {1, 16, 100, 8192}) {
    const LoaderOptions options{.batch_size = 7, .shuffle = true, .shuffle_buffer = buffer, .seed = 42};
    BatchLoader loader(plain, nullptr, part, options);
    BatchLoader other(compressed, nullptr, part, options);
    CHECK(loader.batches_per_epoch() == 15);
    const auto first = epoch_of(loader, 0);
    const auto second = epoch_of(loader, 1);
    CHECK(first.size() == 15);
    CHECK(first.back().batch == 2);
    CHECK(same(first, epoch_of(loader, 0)));
    CHECK(same(second, epoch_of(other, 1)));
    CHECK((buffer == 1 || !same(first, second)));
    Ids ids = first_ids(first);
    std::sort(ids.begin(), ids.end());
    REQUIRE(ids.size() == 100);
    CHECK(ids.front() == 200);
    CHECK(ids.back() == 299);
    CHECK(std::set<std::int32_t>(ids.begin(), ids.end()).size() == 100);
  }
}

TEST_CASE("every batch is reached by seeking to it", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", varied_lines(150))}, {.index_stride = 8});
  for (const bool shuffle : {false, true}) {
    for (const bool pack : {false, true}) {
      const LoaderOptions options{.batch_size = 4,
                                  .max_seq_len = 12,
                                  .shuffle = shuffle,
                                  .shuffle_buffer = 20,
                                  .seed = 3,
                                  .pack = pack};
      BatchLoader loader(dataset, nullptr, {10, 143, 1}, options);
      const auto all = epoch_of(loader, 5);
      for (std::size_t from = 0; from <= all.size(); from += 3) {
        loader.seek(5, static_cast<std::int64_t>(from));
        CAPTURE(shuffle, pack, from);
        CHECK(same(rest_of_epoch(loader), {all.begin() + static_cast<std::ptrdiff_t>(from), all.end()}));
      }
      loader.seek(5, 1000000);
      CHECK(rest_of_epoch(loader).empty());
    }
  }
}

TEST_CASE("steps go on from epoch to epoch and can be entered anywhere", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", varied_lines(21))});
  for (const bool pack : {false, true}) {
    const LoaderOptions options{.batch_size = 4, .max_seq_len = 16, .shuffle = true, .seed = 9, .pack = pack};
    BatchLoader loader(dataset, nullptr, whole(dataset), options);
    std::vector<Batch> wanted;
    for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
      const auto batches = epoch_of(loader, epoch);
      wanted.insert(wanted.end(), batches.begin(), batches.end());
    }
    for (std::size_t from = 0; from < wanted.size(); from += 2) {
      loader.seek_step(static_cast<std::int64_t>(from));
      std::vector<Batch> steps(wanted.size() - from);
      for (Batch& batch : steps) {
        loader.next_step(batch);
      }
      CAPTURE(pack, from);
      CHECK(same(steps, {wanted.begin() + static_cast<std::ptrdiff_t>(from), wanted.end()}));
    }
  }
}

TEST_CASE("another loader goes on with the next batch from the position of the first", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", varied_lines(21))});
  for (const bool pack : {false, true}) {
    const LoaderOptions options{.batch_size = 4, .max_seq_len = 16, .shuffle = true, .seed = 9, .pack = pack};
    BatchLoader whole_run(dataset, nullptr, whole(dataset), options);
    BatchLoader later(dataset, nullptr, whole(dataset), options);
    whole_run.seek(0, 0);
    CHECK(whole_run.position() == BatchLoader::Position{0, 0});
    Batch passed;
    for (int step = 0; step < 20; ++step) {  // several epochs
      whole_run.next_step(passed);
      const BatchLoader::Position at = whole_run.position();
      CAPTURE(pack, step, at.epoch, at.batch);
      later.seek(at.epoch, at.batch);
      CHECK(later.position() == at);
      Batch next;
      later.next_step(next);
      BatchLoader expected(dataset, nullptr, whole(dataset), options);
      expected.seek_step(step + 1);
      Batch wanted;
      expected.next_step(wanted);
      CHECK(same(next, wanted));
    }
    CHECK(whole_run.position().epoch > 1);
  }
}

TEST_CASE("packed batches hold every pair of the part once", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", varied_lines(200))});
  const LoaderOptions options{.batch_size = 3, .max_seq_len = 16, .shuffle = true, .seed = 1};
  BatchLoader plain(dataset, nullptr, whole(dataset), options);
  LoaderOptions packing = options;
  packing.pack = true;
  BatchLoader packed(dataset, nullptr, whole(dataset), packing);
  CHECK_FALSE(packed.batches_per_epoch());
  const auto pairs = [](const std::vector<Batch>& batches) {
    Ids ids;
    for (const Batch& batch : batches) {
      for (std::size_t place = 0; place < batch.ids.size(); ++place) {
        if (batch.target_weights[place] > 0) {
          CHECK(batch.ids[place] == batch.targets[place]);  // varied_lines: a document repeats one id
          ids.push_back(batch.ids[place]);
        }
      }
    }
    return ids;
  };
  const auto batches = epoch_of(packed, 0);
  CHECK(pairs(batches) == pairs(epoch_of(plain, 0)));
  CHECK(static_cast<std::int64_t>(batches.size()) < packed.max_batches_per_epoch());
  CHECK(packed.counts().samples == 200);
  CHECK(packed.counts().valid_tokens == plain.counts().valid_tokens);
}

TEST_CASE("packing samples without targets gives no batch, and a step says so", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.jsonl", "{\"ids\": [1]}\n{\"ids\": []}\n")});
  BatchLoader loader(dataset, nullptr, whole(dataset), {.pack = true});
  CHECK(epoch_of(loader, 0).empty());
  Batch batch;
  loader.seek_step(0);
  CHECK_THAT(message_of<IoError>([&] { loader.next_step(batch); }), Contains("nothing to train on"));
}

TEST_CASE("what goes wrong in the thread arrives in next, after the batches before it", "[data][loader]") {
  class FailingEncoder : public ByteEncoder {
   public:
    std::vector<std::int32_t> encode_document(std::string_view text) const override {
      if (text == "bad") {
        fail<IoError>("cannot encode `{}`", text);
      }
      return ByteEncoder::encode_document(text);
    }
  };
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("a.txt", "one\ntwo\nbad\nfour\n")});
  const FailingEncoder encoder;
  BatchLoader loader(dataset, &encoder, whole(dataset), {});
  loader.start_epoch(0);
  Batch batch;
  CHECK(loader.next(batch));
  CHECK(loader.next(batch));
  CHECK_THROWS_AS(loader.next(batch), IoError);
  CHECK_THROWS_AS(loader.next(batch), IoError);
  loader.seek(0, 3);
  CHECK(loader.next(batch));
  CHECK_FALSE(loader.next(batch));
  CHECK_FALSE(loader.next(batch));
}

TEST_CASE("a loader works ahead no further than it may and can be left at any time", "[data][loader]") {
  class CountingEncoder : public ByteEncoder {
   public:
    std::vector<std::int32_t> encode_document(std::string_view text) const override {
      ++calls;
      return ByteEncoder::encode_document(text);
    }
    mutable std::atomic<int> calls = 0;
  };
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 1000; ++i) {
    content += "line\n";
  }
  const Dataset dataset({folder.write("a.txt", content)});
  const CountingEncoder encoder;
  {
    BatchLoader loader(dataset, &encoder, whole(dataset),
                       {.batch_size = 5, .shuffle = true, .prefetch_batches = 3});
    Batch batch;
    for (std::int64_t epoch = 0; epoch < 50; ++epoch) {
      loader.start_epoch(epoch);
      REQUIRE(loader.next(batch));
    }
  }
  // One taken, three in the queue, one waiting to be put there.
  CHECK(encoder.calls >= 50 * 5);
  CHECK(encoder.calls <= 50 * 5 * 5);
}

TEST_CASE("the next epoch is begun when the last batch of this one is made, and is the same epoch",
          "[data][loader]") {
  class CountingEncoder : public ByteEncoder {
   public:
    std::vector<std::int32_t> encode_document(std::string_view text) const override {
      ++calls;
      return ByteEncoder::encode_document(text);
    }
    mutable std::atomic<int> calls = 0;
  };
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 23; ++i) {
    content += "line " + std::to_string(i) + "\n";
  }
  const Dataset dataset({folder.write("a.txt", content)});
  const CountingEncoder encoder;
  for (const bool shuffle : {false, true}) {
    const LoaderOptions options{.batch_size = 5, .shuffle = shuffle, .seed = 3, .prefetch_batches = 2};
    BatchLoader loader(dataset, &encoder, whole(dataset), options);
    for (const std::int64_t epoch : {0, 1, 2, 4, 0}) {  // some that were expected, some that were not
      loader.start_epoch(epoch);
      const auto batches = rest_of_epoch(loader);
      BatchLoader fresh(dataset, &encoder, whole(dataset), options);
      CHECK(same(batches, epoch_of(fresh, epoch)));
      CHECK(loader.counts().samples == 23);
    }
    const int before = encoder.calls;
    BatchLoader ahead(dataset, &encoder, whole(dataset), options);
    CHECK(epoch_of(ahead, 7).size() == 5);
    const StopWatch waiting;
    while (encoder.calls < before + 23 + 5 && waiting.seconds() < 30.0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(encoder.calls >= before + 23 + 5);  // a batch of an epoch that nobody has asked for yet
    CHECK(ahead.wait_seconds() > 0.0);
  }
}

TEST_CASE("text without a tokenizer and impossible options are refused", "[data][loader]") {
  const TemporaryFolder folder;
  const Dataset text({folder.write("a.jsonl", "{\"ids\": [1, 2]}\n{\"text\": \"a\"}\n")},
                     {.vocab_size = 100});
  const ByteEncoder encoder;
  const auto problem = [&](const TextEncoder* with, const SamplePart& part, const LoaderOptions& options) {
    return message_of<ConfigError>([&] { BatchLoader(text, with, part, options); });
  };
  CHECK_THAT(problem(nullptr, {0, 2, 0}, {}), Contains("a.jsonl:2") && Contains("tokenizer"));
  CHECK_THAT(problem(&encoder, {1, 1, 3}, {}), Contains("rank 3"));
  CHECK_THAT(problem(&encoder, {0, 2, 0}, {.batch_size = 0}), Contains("batch_size"));
  CHECK_THAT(problem(&encoder, {0, 2, 0}, {.max_seq_len = 1}), Contains("max_seq_len"));
  CHECK_THAT(problem(&encoder, {0, 2, 0}, {.shuffle = true, .shuffle_buffer = 0}),
             Contains("shuffle_buffer"));
  CHECK_THAT(problem(&encoder, {0, 2, 0}, {.pad_id = 100}), Contains("pad_id"));
  BatchLoader loader(text, &encoder, {0, 2, 0}, {});
  Batch batch;
  loader.start_epoch(0);
  CHECK(loader.next(batch));
  CHECK_THAT(message_of<ConfigError>([&] { loader.next(batch); }),
             Contains("id 107") && Contains("100 tokens"));
}

TEST_CASE("a long document is encoded no further than it is used", "[data][loader]") {
  class BeginningEncoder : public ByteEncoder {
   public:
    std::vector<std::int32_t> encode_beginning(std::string_view text, std::size_t enough) const override {
      auto ids = encode_document(text);
      ids.resize(std::min(ids.size(), enough));
      return ids;
    }
  };
  const TemporaryFolder folder;
  std::string content;
  for (const std::size_t length : std::vector<std::size_t>{1, 3, 4, 5, 6, 7, 100, 10000}) {
    content += std::string(length, static_cast<char>('a' + length % 26)) + "\n";
  }
  const Dataset dataset({folder.write("a.txt", content)});
  const ByteEncoder whole_encoder;
  const BeginningEncoder beginning_encoder;
  for (const bool shuffle : {false, true}) {
    const LoaderOptions options{.batch_size = 3, .max_seq_len = 7, .shuffle = shuffle};
    BatchLoader all(dataset, &whole_encoder, whole(dataset), options);
    BatchLoader beginnings(dataset, &beginning_encoder, whole(dataset), options);
    CHECK(same(epoch_of(all, 0), epoch_of(beginnings, 0)));
    CHECK(all.counts().truncated == 4);
    CHECK(beginnings.counts().truncated == 4);
  }
}

TEST_CASE("long samples shorten the shuffle buffer, short ones do not", "[data][loader]") {
  const TemporaryFolder folder;
  const std::string line(100000, 'x');
  std::string content;
  for (int i = 0; i < 1500; ++i) {
    content += line + "\n";
  }
  const Dataset dataset({folder.write("a.txt", content)});
  CHECK(shuffle_slots(dataset, 512, 8192) == 8192);
  CHECK(shuffle_slots(dataset, 100000, 8192) == kShuffleBudgetBytes / (200000 + 128));
  CHECK(shuffle_slots(dataset, 100000, 10) == 10);
  const Dataset few({folder.write("b.txt", line + "\n" + line + "\n")});
  CHECK(shuffle_slots(few, 1000000, 8192) == 8192);
}

TEST_CASE("the golden rows come out as the reference cuts them", "[data][loader]") {
  const std::string path = caravan::test::shared_file_or_skip("goldens/tiny-llama3/tokens.json");
  if (path.empty()) {
    return;
  }
  const auto golden = nlohmann::json::parse(std::ifstream(path));
  const auto pad_id = golden["pad_id"].get<std::int32_t>();
  std::vector<Ids> rows;
  std::string content;
  for (const auto& padded : golden["train"]) {
    Ids ids = padded.get<Ids>();
    while (!ids.empty() && ids.back() == pad_id) {
      ids.pop_back();
    }
    rows.push_back(ids);
    content += nlohmann::json{{"ids", ids}}.dump() + "\n";
  }
  const TemporaryFolder folder;
  const Dataset dataset({folder.write("train.jsonl", content)}, {.vocab_size = 384});
  const SamplePart part = part_of(1, 4, dataset.size());
  BatchLoader loader(dataset, nullptr, part, {.batch_size = 4, .max_seq_len = 48, .pad_id = pad_id});
  auto row = static_cast<std::size_t>(part.begin);
  for (const Batch& batch : epoch_of(loader, 0)) {
    REQUIRE(batch.batch == 4);
    for (std::size_t r = 0; r < 4; ++r, ++row) {
      for (std::size_t place = 0; place < static_cast<std::size_t>(batch.seq_len); ++place) {
        const std::size_t at = r * static_cast<std::size_t>(batch.seq_len) + place;
        const bool is_real = place + 1 < rows[row].size();
        REQUIRE(batch.target_weights[at] == (is_real ? 1.0F : 0.0F));
        REQUIRE(batch.ids[at] == (is_real ? rows[row][place] : pad_id));
        REQUIRE(batch.targets[at] == (is_real ? rows[row][place + 1] : pad_id));
      }
    }
  }
  CHECK(static_cast<std::int64_t>(row) == part.end);
}
