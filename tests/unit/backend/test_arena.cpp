#include "caravan/backend/arena.h"

#include <catch2/catch.hpp>
#include <cstdint>

#include "caravan/core/error.h"

using namespace caravan;

TEST_CASE("an arena hands out aligned memory and remembers its high-water mark", "[backend][arena]") {
  Arena arena("test", allocate_host(1024));
  const TensorView a = arena.allocate("a", DType::kFloat32, {3});
  {
    const ArenaScope scope(arena);
    const TensorView b = arena.allocate("b", DType::kFloat64, {5, 2});
    CHECK(reinterpret_cast<std::uintptr_t>(b.raw()) % 64 == 0);  // NOLINT
    CHECK(static_cast<char*>(b.raw()) - static_cast<char*>(a.raw()) == 64);
    CHECK(arena.mark() == 64 + 128);
  }
  CHECK(arena.mark() == 64);
  CHECK(arena.high_water() == 192);
}

TEST_CASE("a full arena says what did not fit", "[backend][arena]") {
  Arena arena("activations", allocate_host(128));
  arena.allocate("first", DType::kFloat32, {16});
  CHECK_THROWS_WITH(arena.allocate("logits", DType::kFloat32, {17}),
                    Catch::Contains("activations") && Catch::Contains("logits"));
  CHECK_THROWS_AS(arena.release(1000), InternalError);
}

TEST_CASE("an arena without memory gives shapes and counts", "[backend][arena]") {
  Arena arena("plan", Buffer(nullptr, std::int64_t{1} << 60, {DeviceKind::kNone, 0}, [](void*) {}));
  const TensorView view = arena.allocate("huge", DType::kFloat32, {1 << 20, 1 << 20});
  CHECK(view.raw() == nullptr);
  CHECK(view.shape() == Shape{1 << 20, 1 << 20});
  CHECK(arena.high_water() == std::int64_t{4} << 40);
}
