#include "kernels/cuda/products.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <map>
#include <tuple>

#include "caravan/core/error.h"
#include "caravan/core/runtime_library.h"
#include "kernels/cuda/launch_status.h"

namespace caravan::cuda {
namespace {

#define CARAVAN_CUBLASLT_FUNCTIONS(with)                                                                  \
  with(cublasLtGetVersion) with(cublasLtCreate) with(cublasLtDestroy) with(cublasLtMatmul)                \
      with(cublasLtMatmulDescCreate) with(cublasLtMatmulDescDestroy) with(cublasLtMatmulDescSetAttribute) \
          with(cublasLtMatrixLayoutCreate) with(cublasLtMatrixLayoutDestroy)                              \
              with(cublasLtMatmulPreferenceCreate) with(cublasLtMatmulPreferenceDestroy)                  \
                  with(cublasLtMatmulPreferenceSetAttribute) with(cublasLtMatmulAlgoGetHeuristic)         \
                      with(cublasLtGetStatusName)

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return CUDA_R_32F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    default:
      fail<InternalError>("no product of {}", dtype_name(dtype));
  }
}

std::string remedy_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return remedy(cudaErrorNoDevice);
    case CUBLAS_STATUS_ALLOC_FAILED:
      return remedy(cudaErrorMemoryAllocation);
    case CUBLAS_STATUS_ARCH_MISMATCH:
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "this cuBLASLt has no such product on this GPU; name another one in CARAVAN_CUBLASLT, or choose "
             "device: cpu";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "the product is described wrongly; this is a bug in Caravan";
    default:  // execution failed: of this product, or of what came before
      return remedy(cudaErrorLaunchFailure);
  }
}

/// The largest power of two up to 256 that divides the address.
std::uint32_t alignment_of(const void* address) {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  std::uint32_t alignment = 256;
  while (number % alignment != 0) {
    alignment /= 2;
  }
  return alignment;
}

}  // namespace

/// Never closed: it has memory of its own on the device.
// Members have the library's names, which no parentheses may enclose: NOLINTBEGIN(bugprone-macro-parentheses)
struct Products::Library {
#define CARAVAN_DECLARE(name) decltype(&::name) name = nullptr;
  CARAVAN_CUBLASLT_FUNCTIONS(CARAVAN_DECLARE)
#undef CARAVAN_DECLARE
  void* handle = nullptr;

