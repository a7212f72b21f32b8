#include <algorithm>
#include <memory>
#include <vector>

#include "caravan/io/zip_reader.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {

void zip(Bytes input) {
  accepted([&] {
    const auto file = std::make_shared<const InputFile>(file_of(input));
    const ZipReader archive(file);
    for (const ZipMember& member : archive.members()) {
      require(member.offset >= 0 && member.size >= 0 && member.size <= file->size() &&
                  member.offset <= file->size() - member.size,
              "every member lies inside the file");
      require(archive.find(member.name) == &member, "a member is found under its name");
      // Its bytes are there; one block is enough, members may overlap.
      std::vector<std::byte> bytes(static_cast<std::size_t>(std::min<std::int64_t>(member.size, 4096)));
      file->read_at(member.offset, bytes);
    }
  });
}

}  // namespace caravan::fuzz
