#include "caravan/io/safetensors.h"

#include "fuzz/entries/stored_tensors.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {

void safetensors(Bytes input) {
  std::vector<StoredTensor> tensors;
  if (accepted([&] { tensors = read_safetensors(file_of(input)); })) {
    read_all(tensors);
  }
}

}  // namespace caravan::fuzz