  explicit Library(const std::string& file) {
    std::string reason;
    handle = open_library(file, reason);
    if (handle == nullptr) {
      fail<DeviceError>("{}", reason);
    }
#define CARAVAN_OPEN(name)                                                                              \
  name = reinterpret_cast<decltype(name)>(find_function(handle, #name)); /* NOLINT: dlsym's contract */ \
  if (name == nullptr) {                                                                                \
    fail<DeviceError>("{} has no function {}: it is of another version", file, #name);                  \
  }
    CARAVAN_CUBLASLT_FUNCTIONS(CARAVAN_OPEN)
#undef CARAVAN_OPEN
  }

  void check(const NamedCall& call, cublasStatus_t status) const {
    if (status != CUBLAS_STATUS_SUCCESS) {
      fail<DeviceError>("{} ({}): {}; {}", call.name, place_of(call), cublasLtGetStatusName(status),
                        remedy_of(status));
    }
  }
};
// NOLINTEND(bugprone-macro-parentheses)

/// Everything of a product but its addresses. Freed with the process's last use of the library: plans live as
/// long as the runtime.
struct Products::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr;
  cublasLtMatrixLayout_t b = nullptr;
  cublasLtMatrixLayout_t c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

class Products::Plans {
 public:
  explicit Plans(const Library& library) : library_(library) {
    library.check("cublasLtCreate", library.cublasLtCreate(&handle_));
  }
  ~Plans() {
    for (auto& [key, plan] : plans_) {
      for (cublasLtMatrixLayout_t layout : {plan.a, plan.b, plan.c}) {
        library_.cublasLtMatrixLayoutDestroy(layout);
      }
      library_.cublasLtMatmulDescDestroy(plan.operation);
    }
    library_.cublasLtDestroy(handle_);
  }
  Plans(const Plans&) = delete;
  Plans& operator=(const Plans&) = delete;
  Plans(Plans&&) = delete;
  Plans& operator=(Plans&&) = delete;

  cublasLtHandle_t handle() const { return handle_; }
  const Plan& plan(const Product& product) {
    const std::int64_t inner = product.a.dim(product.form == Product::Form::kTn ? 0 : 1);
    const Key key{product.form,
                  product.c.dim(0),
                  product.c.dim(1),
                  inner,
                  product.a.dtype(),
                  product.c.dtype(),
                  product.add,
                  alignment_of(product.a.raw()),
                  alignment_of(product.b.raw()),
                  alignment_of(product.c.raw())};
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      found = plans_.emplace(key, make(product, inner)).first;
    }
    return found->second;
  }

 private:
  using Key = std::tuple<Product::Form, std::int64_t, std::int64_t, std::int64_t, DType, DType, bool,
                         std::uint32_t, std::uint32_t, std::uint32_t>;

  cublasLtMatrixLayout_t layout(DType dtype, std::int64_t rows, std::int64_t columns) const {
    cublasLtMatrixLayout_t made = nullptr;
    library_.check(
        "cublasLtMatrixLayoutCreate",
        library_.cublasLtMatrixLayoutCreate(&made, data_type(dtype), static_cast<std::uint64_t>(rows),
                                            static_cast<std::uint64_t>(columns), rows));
    return made;
  }

  /// Row-major c = op(a)·op(b) is column-major cᵀ = op(b)ᵀ·op(a)ᵀ: operands change places, and what is
  /// row-major [r, c] is column-major [c, r] of leading dimension c.
  Plan make(const Product& product, std::int64_t inner) const {
    Plan plan;
    library_.check("cublasLtMatmulDescCreate",
                   library_.cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t turn = CUBLAS_OP_T;
    if (product.form == Product::Form::kNt) {
      set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, turn);
    } else if (product.form == Product::Form::kTn) {
      set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, turn);
    }
    plan.a = layout(product.b.dtype(), product.b.dim(1), product.b.dim(0));
    plan.b = layout(product.a.dtype(), product.a.dim(1), product.a.dim(0));
    plan.c = layout(product.c.dtype(), product.c.dim(1), product.c.dim(0));
    choose(plan, product, inner);
    return plan;
  }

  template <class T>
  void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t what, const T& value) const {
    library_.check("cublasLtMatmulDescSetAttribute",
                   library_.cublasLtMatmulDescSetAttribute(operation, what, &value, sizeof(value)));
  }
  template <class T>
  void prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what,
              const T& value) const {
    library_.check("cublasLtMatmulPreferenceSetAttribute",
                   library_.cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof(value)));
  }

  void choose(Plan& plan, const Product& product, std::int64_t inner) const {
    cublasLtMatmulPreference_t preference = nullptr;
    library_.check("cublasLtMatmulPreferenceCreate", library_.cublasLtMatmulPreferenceCreate(&preference));
    prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kWorkspaceBytes));
    // A sum that is cut into parts adds them in float32, in a step of their own and so in a fixed order. The
    // other schemes add in the result's type: 16 bits, most often.
    const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(product.b.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(product.a.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(product.c.raw()));
    prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(product.c.raw()));
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = library_.cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.operation, plan.a, plan.b, plan.c, plan.c, preference, 1, &result, &found);
    library_.cublasLtMatmulPreferenceDestroy(preference);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && found == 0)) {
      fail<DeviceError>("cuBLASLt has no algorithm for a product of {} and {} to {} (inner size {}, {}); {}",
                        product.a.str(), product.b.str(), product.c.str(), inner,
                        place_of("cublasLtMatmulAlgoGetHeuristic"), remedy_of(CUBLAS_STATUS_NOT_SUPPORTED));
    }
    library_.check("cublasLtMatmulAlgoGetHeuristic", status);
    plan.algorithm = result.algo;
  }

  const Library& library_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
};

std::shared_ptr<const Products::Library> Products::find_library() {
  const LibrarySearch<Library> search({.file = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR),
                                       .variable = "CARAVAN_CUBLASLT",
                                       .python_folder = fmt::format("cu{}", CUBLAS_VER_MAJOR)});
  if (search.library == nullptr) {
    fail<DeviceError>(
        "no cuBLASLt {} that can be used; tried{}; install a CUDA {} toolkit, name the library's folder in "
        "CARAVAN_CUBLASLT, or choose device: cpu",
        CUBLAS_VER_MAJOR, describe(search.tried), CUBLAS_VER_MAJOR);
  }
  return search.library;
}

Products::Products() : library_(find_library()), plans_(std::make_unique<Plans>(*library_)) {}

Products::~Products() = default;

std::string Products::version() const {
  const std::size_t number = library_->cublasLtGetVersion();
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

void Products::run(const Product& product, void* workspace, cudaStream_t stream) {
  const Plan& plan = plans_->plan(product);
  const float alpha = 1.0F;
  const float beta = product.add ? 1.0F : 0.0F;
  library_->check("cublasLtMatmul",
                  library_->cublasLtMatmul(plans_->handle(), plan.operation, &alpha, product.b.raw(), plan.a,
                                           product.a.raw(), plan.b, &beta, product.c.raw(), plan.c,
                                           product.c.raw(), plan.c, &plan.algorithm, workspace,
                                           static_cast<std::size_t>(kWorkspaceBytes), stream));
  after_launch("cublasLtMatmul", stream);
}

}  // namespace caravan::cuda
