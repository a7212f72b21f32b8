#include "caravan/io/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"
#include "caravan/core/text_file.h"

namespace caravan {
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>, "Hdf5Handle keeps HDF5's handles as int64");
static_assert(std::is_same_v<herr_t, int>, "Hdf5Handle::Close is HDF5's type of closing functions");

constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 30U;
constexpr hsize_t kMaxRows = hsize_t{1} << 26U;
constexpr std::size_t kMaxFixedTextBytes = std::size_t{1} << 24U;
// HDF5 wants a name even for a file in memory, and refuses one that is on disk.
constexpr const char* kMemoryName = "/dev/null/in memory";
constexpr std::size_t kMemoryIncrementBytes = std::size_t{1} << 16U;
constexpr hsize_t kChunkRows = 512;  // 4 KiB: a short run's file stays small

// Behind the end of the HDF5 file stand this word and the FNV-1a hash of everything before it. HDF5 ignores
// them when reading and cuts them off when another program changes the file.
constexpr std::string_view kSealWord = "CRVNSEAL";
constexpr std::size_t kSealBytes = kSealWord.size() + sizeof(std::uint64_t);

std::string seal_of(std::string_view content) {
  const std::uint64_t hash = stream_id(content);
  std::string seal(kSealWord);
  for (unsigned shift = 0; shift < 64; shift += 8) {
    seal += static_cast<char>((hash >> shift) & 0xFFU);
  }
  return seal;
}

// HDF5 1.10.8 trusts what it reads: one to four damaged bytes in a small results file ended the process
// inside H5HG_read within a few hundred trials. So no damaged byte of our own files may reach it.
void check_seal(const std::string& path, std::string_view bytes) {
  if (bytes.size() < kSealBytes) {
    return;
  }
  const std::string_view content = bytes.substr(0, bytes.size() - kSealBytes);
  const std::string_view seal = bytes.substr(content.size());
  if (seal.starts_with(kSealWord) && seal != seal_of(content)) {
    fail<IoError>("{}: is damaged: its content does not have the hash that was written with it", path);
  }
}

void silence_hdf5() {
  static const bool done = [] { return H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0; }();
  static_cast<void>(done);
}

// The innermost entry says what happened; the outer ones only which call it happened in.
std::string hdf5_reason() {
  std::string reason;
  const auto keep_first = [](unsigned, const H5E_error2_t* entry, void* data) -> herr_t {
    auto& text = *static_cast<std::string*>(data);
    if (text.empty() && entry->desc != nullptr) {
      text = entry->desc;
    }
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  H5Eclear2(H5E_DEFAULT);
  return reason.empty() ? "no reason given" : reason;
}

Hdf5Handle bool_type() {
  Hdf5Handle type(H5Tenum_create(H5T_STD_I8LE), H5Tclose);
  const std::int8_t no = 0;
  const std::int8_t yes = 1;
  H5Tenum_insert(type.id(), "FALSE", &no);
  H5Tenum_insert(type.id(), "TRUE", &yes);
  return type;
}

Hdf5Handle text_type() {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id(), H5T_VARIABLE);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

}  // namespace

std::string hdf5_version() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

// ---- handles

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept
    : id_(std::exchange(other.id_, -1)), close_(std::exchange(other.close_, nullptr)) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = std::exchange(other.close_, nullptr);
  }
  return *this;
}

bool Hdf5Handle::reset() {
  const std::int64_t id = std::exchange(id_, -1);
  return id < 0 || close_ == nullptr || close_(id) >= 0;
}

// ---- files

void Hdf5File::fail_with_hdf5(std::string_view doing, std::string_view object) const {
  fail<IoError>("{}: cannot {} {}: {}", name_, doing, object, hdf5_reason());
}

std::int64_t Hdf5File::require(std::int64_t id, std::string_view doing, std::string_view object) const {
  if (id < 0) {
    fail_with_hdf5(doing, object);
  }
  return id;
}

Hdf5File Hdf5File::create(const std::string& name) {
  silence_hdf5();
  Hdf5File result(name);
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fapl_core(access.id(), kMemoryIncrementBytes, false);
  const hid_t file = H5Fcreate(kMemoryName, H5F_ACC_TRUNC, H5P_DEFAULT, access.id());
  result.file_ = Hdf5Handle(result.require(file, "create", "the file"), H5Fclose);
  return result;
}

Hdf5File Hdf5File::open(const std::string& path) {
  silence_hdf5();
  Hdf5File result(path);
  std::string bytes = read_text_file(path, kMaxFileBytes);  // HDF5 takes it as not const
  if (bytes.empty()) {
    fail<IoError>("{}: is empty, not an HDF5 file", path);
  }
  check_seal(path, bytes);
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fapl_core(access.id(), kMemoryIncrementBytes, false);
  if (H5Pset_file_image(access.id(), bytes.data(), bytes.size()) < 0) {
    result.fail_with_hdf5("open", "the file");
  }
  const hid_t file = H5Fopen(kMemoryName, H5F_ACC_RDONLY, access.id());
  result.file_ = Hdf5Handle(result.require(file, "open", "the file"), H5Fclose);
  return result;
}

