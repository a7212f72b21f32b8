// What this program was built from; generated at build time (cmake/CaravanBuildInfo.cmake).
#pragma once

namespace caravan {

struct BuildInfo {
  const char* version;
  const char* commit;  // "unknown" outside a git checkout; "-dirty" when there were uncommitted changes
  const char* build_type;
  const char* compiler;
  const char* sanitize;  // empty when none
};

BuildInfo build_info();

}  // namespace caravan
