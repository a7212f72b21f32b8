#include "nccl_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string_view>
#include <utility>

#include "caravan/core/error.h"

namespace caravan::detail {
namespace {

/// Operations beyond this many are not watched: nobody looks, or a step has more than any.
constexpr std::size_t kMostUnderWay = 4096;
/// What a rank that threw may take to end by itself.
constexpr double kMostUnwindingSeconds = 5.0;

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string_view hint_of(int result) {
  switch (result) {
    case nccl::kUnhandledCudaError:
      return "a CUDA call failed, perhaps by an earlier kernel's error; NCCL_DEBUG=INFO tells more";
    case nccl::kSystemError:
      return "a socket or shared memory could not be used: look at NCCL_SOCKET_IFNAME, the size of /dev/shm "
             "and NCCL_DEBUG=INFO";
    case nccl::kInvalidArgument:
    case nccl::kInvalidUsage:
      return "ranks that share a GPU need an NCCL_HOSTID each, or comm.backend: mpi; NCCL_DEBUG=INFO tells "
             "more";
    case nccl::kRemoteError:
      return "another rank was lost or ended: look for its message";
    default:
      return "NCCL_DEBUG=INFO tells more";
  }
}

std::string_view file_name(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

nccl::UniqueId NcclGroup::make_id(const NcclLibrary& library) {
  nccl::UniqueId id{};
  if (const int result = library.functions().get_unique_id(&id); result != nccl::kSuccess) {
    fail<CommError>("ncclGetUniqueId failed: {} ({}); {}", library.functions().get_error_string(result),
                    library.path(), hint_of(result));
  }
  return id;
}

NcclGroup::NcclGroup(std::shared_ptr<const NcclLibrary> library, DeviceStreams& device,
                     const nccl::UniqueId& id, int rank, int size)
    : library_(std::move(library)),
      device_(device),
      rank_(rank),
      size_(size),
      exceptions_at_start_(std::uncaught_exceptions()),
      comm_(init(id, rank, size)) {
  begin_watched();
}

nccl::Comm* NcclGroup::init(const nccl::UniqueId& id, int rank, int size) {
  nccl::Comm* comm = nullptr;
  check(library_->functions().comm_init_rank(&comm, size, id, rank), nullptr,
        NcclCall::here("ncclCommInitRank"));
  return comm;
}

NcclGroup::~NcclGroup() {
  end_watched();
  const nccl::Table& functions = library_->functions();
  // A handle whose work cannot end may not be destroyed: that waits for the work.
  const bool aborts = has_failed_ || std::uncaught_exceptions() > exceptions_at_start_;
  try {
    for (const UnderWay& each : under_way_) {
      if (!aborts && each.done != nullptr) {
        each.done->wait();
      }
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): the device's error shows where it is used next
  }
  const auto close = [&](nccl::Comm* comm) {
    aborts ? functions.comm_abort(comm) : functions.comm_destroy(comm);
  };
  for (auto& [key, lane] : lanes_) {
    close(lane.comm);
  }
  close(comm_);
}

void NcclGroup::add_lane(const LaneKey& key, const nccl::UniqueId& id, bool sends) {
  Lane lane{init(id, sends ? 0 : 1, 2), device_.make_stream(StreamId::kPipelineComm), sends ? 1 : 0};
  const std::lock_guard lock(mutex_);
  lanes_.emplace(key, lane);
}

const NcclGroup::Lane* NcclGroup::lane(const LaneKey& key) const {
  const auto found = lanes_.find(key);  // added by this thread alone
  return found != lanes_.end() ? &found->second : nullptr;
}

std::string NcclGroup::fault_text(int result, nccl::Comm* comm, const NcclCall& call) {
  const nccl::Table& functions = library_->functions();
  const char* const words = functions.get_error_string(result);
  const char* const last = functions.get_last_error(comm);
  const std::string_view more = last != nullptr ? last : "";
  return fmt::format("{} failed on rank {} of {} of group {} ({}:{}): {} (NCCL error {}){}{}; {}", call.name,
                     rank_, size_, name_.empty() ? "unnamed" : name_, file_name(call.site.file),
                     call.site.line, words, result, more.empty() ? "" : ": ", more, hint_of(result));
}

void NcclGroup::check(int result, nccl::Comm* comm, const NcclCall& call) {
  if (result != nccl::kSuccess && result != nccl::kInProgress) {
    has_failed_ = true;
    fail<CommError>("{}", fault_text(result, comm, call));
  }
}

std::optional<std::string> NcclGroup::async_fault() {
  const auto look = [&](nccl::Comm* comm) -> std::optional<std::string> {
    int error = nccl::kSuccess;
    const int result = library_->functions().comm_get_async_error(comm, &error);
    const int worst = result != nccl::kSuccess ? result : error;
    if (worst == nccl::kSuccess || worst == nccl::kInProgress) {
      return std::nullopt;
    }
    has_failed_ = true;
    std::string text = fault_text(worst, comm, NcclCall::here("ncclCommGetAsyncError"));
    for (const UnderWay& each : under_way_) {
      if (!each.is_done()) {
        return text + fmt::format("; under way is {}", describe(each.operation));
      }
    }
    return text;
  };
  if (auto fault = look(comm_)) {
    return fault;
  }
  for (const auto& [key, lane] : lanes_) {
    if (auto fault = look(lane.comm)) {
      return fault;
    }
  }
  return std::nullopt;
}

void NcclGroup::forget_done() {
  while (!under_way_.empty() && under_way_.front().is_done()) {
    under_way_.pop_front();
  }
}

void NcclGroup::throw_fault() {
  if (const auto fault = async_fault()) {
    note_thrown(*fault);
    fail<CommError>("{}", *fault);
  }
}

void NcclGroup::note_thrown(std::string text) {
  if (!thrown_) {
    thrown_ = {std::move(text), now_seconds()};
  }
}

Mark NcclGroup::run(const CommOperation& operation, const Stream& stream, const NcclCall& call,
                    const std::function<int(const nccl::Table&)>& enqueue) {
  const bool is_recorded = device_.is_recording();
  {
    const std::lock_guard lock(mutex_);
    name_ = operation.group.data();
    throw_fault();
    forget_done();
    device_.wait(stream, device_.record(device_.stream(StreamId::kCompute)));
    if (!is_recorded) {
      under_way_.push_back({operation, device_.record(stream), nullptr, std::nullopt});
    }
  }
  // Not locked: NCCL may wait for other ranks even here, and the watch has to see it.
  const int result = enqueue(library_->functions());
  const std::lock_guard lock(mutex_);
  if (result != nccl::kSuccess && result != nccl::kInProgress) {
    if (!is_recorded) {
      under_way_.pop_back();
    }
    note_thrown(fault_text(result, comm_, call));
  }
  check(result, comm_, call);
  Mark done = device_.record(stream);
  if (!is_recorded) {
    has_been_enqueued(done);
  }
  return done;
}

/// The newest operation under way.
void NcclGroup::has_been_enqueued(const Mark& done) {
  if (under_way_.size() <= kMostUnderWay) {
    under_way_.back().done = done;
  } else {
    under_way_.pop_back();
  }
}

void NcclGroup::begin_replay(const CommOperation& operation) {
  const std::lock_guard lock(mutex_);
  name_ = operation.group.data();
  throw_fault();
  forget_done();
  under_way_.push_back(
      {operation, device_.record(device_.stream(StreamId::kCompute)), nullptr, std::nullopt});
}

void NcclGroup::end_replay() {
  const std::lock_guard lock(mutex_);
  has_been_enqueued(device_.record(device_.stream(StreamId::kCompute)));
}

void NcclGroup::follow(const Mark& mark) {
  {
    const std::lock_guard lock(mutex_);
    throw_fault();
  }
  device_.wait(device_.stream(StreamId::kCompute), mark);
}

std::optional<std::string> NcclGroup::trouble(double limit_seconds) {
  const std::lock_guard lock(mutex_);
  if (is_told_) {
    return std::nullopt;
  }
  if (thrown_) {
    // The program ends by itself, unless freeing memory of the device waits for what can never end there.
    if (now_seconds() - thrown_->seconds < std::min(kMostUnwindingSeconds, limit_seconds)) {
      return std::nullopt;
    }
    is_told_ = true;
    return thrown_->text;
  }
  if (auto fault = async_fault()) {
    is_told_ = true;
    return fault;
  }
  forget_done();
  for (UnderWay& each : under_way_) {
    if (!each.begun->is_done() || each.is_done()) {
      continue;  // it waits for this rank's own work, not for others
    }
    const double now = now_seconds();
    const double waited = now - each.seen_waiting.value_or(now);
    each.seen_waiting = now - waited;
    if (waited >= limit_seconds) {
      return waited_too_long(waited, each.operation);
    }
  }
  return std::nullopt;
}

}  // namespace caravan::detail
