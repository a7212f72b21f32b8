// HDF5 files held in memory: opened from all their bytes at once, and given back as bytes. Writing to disk is
// the caller's (core/atomic_file.h), so that a file on disk is always a whole one and nobody meets a lock of
// a running writer. Serial use by one process and one thread: the library is the parallel build, no MPI call
// is made here. HDF5's own error printing is off; its message is in the IoError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan {

/// Version of the library in use: "1.10.8".
std::string hdf5_version();

/// One HDF5 object; closed with it.
class Hdf5Handle {
 public:
  using Close = int (*)(std::int64_t);
  Hdf5Handle() = default;
  Hdf5Handle(std::int64_t id, Close close) : id_(id), close_(close) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle() { reset(); }
  std::int64_t id() const { return id_; }
  /// Closes now; false when HDF5 could not.
  bool reset();

 private:
  std::int64_t id_ = -1;
  Close close_ = nullptr;
};

/// Every function throws IoError with the file's name, the object's and HDF5's reason. Paths inside the file
/// are absolute ("/steps/loss"); attributes are those of the root group.
class Hdf5File {
 public:
  /// An empty file; `name` stands for it in messages.
  static Hdf5File create(const std::string& name);
  /// Reads all of `path`; the file on disk is not kept open. Refuses files larger than 1 GiB, and damaged
  /// ones that bytes() made. A file from another program is read as the HDF5 library reads it: do not open
  /// files from sources you do not trust.
  static Hdf5File open(const std::string& path);

  /// The whole file as it would be on disk, with a hash behind its end by which open() sees damage.
  std::string bytes() const;

  void create_group(const std::string& path);
  /// New extendible 1-D dataset, int64 or float64, with all of `values`.
  void write(const std::string& path, std::span<const std::int64_t> values);
  void write(const std::string& path, std::span<const double> values);
  /// The same of UTF-8 text of variable length, each cut at the first zero byte.
  void write(const std::string& path, std::span<const std::string> values);
  void set_attribute(const std::string& name, std::int64_t value);
  void set_attribute(const std::string& name, double value);
  /// Stored as h5py stores a bool: an enumeration FALSE, TRUE of int8.
  void set_attribute(const std::string& name, bool value);
  /// UTF-8 text of variable length, cut at the first zero byte.
  void set_attribute(const std::string& name, std::string_view value);
  void set_attribute(const std::string& name, const char* value) {
    set_attribute(name, std::string_view(value));
  }

  /// A whole 1-D dataset of integers (of floating-point numbers). Refused: other ranks and kinds of numbers,
  /// more than 2^26 rows, values outside the file (external, virtual), links out of the file.
  std::vector<std::int64_t> read_int64(const std::string& path) const;
  std::vector<double> read_float64(const std::string& path) const;
  /// A whole 1-D dataset of text of variable length, with the same refusals.
  std::vector<std::string> read_text(const std::string& path) const;
  std::int64_t int64_attribute(const std::string& name) const;
  double float64_attribute(const std::string& name) const;
  bool bool_attribute(const std::string& name) const;
  std::string text_attribute(const std::string& name) const;

 private:
  explicit Hdf5File(std::string name) : name_(std::move(name)) {}
  void write_values(const std::string& path, std::int64_t type, const void* values, std::size_t count);
  void write_attribute(const std::string& name, std::int64_t type, const void* value);
  Hdf5Handle open_attribute(const std::string& name) const;
  void read_number_attribute(const std::string& name, int type_class, std::int64_t memory_type,
                             void* value) const;
  void refuse_links(const std::string& path) const;
  Hdf5Handle open_dataset(const std::string& path, int type_class, std::size_t* count) const;
  [[noreturn]] void fail_with_hdf5(std::string_view doing, std::string_view object) const;
  std::int64_t require(std::int64_t id, std::string_view doing, std::string_view object) const;

  std::string name_;
  Hdf5Handle file_;
};

}  // namespace caravan
