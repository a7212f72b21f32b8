#include "caravan/io/torch_file.h"

#include "fuzz/entries/stored_tensors.h"
#include "fuzz/fuzz_entries.h"

namespace caravan::fuzz {

void torch_file(Bytes input) {
  std::vector<StoredTensor> tensors;
  if (accepted([&] { tensors = read_torch_file(file_of(input)); })) {
    read_all(tensors);
  }
}

}  // namespace caravan::fuzz
