#include "kernels/cudnn/planned_attention.h"

#include <algorithm>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/core/log.h"

namespace caravan::cudnn {
namespace {

bool are_aligned(std::initializer_list<const TensorView*> views) {
  constexpr std::uintptr_t kBytes = 16;
  return std::all_of(views.begin(), views.end(), [](const TensorView* view) {
    return reinterpret_cast<std::uintptr_t>(view->raw()) % kBytes == 0;
  });
}
bool are_aligned(const AttentionForwardArgs& a) {
  return are_aligned({&a.q, &a.k, &a.v, &a.o, &a.lse});
}
bool are_aligned(const AttentionBackwardArgs& a) {
  return are_aligned({&a.q, &a.k, &a.v, &a.o, &a.lse, &a.d_o, &a.dq, &a.dk, &a.dv});
}

/// Destroys a handle that the constructor has made and cannot use.
class NewHandle {
 public:
  explicit NewHandle(const Table& table) : table_(table) {
    check(table, table.Create(&handle_), "Create", "a handle");
    is_owned_ = true;
  }
  ~NewHandle() {
    if (is_owned_) {
      table_.Destroy(handle_);
    }
  }
  NewHandle(const NewHandle&) = delete;
  NewHandle& operator=(const NewHandle&) = delete;
  NewHandle(NewHandle&&) = delete;
  NewHandle& operator=(NewHandle&&) = delete;

  Handle get() const { return handle_; }
  Handle release() {
    is_owned_ = false;
    return handle_;
  }

 private:
  const Table& table_;
  Handle handle_ = nullptr;
  bool is_owned_ = false;
};

}  // namespace

PlannedAttention::PlannedAttention(cuda::DeviceRuntime& runtime, std::shared_ptr<const Library> library,
                                   const AttentionShape& largest, DType dtype)
    : runtime_(runtime), library_(std::move(library)), dtype_(dtype) {
  CARAVAN_CHECK(takes(largest, MaskKind::kCausal, dtype), "cuDNN does not take {} heads of {} in {}",
                largest.n_heads, largest.head_dim, dtype_name(dtype));
  NewHandle handle(library_->table());
  auto forward = std::make_unique<const ForwardPlan>(library_, handle.get(), largest, dtype);
  auto backward = std::make_unique<const BackwardPlan>(library_, handle.get(), largest, dtype);
  workspace_bytes_ = std::max(forward->workspace_bytes(), backward->workspace_bytes());
  handle_ = handle.release();
  forward_.emplace(key_of(largest), std::move(forward));
  backward_.emplace(key_of(largest), std::move(backward));
}

PlannedAttention::~PlannedAttention() {
  forward_.clear();
  backward_.clear();
  library_->table().Destroy(handle_);
}

PlannedAttention::Key PlannedAttention::key_of(const AttentionShape& shape) {
  return {shape.batch, shape.query_len, shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.scale};
}

void PlannedAttention::allocate_workspace() {
  workspace_ = runtime_.allocate(workspace_bytes_);
}

template <class Plan>
const Plan* PlannedAttention::find(Plans<Plan>& plans, const char* pass, const AttentionShape& shape) {
  const auto [entry, is_new] = plans.try_emplace(key_of(shape));
  if (!is_new) {
    return entry->second.get();
  }
  const auto use_own = [&](const std::string& reason) {
    log::warning("attention {} of {} rows of {} tokens runs on Caravan's own kernels: {}", pass, shape.batch,
                 shape.query_len, reason);
  };
  try {
    auto plan = std::make_unique<const Plan>(library_, handle_, shape, dtype_);
    if (plan->workspace_bytes() > workspace_bytes_) {
      use_own(fmt::format("cuDNN wants {} bytes of scratch memory for it, and {} are planned",
                          plan->workspace_bytes(), workspace_bytes_));
    } else {
      entry->second = std::move(plan);
    }
  } catch (const DeviceError& error) {
    use_own(error.what());
  }
  return entry->second.get();
}

template <class Plan, class Args>
bool PlannedAttention::enqueue(Plans<Plan>& plans, const char* pass, const Args& args,
                               cuda::StreamHandle stream) {
  if (!takes(args.shape, args.mask.kind, args.q.dtype()) || args.q.dtype() != dtype_ || !are_aligned(args)) {
    return false;
  }
  const Plan* const plan = find(plans, pass, args.shape);
  if (plan == nullptr) {
    return false;
  }
  CARAVAN_CHECK(workspace_.bytes() == workspace_bytes_, "cuDNN's workspace was not allocated");
  const auto run = [this, plan, args, stream] {
    if (stream != stream_) {
      check(library_->table(), library_->table().SetStream(handle_, stream), "SetStream", "attention");
      stream_ = stream;
    }
    plan->run(args, workspace_.data());
  };
  runtime_.call_library(run, stream);
  return true;
}

bool PlannedAttention::forward(const AttentionForwardArgs& args, cuda::StreamHandle stream) {
  return enqueue(forward_, "forward", args, stream);
}

bool PlannedAttention::backward(const AttentionBackwardArgs& args, cuda::StreamHandle stream) {
  return enqueue(backward_, "backward", args, stream);
}

}  // namespace caravan::cudnn
