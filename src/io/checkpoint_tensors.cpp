#include "checkpoint_tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <unordered_map>

#include "caravan/core/error.h"
#include "caravan/io/torch_file.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

using Problems = std::vector<std::string>;

void throw_all(const std::string& what, const Problems& problems) {
  if (!problems.empty()) {
    fail<IoError>("{}:\n  {}", what, fmt::join(problems, "\n  "));
  }
}

/// Null, and a problem, for a tensor of more dims than a Shape has.
std::optional<Shape> shape_of(const StoredTensor& tensor, Problems& problems) {
  if (tensor.shape.size() > static_cast<std::size_t>(Shape::kMaxRank)) {
    problems.push_back(fmt::format("{}: tensor '{}' has {} dims; at most {} are supported",
                                   tensor.file->path(), tensor.name, tensor.shape.size(), Shape::kMaxRank));
    return std::nullopt;
  }
  return tensor.checked_shape();
}

void check_numbering(const std::vector<std::string>& paths) {
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const std::string wanted = fmt::format("consolidated.{:02}.pth", i);
    if (fs::path(paths[i]).filename() != wanted) {
      fail<IoError>("{}: {} is where {} was expected; the files must be numbered from 00 without gaps",
                    paths[i], fs::path(paths[i]).filename().string(), wanted);
    }
  }
}

/// `first` with `other` added along `dim`; null when they differ elsewhere, or the sum is no possible size
/// (strides of 0 let a small file claim any).
std::optional<Shape> joined(const Shape& first, const Shape& other, std::optional<int> dim) {
  if (first.rank() != other.rank()) {
    return std::nullopt;
  }
  Shape sum = first;
  std::int64_t left = std::numeric_limits<std::int64_t>::max() / 8;
  for (int i = 0; i < first.rank(); ++i) {
    std::int64_t size = first[i];
    if (dim == i && __builtin_add_overflow(size, other[i], &size)) {
      return std::nullopt;
    }
    if (dim != i && other[i] != size) {
      return std::nullopt;
    }
    left /= std::max<std::int64_t>(size, 1);
    sum.set(i, size);
  }
  return left > 0 ? std::optional(sum) : std::nullopt;
}

/// Sum of the sizes along the split dim; every other dim and the dtype must agree. Each part that does not
/// fit what is before it is a problem; null then.
std::optional<MergedTensor> merge_parts(std::vector<StoredTensor> parts, Problems& problems) {
  const std::size_t before = problems.size();
  MergedTensor merged;
  const StoredTensor& first = parts.front();
  const std::optional<int> dim = file_split_dim(first.name);
  const std::optional<Shape> whole = shape_of(first, problems);
  if (!whole) {
    return std::nullopt;
  }
  merged.info = {first.name, *whole, first.dtype};
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::optional<Shape> shape = shape_of(parts[i], problems);
    if (!shape) {
      continue;
    }
    const std::optional<Shape> sum = joined(merged.info.shape, *shape, dim);
    if (!sum || parts[i].dtype != first.dtype) {
      problems.push_back(fmt::format("{}: tensor '{}' is {} {}, which does not fit {} {} of {}",
                                     parts[i].file->path(), first.name, dtype_name(parts[i].dtype),
                                     shape->str(), dtype_name(first.dtype), whole->str(),
                                     fs::path(first.file->path()).filename().string()));
    } else {
      merged.info.shape = *sum;
    }
  }
  if (problems.size() != before) {
    return std::nullopt;
  }
  if (!dim) {
    parts.resize(1);  // every file has the whole
  }
  merged.split_dim = dim.value_or(0);
  merged.parts = std::move(parts);
  return merged;
}

/// The names of the files a tensor is missing from.
std::string files_without(const std::vector<StoredTensor>& parts, const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  for (const std::string& path : paths) {
    if (std::none_of(parts.begin(), parts.end(),
                     [&](const auto& part) { return part.file->path() == path; })) {
      names.push_back(fs::path(path).filename().string());
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

std::vector<MergedTensor> merge_meta_files(const std::vector<std::string>& paths, const ModelConfig& config) {
  check_numbering(paths);
  const auto count = static_cast<std::int64_t>(paths.size());
  if (config.n_kv_heads % count != 0) {
    fail<IoError>(
        "{} files consolidated.NN.pth cannot hold {} kv heads; the number of heads must be a multiple", count,
        config.n_kv_heads);
  }
  std::vector<std::string> order;
  std::unordered_map<std::string, std::vector<StoredTensor>> parts;
  for (const std::string& path : paths) {
    for (StoredTensor& tensor : read_torch_file(path)) {
      if (is_ignored_tensor(tensor.name)) {
        continue;
      }
      std::vector<StoredTensor>& list = parts[tensor.name];
      if (list.empty()) {
        order.push_back(tensor.name);
      }
      list.push_back(std::move(tensor));
    }
  }
  std::vector<MergedTensor> merged;
  Problems problems;
  for (const std::string& name : order) {
    std::vector<StoredTensor>& list = parts[name];
    if (list.size() != paths.size()) {
      problems.push_back(fmt::format("tensor '{}' is in {} of {} files, not in {}", name, list.size(),
                                     paths.size(), files_without(list, paths)));
    } else if (auto tensor = merge_parts(std::move(list), problems)) {
      merged.push_back(std::move(*tensor));
    }
  }
  throw_all(fmt::format("{}: the files consolidated.NN.pth do not belong together, {} problems",
                        fs::path(paths.front()).parent_path().string(), problems.size()),
            problems);
  return merged;
}

std::vector<MergedTensor> rename_hf_tensors(std::vector<StoredTensor> stored, const ModelConfig& config,
                                            const std::string& folder) {
  std::vector<MergedTensor> renamed;
  Problems problems;
  for (StoredTensor& tensor : stored) {
    if (is_ignored_tensor(tensor.name)) {
      continue;
    }
    if (hf_name_of(tensor.name)) {
      problems.push_back(fmt::format("{}: tensor '{}' has Meta's name; here it would be '{}'",
                                     tensor.file->path(), tensor.name, *hf_name_of(tensor.name)));
      continue;
    }
    const std::optional<Shape> shape = shape_of(tensor, problems);
    if (!shape) {
      continue;
    }
    MergedTensor merged;
    merged.info = {meta_name_of(tensor.name).value_or(tensor.name), *shape, tensor.dtype};
    const std::int64_t heads = permuted_heads(merged.info.name, config);
    if (heads > 0 && shape->rank() == 2 && (*shape)[0] == heads * config.head_dim) {
      merged.hf_head_dim = config.head_dim;
    }
    merged.parts.push_back(std::move(tensor));
    renamed.push_back(std::move(merged));
  }
  throw_all(fmt::format("{}: not the tensors of a Hugging Face folder, {} problems; save it again with "
                        "transformers, or use Meta's files",
                        folder, problems.size()),
            problems);
  return renamed;
}

}  // namespace caravan