std::string Hdf5File::bytes() const {
  require(H5Fflush(file_.id(), H5F_SCOPE_GLOBAL), "finish", "the file");
  const ssize_t size = H5Fget_file_image(file_.id(), nullptr, 0);
  require(size, "copy", "the file");
  std::string image(static_cast<std::size_t>(size), '\0');
  require(H5Fget_file_image(file_.id(), image.data(), image.size()), "copy", "the file");
  return image + seal_of(image);
}

void Hdf5File::create_group(const std::string& path) {
  const hid_t group = H5Gcreate2(file_.id(), path.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const Hdf5Handle closed(require(group, "create", path), H5Gclose);
}

// ---- datasets

void Hdf5File::write_values(const std::string& path, std::int64_t type, const void* values,
                            std::size_t count) {
  const hsize_t rows = count;
  const hsize_t unlimited = H5S_UNLIMITED;
  const hsize_t chunk = kChunkRows;
  const Hdf5Handle space(require(H5Screate_simple(1, &rows, &unlimited), "create", path), H5Sclose);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(creation.id(), 1, &chunk);
  H5Pset_obj_track_times(creation.id(), false);  // the same content is the same bytes
  const hid_t id =
      H5Dcreate2(file_.id(), path.c_str(), type, space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT);
  const Hdf5Handle dataset(require(id, "create", path), H5Dclose);
  if (count > 0) {
    require(H5Dwrite(dataset.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), "write", path);
  }
}

void Hdf5File::write(const std::string& path, std::span<const std::int64_t> values) {
  write_values(path, H5T_STD_I64LE, values.data(), values.size());
}

void Hdf5File::write(const std::string& path, std::span<const double> values) {
  write_values(path, H5T_IEEE_F64LE, values.data(), values.size());
}

void Hdf5File::write(const std::string& path, std::span<const std::string> values) {
  std::vector<const char*> texts;
  for (const std::string& value : values) {
    texts.push_back(value.c_str());
  }
  write_values(path, text_type().id(), texts.data(), texts.size());
}

// A soft or external link could lead to another file: every step of the path must be a plain one.
void Hdf5File::refuse_links(const std::string& path) const {
  std::size_t end = 0;
  while (end != std::string::npos) {
    end = path.find('/', end + 1);
    const std::string step = path.substr(0, end);
    H5L_info_t link{};
    require(H5Lget_info(file_.id(), step.c_str(), &link, H5P_DEFAULT), "find", step);
    if (link.type != H5L_TYPE_HARD) {
      fail<IoError>("{}: {} is a link to somewhere else; a results file has none", name_, step);
    }
  }
}

Hdf5Handle Hdf5File::open_dataset(const std::string& path, int type_class, std::size_t* count) const {
  refuse_links(path);
  const hid_t id = H5Dopen2(file_.id(), path.c_str(), H5P_DEFAULT);
  Hdf5Handle dataset(require(id, "open", path), H5Dclose);
  const Hdf5Handle creation(require(H5Dget_create_plist(id), "describe", path), H5Pclose);
  if (H5Pget_layout(creation.id()) == H5D_VIRTUAL || H5Pget_external_count(creation.id()) != 0) {
    fail<IoError>("{}: {} keeps its values in another file; a results file does not", name_, path);
  }
  const Hdf5Handle type(require(H5Dget_type(id), "describe", path), H5Tclose);
  if (H5Tget_class(type.id()) != type_class || H5Tget_size(type.id()) > sizeof(double)) {
    fail<IoError>("{}: {} does not hold {} of at most 64 bits", name_, path,
                  type_class == H5T_INTEGER ? "integers"
                  : type_class == H5T_FLOAT ? "floating-point numbers"
                                            : "texts");
  }
  const Hdf5Handle space(require(H5Dget_space(id), "describe", path), H5Sclose);
  if (H5Sget_simple_extent_ndims(space.id()) != 1) {
    fail<IoError>("{}: {} does not have exactly one dimension", name_, path);
  }
  hsize_t rows = 0;
  require(H5Sget_simple_extent_dims(space.id(), &rows, nullptr), "describe", path);
  if (rows > kMaxRows) {
    fail<IoError>("{}: {} claims {} rows; a results file has at most {}", name_, path, rows, kMaxRows);
  }
  *count = static_cast<std::size_t>(rows);
  return dataset;
}

std::vector<std::int64_t> Hdf5File::read_int64(const std::string& path) const {
  std::size_t count = 0;
  const Hdf5Handle dataset = open_dataset(path, H5T_INTEGER, &count);
  std::vector<std::int64_t> values(count);
  if (count > 0) {
    require(H5Dread(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "read",
            path);
  }
  return values;
}

std::vector<double> Hdf5File::read_float64(const std::string& path) const {
  std::size_t count = 0;
  const Hdf5Handle dataset = open_dataset(path, H5T_FLOAT, &count);
  std::vector<double> values(count);
  if (count > 0) {
    require(H5Dread(dataset.id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), "read",
            path);
  }
  return values;
}

std::vector<std::string> Hdf5File::read_text(const std::string& path) const {
  std::size_t count = 0;
  const Hdf5Handle dataset = open_dataset(path, H5T_STRING, &count);
  const Hdf5Handle stored(require(H5Dget_type(dataset.id()), "describe", path), H5Tclose);
  if (H5Tis_variable_str(stored.id()) <= 0) {
    fail<IoError>("{}: {} does not hold text of variable length", name_, path);
  }
  std::vector<char*> texts(count);
  std::vector<std::string> values;
  if (count > 0) {
    const Hdf5Handle space(require(H5Dget_space(dataset.id()), "describe", path), H5Sclose);
    require(H5Dread(dataset.id(), text_type().id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.data()), "read",
            path);
    for (const char* text : texts) {
      values.emplace_back(text == nullptr ? "" : text);
    }
    H5Dvlen_reclaim(text_type().id(), space.id(), H5P_DEFAULT, texts.data());
  }
  return values;
}

// ---- attributes

void Hdf5File::write_attribute(const std::string& name, std::int64_t type, const void* value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const hid_t id = H5Acreate2(file_.id(), name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT);
  const Hdf5Handle attribute(require(id, "create attribute", name), H5Aclose);
  require(H5Awrite(attribute.id(), type, value), "write attribute", name);
}

void Hdf5File::set_attribute(const std::string& name, std::int64_t value) {
  write_attribute(name, H5T_STD_I64LE, &value);
}

void Hdf5File::set_attribute(const std::string& name, double value) {
  write_attribute(name, H5T_IEEE_F64LE, &value);
}

void Hdf5File::set_attribute(const std::string& name, bool value) {
  const std::int8_t stored = value ? 1 : 0;
  write_attribute(name, bool_type().id(), &stored);
}

void Hdf5File::set_attribute(const std::string& name, std::string_view value) {
  const std::string terminated(value);
  const char* text = terminated.c_str();
  write_attribute(name, text_type().id(), &text);
}

Hdf5Handle Hdf5File::open_attribute(const std::string& name) const {
  const hid_t id = H5Aopen(file_.id(), name.c_str(), H5P_DEFAULT);
  Hdf5Handle attribute(require(id, "open attribute", name), H5Aclose);
  const Hdf5Handle space(require(H5Aget_space(id), "describe attribute", name), H5Sclose);
  if (H5Sget_simple_extent_type(space.id()) != H5S_SCALAR) {
    fail<IoError>("{}: attribute {} is not a single value", name_, name);
  }
  return attribute;
}

void Hdf5File::read_number_attribute(const std::string& name, int type_class, std::int64_t memory_type,
                                     void* value) const {
  const Hdf5Handle attribute = open_attribute(name);
  const Hdf5Handle type(require(H5Aget_type(attribute.id()), "describe attribute", name), H5Tclose);
  if (H5Tget_class(type.id()) != type_class || H5Tget_size(type.id()) > sizeof(double)) {
    fail<IoError>("{}: attribute {} is not a number of the right kind", name_, name);
  }
  require(H5Aread(attribute.id(), memory_type, value), "read attribute", name);
}

std::int64_t Hdf5File::int64_attribute(const std::string& name) const {
  std::int64_t value = 0;
  read_number_attribute(name, H5T_INTEGER, H5T_NATIVE_INT64, &value);
  return value;
}

double Hdf5File::float64_attribute(const std::string& name) const {
  double value = 0.0;
  read_number_attribute(name, H5T_FLOAT, H5T_NATIVE_DOUBLE, &value);
  return value;
}

bool Hdf5File::bool_attribute(const std::string& name) const {
  const Hdf5Handle attribute = open_attribute(name);
  const Hdf5Handle stored(require(H5Aget_type(attribute.id()), "describe attribute", name), H5Tclose);
  const Hdf5Handle expected = bool_type();
  if (H5Tequal(stored.id(), expected.id()) <= 0) {
    fail<IoError>("{}: attribute {} is not a truth value", name_, name);
  }
  std::int8_t value = 0;
  require(H5Aread(attribute.id(), expected.id(), &value), "read attribute", name);
  return value != 0;
}

std::string Hdf5File::text_attribute(const std::string& name) const {
  const Hdf5Handle attribute = open_attribute(name);
  const Hdf5Handle stored(require(H5Aget_type(attribute.id()), "describe attribute", name), H5Tclose);
  if (H5Tget_class(stored.id()) != H5T_STRING) {
    fail<IoError>("{}: attribute {} is not text", name_, name);
  }
  if (H5Tis_variable_str(stored.id()) > 0) {
    char* text = nullptr;
    require(H5Aread(attribute.id(), stored.id(), &text), "read attribute", name);
    std::string copy = text == nullptr ? "" : text;
    H5free_memory(text);
    return copy;
  }
  const std::size_t size = H5Tget_size(stored.id());
  if (size > kMaxFixedTextBytes) {
    fail<IoError>("{}: attribute {} claims {} bytes of text; at most {} are read", name_, name, size,
                  kMaxFixedTextBytes);
  }
  std::string text(size, '\0');
  require(H5Aread(attribute.id(), stored.id(), text.data()), "read attribute", name);
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

}  // namespace caravan
