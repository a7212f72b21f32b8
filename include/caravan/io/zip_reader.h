// The directory of a ZIP archive whose members are stored without compression (what torch.save writes). A
// member is then a range of the file, which is read in place: a region of a tensor without the rest, in any
// order, from any thread. General ZIP libraries give no such range, and fail on the zero CRCs of files that
// PyTorch wrote with checksums off. Format: PKWARE APPNOTE 6.3, sections 4.3 and 4.5.3 (ZIP64).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "caravan/io/input_file.h"

namespace caravan {

struct ZipMember {
  std::string name;
  std::int64_t offset = 0;  // of the payload in the file
  std::int64_t size = 0;    // of the payload, in bytes
};

class ZipReader {
 public:
  /// Reads and checks the whole directory: every member is stored, unencrypted, inside the file, and has a
  /// unique relative name without "..". IoError otherwise.
  explicit ZipReader(std::shared_ptr<const InputFile> file);

  const std::shared_ptr<const InputFile>& file() const { return file_; }
  /// In the order of the directory.
  const std::vector<ZipMember>& members() const { return members_; }
  /// Null when there is none of that name.
  const ZipMember* find(const std::string& name) const;

 private:
  std::shared_ptr<const InputFile> file_;
  std::vector<ZipMember> members_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace caravan
