#include "caravan/core/checksum.h"
#include "caravan/io/checkpoint_manifest.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {
namespace {

/// The text with its own checksum made right: no mutation would find one, and who means harm writes one.
std::string sealed(std::string_view text) {
  constexpr std::string_view kHead = "{\"checksum\": \"";
  constexpr std::size_t kFirstLine = kHead.size() + 16 + 3;  // and: ",\n
  const std::string_view rest =
      text.starts_with(kHead) && text.size() >= kFirstLine ? text.substr(kFirstLine) : text;
  return std::string(kHead) + checksum_text(checksum_of(rest)) + "\",\n" + std::string(rest);
}

}  // namespace

/// manifest.json of a training checkpoint.
void manifest(Bytes input) {
  const std::string text(text_of(input));
  const bool is_whole = accepted([&] { parse_manifest(text, "manifest.json"); });
  CheckpointManifest found;
  const bool is_read = accepted([&] { found = parse_manifest(sealed(text), "manifest.json"); });
  require(is_read || !is_whole, "a manifest that is accepted has its own checksum");
  if (is_read) {
    require(parse_manifest(manifest_text(found), "written.json") == found,
            "a manifest survives writing and reading");
    require(parse_tables(tables_text(found.tables), "sent") == found.tables,
            "its tables survive sending and reading");
  }
}

}  // namespace caravan::fuzz
